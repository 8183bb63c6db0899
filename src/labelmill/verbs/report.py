"""`labelmill report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labelmill.verbs.common import AsJson, LinePath, WorkspacePath, command, emit, load, workspace_of


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(epilog="Example: `labelmill report line.yaml --open`")(report)


def report(
    line: LinePath,
    workspace: WorkspacePath = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file; default: report.html in the workspace.", show_default=False
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file about the last run: counts, galleries, similarities, timings, quarantine."""
    from labelmill.datasets.report import Step, write_report

    config = load(line)
    place = workspace_of(config, workspace)
    given: list[Path | str] = ["-w", workspace] if workspace else []
    path = write_report(
        place,
        out or place.root / "report.html",
        title=config.name,
        base=config.base,
        facts={"line file": str(line)},
        steps=[
            Step("Publish a dataset version", command("publish", line, *given)),
            Step("Send what is not clear to people", command("review", "push", line, *given)),
        ],
    )
    emit({"report": str(path)}, as_json=as_json, text=lambda: f"report: {path}")
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
