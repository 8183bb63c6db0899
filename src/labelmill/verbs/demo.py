"""`labelmill demo`: the whole factory on sample footage, or on a video of the user's."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.verbs.common import AsJson, command, emit, note, progress_bar

if TYPE_CHECKING:
    from labelmill.datasets.workspace import Workspace

OWN_LINE = """\
# Written by `labelmill demo --source`; edit it, then run `labelmill annotate` on it.
# Every key is described in docs/line-file.md; unknown keys are errors.
name: {name}
sources:
  - video: {video}
selection:
  fps: 10
proposer:
  kind: motion
encoder:
  kind: hog
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Examples: `labelmill demo` · `labelmill demo --source monday.mp4` · "
        "`labelmill demo --source monday.mp4 --templates crops/`"
    )(demo)


def demo(
    source: Annotated[
        Path | None,
        typer.Option("--source", help="A video of your own, not the generated one.", show_default=False),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            "--templates",
            help="With --source: a folder with a sub-folder of crops per class; without it, "
            "crops are grouped by likeness for you to name.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.")] = Path("labelmill-demo"),
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, metavar="SECONDS", help="Length of the generated video.")
    ] = 30,
    foundation: Annotated[
        bool,
        typer.Option(
            "--foundation",
            help="Find and tell apart with Grounding DINO and BLIP-2; says first what it will download "
            "and what 1,000 frames cost here.",
        ),
    ] = False,
    publish: Annotated[bool, typer.Option(help="Publish a dataset version at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run the whole factory: sample footage, regions, labels, an HTML report and a dataset version."""
    from labelmill.datasets.annotate import annotate
    from labelmill.datasets.workspace import Workspace
    from labelmill.errors import TemplateError
    from labelmill.line import load_line

    started = time.perf_counter()
    truth = None
    if source is None and templates is not None:
        raise TemplateError("--templates without --source", do="name your video with --source, or drop it")
    if source is None:
        line_path, truth = _sample(out, seconds)
    else:
        line_path = _own_line(out, source, templates)
    if foundation:
        from labelmill.verbs.demo_foundation import with_foundation

        line_path = with_foundation(line_path)
    line = load_line(line_path)
    workspace = Workspace(out / "workspace")
    with progress_bar("frames") as progress:
        summary = annotate(line, workspace, progress)
    document: dict[str, Any] = {"line": str(line_path), "workspace": str(workspace.root), **_counts(summary)}
    groups: list[Any] = []
    if not summary["classes"]:
        from labelmill.datasets.grouping import suggest_groups

        groups = suggest_groups(workspace, out / "templates")
        document["templates"] = {group.name: group.total for group in groups}
    elif publish:
        document["version"] = _publish(line_path, workspace)
    document["report"] = str(
        _report(line_path, workspace, out, truth, source, groups, document.get("version"))
    )
    document["wall_s"] = round(time.perf_counter() - started, 1)
    emit(document, as_json=as_json, text=lambda: _text(document, source, out))


def _sample(out: Path, seconds: float) -> tuple[Path, Path]:
    from labelmill.datasets.sample import generate_sample

    with progress_bar("frames") as progress:
        sample = generate_sample(
            out / "sample", duration_s=seconds, progress=lambda done, total: progress(done, total, "drawing")
        )
    return sample.line, sample.truth


def _own_line(out: Path, source: Path, templates: Path | None) -> Path:
    import json

    from labelmill.errors import LineFileError, SourceError
    from labelmill.files import disk_errors, write_bytes

    if not source.exists():
        raise SourceError(f"no file {source}", expected="a video file", do="mend --source")
    name = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in source.stem).strip("-")
    text = OWN_LINE.format(name=name[:64] or "demo", video=json.dumps(str(source.resolve())))
    if templates is not None:
        text += f"templates:\n  folder: {json.dumps(str(templates.resolve()))}\n"
    path = out / "line.yaml"
    if path.exists() and not _as_written(path.read_text(encoding="utf-8", errors="replace")):
        again = command("annotate", path, "-w", out / "workspace")
        raise LineFileError(
            f"{path} was edited, and is kept", do=f"use it: {again}, or name another folder with --out"
        )
    with disk_errors(out):
        write_bytes(path, text.encode())
    return path


def _as_written(text: str) -> bool:
    """Whether a line file is one of ours that nobody edited."""
    blank = {"name": "", "video": ""}
    text = re.sub(r"templates:\n  folder: .*\n\Z", "", text)
    text = re.sub(r"^(name:|  - video:) .*$", r"\1 ", text, flags=re.MULTILINE)
    return text == OWN_LINE.format(**blank)


def _publish(line_path: Path, workspace: Workspace) -> str:
    from labelmill.datasets.fiftyone_window import Window
    from labelmill.datasets.versions.origin import open_origin
    from labelmill.datasets.versions.publish import publish
    from labelmill.line import load_line

    line = load_line(line_path)
    note("publishing; FiftyOne and its database take a moment to start …")
    with open_origin(line, workspace, line_path.read_bytes()) as origin, progress_bar("") as progress:
        published = publish(
            workspace, line.dataset, origin, Window(workspace), message="labelmill demo", progress=progress
        )
    for warning in published.warnings:
        note(f"warning: {warning}")
    return published.version.manifest.name


def _report(
    line_path: Path,
    workspace: Workspace,
    out: Path,
    truth: Path | None,
    source: Path | None,
    groups: list[Any],
    version: str | None,
) -> Path:
    from labelmill.datasets.report import Step, write_report

    place = out / "workspace"  # as the user named it
    steps = [Step("Change the line file, and look again", command("annotate", line_path, "-w", place))]
    if groups:
        text = f"Rename the folders of {out / 'templates'} to your classes, delete the rest, and use them"
        steps.insert(0, Step(text, _with_names(source, out)))
    if version:
        steps.insert(0, Step("Browse the dataset", command("browse", version, "-w", place)))
    return write_report(
        workspace,
        out / "report.html",
        title="labelmill demo",
        truth=truth,
        base=line_path.parent.resolve(),
        facts={"line file": str(line_path)},
        groups=groups,
        steps=steps,
    )


def _counts(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in ("counts", "by_class", "lambda", "seconds", "shards")}


def _with_names(source: Path | None, out: Path) -> str:
    return command("demo", "--source", str(source), "--templates", out / "templates", "--out", out)


def _text(document: dict[str, Any], source: Path | None, out: Path) -> str:
    counts = document["counts"]
    rows = [
        f"{counts['frames']:,} frames, {counts['regions']:,} regions: {counts['accepted']:,} accepted, "
        f"{counts['review']:,} to review, {counts['ng']:,} NG; {counts['ng_frames']:,} NG frames",
        f"line:    {document['line']}",
        f"report:  {document['report']}",
    ]
    if "templates" in document:
        rows.append(
            f"groups:  {out / 'templates'}: rename the folders to your classes, delete the rest, then"
        )
        rows.append(f"         {_with_names(source, out)}")
    if "version" in document:
        rows.append("dataset: " + command("browse", document["version"], "-w", out / "workspace"))
    rows.append(f"{document['wall_s']:.0f} s")
    return "\n".join(rows)
