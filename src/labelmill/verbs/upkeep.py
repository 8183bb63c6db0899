"""The verbs that keep versions whole: verify, restore and prune."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labelmill.verbs.common import AsJson, emit, note, progress_bar
from labelmill.verbs.versions import Spec, StorePath, find_store


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog="Example: `labelmill verify bottles@v3`")(verify)
    app.command(epilog="Examples: `labelmill restore bottles@v3` · `labelmill restore`")(restore)
    app.command(epilog="Examples: `labelmill prune` lists · `labelmill prune --yes` removes")(prune)


def verify(
    spec: Spec,
    workspace: StorePath = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the pictures, only look for them.")
    ] = False,
    fiftyone: Annotated[bool, typer.Option(help="Also compare what FiftyOne shows.")] = True,
    as_json: AsJson = False,
) -> None:
    """Prove every file, row and picture of a version against its manifest; exit 2 where one fails."""
    from labelmill.datasets.versions.verify import verify as prove

    store = find_store(spec, workspace)
    version = store.resolve(spec)
    with progress_bar("pictures") as progress:
        result = prove(store.workspace, version, media=not quick, progress=progress)
    shown = _shown(store.workspace, version) if fiftyone and result.ok else {}
    ok = result.ok and shown.get("different", 0) == 0 and shown.get("asked", True)

    def text() -> str:
        rows = [f"{result.version}  {result.digest}"]
        rows += [f"FAIL {fault}" for fault in result.faults]
        if result.ok:
            how = "there" if quick else "whole"
            rows.append(f"ok   {result.rows:,} rows as published, {result.media:,} pictures {how}")
        if "state" in shown:
            rows.append(f"{'ok  ' if ok else 'FAIL'} FiftyOne: {shown['state']}")
        return "\n".join(rows)

    emit({**result.to_json(), "ok": ok, "fiftyone": shown}, as_json=as_json, text=text)
    if not ok:
        raise typer.Exit(2)


def _shown(workspace: Any, version: Any) -> dict[str, Any]:
    from labelmill.datasets.versions.mirror import differences
    from labelmill.errors import LabelmillError

    name = version.manifest.name
    try:
        different = differences(workspace, workspace.root / "fiftyone", version)
    except LabelmillError as error:  # the files are proved, whatever becomes of the database
        return {"state": f"cannot be asked: {error}; leave it out: --no-fiftyone", "asked": False}
    if different is None:
        return {"state": f"not there; labelmill restore {name} shows it"}
    if different:
        return {
            "state": f"{len(different)} samples differ; labelmill restore {name} mends them",
            "different": len(different),
        }
    return {"state": "shows every row", "different": 0}


def restore(
    spec: Annotated[
        str | None,
        typer.Argument(metavar="VERSION", help="A version; default: every one.", show_default=False),
    ] = None,
    workspace: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Make FiftyOne's datasets again from the versions' own files."""
    from labelmill.datasets.fiftyone_window import Window
    from labelmill.datasets.versions.restore import restore as run

    store = find_store(spec, workspace)
    versions = [store.resolve(spec)] if spec else [v for name in store.datasets() for v in store.all(name)]
    window = Window(store.workspace)
    with store.workspace.lock(), progress_bar("samples") as progress:
        for version in versions:
            note(f"restoring {version.manifest.name} …")
            run(store.workspace, version, window, progress)
    names = [version.manifest.name for version in versions]
    emit({"restored": names}, as_json=as_json, text=lambda: f"restored {', '.join(names) or 'nothing'}")


def prune(
    workspace: StorePath = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only list.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove pictures that no version and no current run names; a dry run unless --yes is given."""
    from labelmill.datasets.versions.prune import find_prunable
    from labelmill.datasets.versions.prune import prune as remove

    place = find_store(None, workspace).workspace
    with place.lock():
        found = find_prunable(place)
        if yes:
            remove(place, found)
    document = {
        "removed": yes,
        "media": len(found.media),
        "shards": len(found.shards),
        "bytes": found.bytes,
        "kept": found.kept,
        "files": [str(path.relative_to(place.root)) for path in (*found.media, *found.shards)],
    }

    def text() -> str:
        verb = "removed" if yes else "would remove"
        size = f"{found.bytes / 1e6:,.1f} MB"
        tail = "" if yes or not found.bytes else "; --yes does it"
        return (
            f"{verb} {len(found.media):,} pictures and {len(found.shards):,} cached shards, {size}, "
            f"keeping {found.kept:,} pictures{tail}"
        )

    emit(document, as_json=as_json, text=text)
