"""`labelmill run`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labelmill.verbs.common import AsJson, LinePath, WorkspacePath, emit, load, note, workspace_of


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Example: `labelmill run line.yaml`. With PREFECT_API_URL set, the run appears on that "
        "server; without it a server is started for the run, which takes a while."
    )(run)


def run(
    line: LinePath,
    workspace: WorkspacePath = None,
    publish: Annotated[bool, typer.Option(help="Publish a dataset version at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run a whole line as one Prefect flow: `annotate` and `publish`, scheduled, retried and watched."""
    config = load(line)
    place = workspace_of(config, workspace)
    note("starting Prefect …")
    from labelmill.flows.factory import run as flow
    from labelmill.flows.server import start_temporary

    start_temporary()
    summary: dict[str, Any] = flow(line=str(line.resolve()), workspace=str(place.root), publish=publish)
    emit(summary, as_json=as_json, text=lambda: _text(summary))


def _text(summary: dict[str, Any]) -> str:
    counts = summary["counts"]
    return (
        f"{summary['line']}: {counts['frames']:,} frames, {counts['regions']:,} regions, "
        f"{counts['accepted']:,} accepted, {counts['review']:,} to review, {counts['ng']:,} NG; "
        f"{summary['shards']['computed']} shards computed, {summary['shards']['reused']} reused"
        + (f"; dataset version {summary['version']}" if "version" in summary else "")
    )
