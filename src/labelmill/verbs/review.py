"""`labelmill review push`, `pull` and `status`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.verbs.common import (
    AsJson,
    LinePath,
    WorkspacePath,
    emit,
    load,
    note,
    progress_bar,
    workspace_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from labelmill.datasets.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(
        help="Let people settle the ambiguous crops, in Label Studio.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
    )
    group.command(epilog="Example: `labelmill review push line.yaml`")(push)
    group.command(
        epilog="Examples: `labelmill review pull line.yaml` · "
        "`labelmill review pull line.yaml --watch --listen 0`"
    )(pull)
    group.command(epilog="Example: `labelmill review status line.yaml --json`")(status)
    app.add_typer(group, name="review")


def push(line: LinePath, workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Bring the queue to what it should be: new crops, changed ones, withdrawn ones, in the best order."""
    from labelmill.datasets.review.desk import at_desk

    config = load(line)
    place = workspace_of(config, workspace)
    quality = config.dataset.jpeg_quality
    with (
        progress_bar("done") as progress,
        at_desk(config, config.review, place, frame_quality=quality, say=note) as desk,
    ):
        report = desk.push(progress=progress)
    emit(report, as_json=as_json, text=lambda: _pushed(report, line))


def pull(
    line: LinePath,
    workspace: WorkspacePath = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read every answer again, also to notice removed ones.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on pulling until interrupted.")] = False,
    every_s: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.1, help="How often, with --watch.")
    ] = 30.0,
    listen: Annotated[
        int | None,
        typer.Option(
            "--listen", metavar="PORT", min=0, max=65535, show_default=False,
            help="With --watch: also pull when the server says so, through a webhook to this port of "
            "127.0.0.1; 0 takes a free one.",
        ),
    ] = None,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="With --watch: stop when no task is open.")
    ] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Read what people decided since the last pull."""
    config = load(line)
    place = workspace_of(config, workspace)
    if watch:
        from labelmill.datasets.review.watch import watch as keep_pulling

        def show(report: dict[str, Any]) -> bool:
            if report["new_answers"]:
                note(f"{report['new_answers']} new answers, {report['decided']} regions decided")
            return True

        report = keep_pulling(
            config, config.review, place, every_s=every_s, listen=listen, until_done=until_done, pulled=show,
            say=note,
        )  # fmt: skip
    else:
        from labelmill.datasets.review.desk import at_desk

        with at_desk(config, config.review, place, say=note) as desk:
            report = desk.pull(full=True) if full else {}
            if (place.root / "review" / "suspended.json").exists():
                report = {**desk.pull_and_count(), **report}
            report = report or desk.pull()
        report["resumed"] = report.get("open") == 0 and _resume(place)
    emit(report, as_json=as_json, text=lambda: _pulled(report, line))


def _resume(workspace: Workspace) -> bool:
    """Resume the flow run that waits for the queue."""
    from labelmill.flows.review import resume

    note("the queue is done: resuming the run that waits for it")
    return resume(workspace)


def status(line: LinePath, workspace: WorkspacePath = None, as_json: AsJson = False) -> None:
    """Say how the queue stands."""
    from labelmill.datasets.review.desk import Desk

    config = load(line)
    with closing(Desk(config, config.review, workspace_of(config, workspace), say=note)) as desk:
        report = desk.status()
    emit(report, as_json=as_json, text=lambda: _stands(report))


def _pushed(report: dict[str, Any], line: Path) -> str:
    from labelmill.annotators.review.server import LabelStudioServer

    server = LabelStudioServer()
    access = server.access()
    log_in = "log in"
    if access is not None and report["project"].startswith(f"{access.url}/"):
        log_in = f"log in as {access.login} (password in {server.root / 'access.json'})"
    return "\n".join(
        [
            f"{report['new']:,} new tasks, {report['updated']:,} updated, {report['opened']:,} reopened, "
            f"{report['closed']:,} closed, {report['kept']:,} as they were ({report['seconds']:.1f} s)",
            f"{report['queue']:,} questions in the queue for {report['queue'] + report['grouped']:,} crops, "
            f"{report['audits']:,} of them audits; {report['decided']:,} regions decided",
            report["project"],
            f"{log_in}, press “Label All Tasks”, then `labelmill review pull {line}`",
        ]
    )


def _pulled(report: dict[str, Any], line: Path) -> str:
    rows = [
        f"{report['new_answers']:,} new answers; {report['decided']:,} regions decided, "
        f"{report['not_sure']:,} not sure, {report['disputed']:,} in dispute, {report['skipped']:,} skipped"
    ]
    if report["alpha"] is not None:
        rows.append(f"Krippendorff's alpha {report['alpha']:.3f}")
    if report["decided"]:
        rows.append(f"`labelmill publish {line}` takes them into a dataset version")
    return "\n".join(rows)


def _stands(report: dict[str, Any]) -> str:
    if report["project"] is None:
        return "no project yet: run `labelmill review push LINE`"
    left = report["seconds_left"]
    rows = [
        f"{report['open']:,} open, {report['answered']:,} answered, {report['closed']:,} closed of "
        f"{report['tasks']:,} tasks" + (f"; about {left / 60:.0f} min of work left" if left else ""),
        f"{report['decided']:,} regions decided, {report['not_sure']:,} not sure, {report['disputed']:,} in "
        f"dispute, {report['skipped']:,} skipped; {report['seconds'] / 60:.1f} min spent",
    ]
    if report["alpha"] is not None:
        rows.append(f"Krippendorff's alpha {report['alpha']:.3f}")
    return "\n".join([*rows, report["project"]])
