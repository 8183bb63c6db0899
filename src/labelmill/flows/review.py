"""Review within the factory: push, wait, pull; and the flow that pulls on a schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import resume_flow_run, suspend_flow_run

from labelmill.datasets.review.desk import at_desk
from labelmill.datasets.review.watch import watch
from labelmill.datasets.workspace import Workspace
from labelmill.files import write_bytes
from labelmill.line import Line, load_line


def wanted(line: Line) -> bool:
    """Whether people take part: when the line file has a `review` section."""
    return "review" in line.model_fields_set


@task(name="push-review", persist_result=False, cache_policy=NO_CACHE)
def push_review(line: Line, workspace: Workspace) -> dict[str, Any]:
    """Bring the queue to what it should be."""
    say = get_run_logger().warning
    quality = line.dataset.jpeg_quality
    with at_desk(line, line.review, workspace, frame_quality=quality, say=say) as desk:
        return desk.push()


@task(name="pull-review", persist_result=False, cache_policy=NO_CACHE)
def pull_review(line: Line, workspace: Workspace) -> dict[str, Any]:
    """Read what people decided; `open` says how many tasks they have left."""
    with at_desk(line, line.review, workspace, say=get_run_logger().warning) as desk:
        return desk.pull_and_count()


def settle(line: Line, workspace: Workspace) -> dict[str, Any]:
    """Let people settle what is ambiguous; call it in a flow, without the workspace's lock.

    With `review.wait: suspend`, a deployed run is suspended while the queue is open: it holds no worker, and
    `labelmill review pull` or the flow `labelmill-review` resumes it when the queue is done; it then starts
    again, finds everything computed, and comes here once more. A run of the command line waits here.

    Returns:
        The report of the last pull, or of the push where the line goes on with what is certain.
    """
    logger = get_run_logger()
    pushed = push_review(line, workspace)
    logger.info("%d questions for people at %s", pushed["queue"], pushed["project"])
    if line.review.wait == "continue":
        return {**pushed, "waited": False}
    report = pull_review(line, workspace)
    if report["open"]:
        logger.info("%d tasks open at %s", report["open"], report["project"])
        if runtime.deployment.id:
            _remember(workspace, str(runtime.flow_run.id))
            suspend_flow_run(key=f"review-{uuid4()}")  # its own key: the queue may be open again afterwards
        report = watch(
            line, line.review, workspace, every_s=line.review.poll_s, until_done=True, say=logger.warning
        )
    _note(workspace).unlink(missing_ok=True)
    return {**report, "waited": True}


def _note(workspace: Workspace) -> Path:
    return workspace.root / "review" / "suspended.json"


def _remember(workspace: Workspace, flow_run: str) -> None:
    write_bytes(_note(workspace), json.dumps({"flow_run": flow_run}).encode())


def suspended_run(workspace: Workspace) -> UUID | None:
    """The flow run that waits for this workspace's queue, or None."""
    try:
        return UUID(json.loads(_note(workspace).read_text())["flow_run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def resume(workspace: Workspace) -> bool:
    """Resume the flow run that waits for this workspace's queue, which is done.

    Returns:
        Whether one was waiting.
    """
    from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound

    waiting = suspended_run(workspace)
    if waiting is None:
        return False
    try:
        resume_flow_run(waiting)
    except (NotPausedError, FlowPauseTimeout, ObjectNotFound):
        return False  # resumed by hand, given up, or of a server that is gone
    finally:
        _note(workspace).unlink(missing_ok=True)
    return True


@flow(name="labelmill-review", flow_run_name="{line}", validate_parameters=False)
def pull(line: str, workspace: str | None = None) -> dict[str, Any]:
    """Pull a line's decisions, and resume the run that waits for them when the queue is done.

    Args:
        line: Path of the line file.
        workspace: Folder of the results; `workspace/<line's name>` without it.
    """
    config = load_line(Path(line))
    place = Workspace(Path(workspace) if workspace else Path("workspace") / config.name)
    report = pull_review(config, place)
    resumed = not report["open"] and resume(place)
    return {**report, "resumed": resumed}
