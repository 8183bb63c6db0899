"""The verbs about dataset versions: publish, versions, browse."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.errors import ServiceError, VersionError
from labelmill.verbs.common import (
    AsJson,
    LinePath,
    WorkspacePath,
    command,
    emit,
    load,
    note,
    progress_bar,
    workspace_of,
)

if TYPE_CHECKING:
    from labelmill.datasets.versions.manifest import Manifest
    from labelmill.datasets.versions.store import Version, VersionStore

Spec = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="A version: bottles@v3, bottles@latest, bottles@sha256:ab12cd34.",
        show_default=False,
    ),
]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        envvar="LABELMILL_WORKSPACE",
        help="Where the dataset was published; default: this folder, or the one in ./workspace with it.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog="Example: `labelmill publish line.yaml -m 'two more shifts'`")(publish)
    app.command(epilog="Examples: `labelmill versions` · `labelmill versions bottles --json`")(versions)
    app.command(epilog="Example: `labelmill browse bottles@v3`; Ctrl-C ends it.")(browse)


def publish(
    line: LinePath,
    message: Annotated[
        str, typer.Option("--message", "-m", help="What is new in it; default: none.", show_default=False)
    ] = "",
    source: Annotated[
        list[Path] | None,
        typer.Option("--source", help="The --source that annotate was given, if it was.", show_default=False),
    ] = None,
    workspace: WorkspacePath = None,
    fiftyone: Annotated[
        bool, typer.Option(help="Also write the FiftyOne dataset; without it, labelmill restore does later.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Publish a dataset version of what the last run found, or name the version that says the same."""
    from labelmill.datasets.fiftyone_window import Window
    from labelmill.datasets.versions.origin import open_origin
    from labelmill.datasets.versions.publish import publish as run
    from labelmill.verbs.annotate import with_sources

    config = with_sources(load(line), source)
    place = workspace_of(config, workspace)
    if not place.root.exists():  # to lock it would make it
        raise VersionError(
            "nothing to publish", got=f"no folder {place.root}", do="run labelmill annotate LINE first"
        )
    if fiftyone:
        note("publishing; FiftyOne and its database take a moment to start …")
    with open_origin(config, place, line.read_bytes()) as origin, progress_bar("") as progress:
        result = run(
            place,
            config.dataset,
            origin,
            Window(place) if fiftyone else None,
            message=message,
            progress=progress,
        )
    manifest = result.version.manifest
    for warning in result.warnings:
        note(f"warning: {warning}")
    document = {
        **summary(result.version),
        "created": result.created,
        "warnings": result.warnings,
        "workspace": str(place.root),
    }

    def text() -> str:
        head = "published" if result.created else "already published as"
        rows = [f"{head} {manifest.name}  {result.version.digest[:12]}", counts_table(manifest)]
        if manifest.counts["frames"].get("aside"):
            rows.append("aside: frames where two splits meet, which are in neither because they look alike")
        if waiting := sum(result.version.frames["pending"].to_pylist()):
            rows.append(f"{waiting:,} regions wait for a person and are not in it")
        given: list[str | Path] = ["-w", workspace] if workspace else []
        if fiftyone:
            rows.append("look at it: " + command("browse", manifest.name, *given))
        return "\n".join(rows)

    emit(document, as_json=as_json, text=text)


def versions(
    dataset: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="One dataset only.", show_default=False)
    ] = None,
    workspace: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """List the published versions."""
    store = find_store(dataset, workspace)
    names = [dataset] if dataset else store.datasets()
    if dataset:
        store.resolve(dataset)
    found = [version for name in names for version in store.all(name)]

    def text() -> str:
        if not found:
            return f"nothing is published in {store.workspace.root}"
        rows = [f"{'version':<24} {'published':<20} {'frames':>8} {'regions':>8}  {'digest':<12}  message"]
        for version in found:
            manifest = version.manifest
            rows.append(
                f"{manifest.name:<24} {manifest.created_at[:16].replace('T', ' '):<20} "
                f"{manifest.frames.rows:>8,} {manifest.regions.rows:>8,}  {version.digest[:12]}  "
                f"{manifest.message}"
            )
        return "\n".join(rows)

    emit({"versions": [summary(version) for version in found]}, as_json=as_json, text=text)


def browse(
    spec: Spec,
    workspace: StorePath = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port on 127.0.0.1; default: 5151 or the next free one.", show_default=False),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
    as_json: AsJson = False,
) -> None:
    """Open a version in the FiftyOne App, on this machine only."""
    import webbrowser

    from labelmill.datasets.fiftyone_window import Window

    store = find_store(spec, workspace)
    version = store.resolve(spec)
    listen = free_port(port)
    note("starting FiftyOne …")
    window = Window(store.workspace)
    window.load(version.manifest)

    def ready(url: str) -> None:
        emit(
            {**summary(version), "url": url}, as_json=as_json, text=lambda: f"{version.manifest.name}: {url}"
        )
        sys.stdout.flush()
        note("Ctrl-C ends it")
        if open_browser:
            webbrowser.open(url)

    window.serve(version.manifest.window_name, port=listen, ready=ready)


def find_store(spec: str | None, workspace: Path | None) -> VersionStore:
    """The versions of the workspace that a person means.

    Raises:
        VersionError: None or several workspaces have the dataset.
    """
    from labelmill.datasets.versions.store import VersionStore
    from labelmill.datasets.workspace import Workspace

    if workspace is not None:
        return VersionStore(Workspace(workspace))
    here = Path.cwd()
    candidates = [here, *sorted(path for path in (here / "workspace").glob("*") if path.is_dir())]
    stores = [VersionStore(Workspace(path)) for path in candidates if (path / "labelmill.json").exists()]
    dataset = spec.partition("@")[0] if spec else None
    holding = [store for store in stores if store.datasets() and dataset in (None, "", *store.datasets())]
    if len(holding) == 1:
        return holding[0]
    if not holding and len(stores) == 1:
        return stores[0]
    raise VersionError(
        f"no workspace here has a dataset {dataset!r}" if not holding else "several workspaces are here",
        got=", ".join(str(store.workspace.root) for store in (holding or stores)[:4]) or "none",
        expected="one workspace",
        do="name it with --workspace",
    )


def summary(version: Version) -> dict[str, Any]:
    """A version for JSON."""
    manifest = version.manifest
    return {
        "version": manifest.name,
        "digest": version.digest,
        "created_at": manifest.created_at,
        "message": manifest.message,
        "parent": f"{manifest.dataset}@v{manifest.parent.number}" if manifest.parent else None,
        "frames": manifest.frames.rows,
        "regions": manifest.regions.rows,
        "classes": manifest.classes,
        "counts": manifest.counts,
        "folder": str(version.folder),
    }


def counts_table(manifest: Manifest) -> str:
    """Labels by split, for people."""
    frames = manifest.counts["frames"]
    splits = [name for name in manifest.counts if name != "frames"]
    usual = ("train", "val", "test")
    splits.sort(key=lambda name: (usual.index(name) if name in usual else len(usual), name == "aside", name))
    labels = sorted({label for name in splits for label in manifest.counts[name]})
    rows = [f"{'':<24}" + "".join(f"{name:>10}" for name in splits)]
    rows.append(f"{'frames':<24}" + "".join(f"{frames.get(name, 0):>10,}" for name in splits))
    rows += [
        f"{label[:24]:<24}" + "".join(f"{manifest.counts[name].get(label, 0):>10,}" for name in splits)
        for label in labels
    ]
    return "\n".join(rows)


def free_port(wanted: int | None) -> int:
    """The wanted port if it is free, else the first free one from FiftyOne's own on.

    Raises:
        ServiceError: The wanted port is taken.
    """
    for port in [wanted] if wanted else range(5151, 5251):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceError(
        f"port {wanted} is taken" if wanted else "no port from 5151 to 5250 is free",
        do="name another with --port, or none to get a free one",
    )
