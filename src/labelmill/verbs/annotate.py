"""`labelmill check` and `labelmill annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from labelmill.verbs.common import (
    AsJson,
    LinePath,
    WorkspacePath,
    command,
    emit,
    load,
    progress_bar,
    workspace_of,
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(
        epilog="Examples: `labelmill annotate examples/bottle-line.yaml` · "
        "`labelmill annotate line.yaml --source monday.mp4 --json`"
    )(annotate)
    app.command(epilog="Example: `labelmill check examples/bottle-line.yaml`")(check)


def annotate(
    line: LinePath,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--source",
            help="A video, or a folder of videos or images, instead of the line's; give it again for more.",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspacePath = None,
    as_json: AsJson = False,
) -> None:
    """Select, propose, encode, match and route; go on where an earlier run stopped."""
    from labelmill.datasets.annotate import annotate as run

    config = with_sources(load(line), source)
    place = workspace_of(config, workspace)
    with progress_bar("frames") as progress:
        summary = run(config, place, progress)
    given: list[str | Path] = ["-w", workspace] if workspace else []
    emit(
        {**summary, "workspace": str(place.root)},
        as_json=as_json,
        text=lambda: _text(summary, place.root) + "\nlook at it: " + command("report", line, *given),
    )


def with_sources(line: Any, sources: list[Path] | None) -> Any:
    """The line, with other footage."""
    if not sources:
        return line
    from labelmill.datasets.sources.config import SourceConfig
    from labelmill.images import SUFFIXES, list_images

    chosen = []
    for path in sources:
        absolute = path.resolve()
        stills = absolute.is_dir() and bool(list_images(absolute))
        if absolute.suffix.lower() in SUFFIXES:
            from labelmill.errors import SourceError

            raise SourceError(
                f"{path} is a single image", expected="a video, or a folder", do="give the image's folder"
            )
        chosen.append(SourceConfig(images=absolute) if stills else SourceConfig(video=absolute))
    return line.model_copy(update={"sources": tuple(chosen)})


def check(line: LinePath, workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Validate a line file, its footage, templates, weights and workspace; say what cures each fault."""
    from labelmill.datasets.check import check_line

    config = load(line)
    findings = check_line(config, workspace_of(config, workspace))
    faults = [finding for finding in findings if not finding["ok"]]
    width = max(len(str(finding["what"])) for finding in findings)

    def text() -> str:
        rows = [
            f"{'ok  ' if finding['ok'] else 'FAIL'} {finding['what']:<{width}}  {finding['detail']}"
            for finding in findings
        ]
        rows.append("the line is ready" if not faults else f"{len(faults)} to mend")
        return "\n".join(rows)

    emit({"ok": not faults, "findings": findings}, as_json=as_json, text=text)
    if faults:
        raise typer.Exit(2)


def _text(summary: dict[str, Any], root: Path) -> str:
    counts = summary["counts"]
    shards = summary["shards"]
    rows = [
        f"{summary['line']}: {counts['frames']:,} frames ({counts['kept']:,} kept, {counts['repeat']:,} "
        f"repeats, {counts['unreadable']:,} unreadable), {counts['ng_frames']:,} NG frames",
        f"{counts['regions']:,} regions: {counts['accepted']:,} accepted, {counts['review']:,} to review, "
        f"{counts['ng']:,} NG (λ {summary['lambda']:.3f})",
        "",
        f"{'class':<24} {'accepted':>9} {'review':>9} {'ng':>9}",
    ]
    rows += [
        f"{name[:24]:<24} {row['accepted']:>9,} {row['review']:>9,} {row['ng']:>9,}"
        for name, row in summary["by_class"].items()
    ]
    rows += [
        "",
        f"{shards['computed']} shards computed, {shards['reused']} reused, {summary['wall_s']:.1f} s; "
        f"tables in {root / 'tables'}",
    ]
    if counts["quarantined"]:
        rows.append(f"{counts['quarantined']} quarantined: {root / 'tables' / 'quarantine.parquet'}")
    return "\n".join(rows)
