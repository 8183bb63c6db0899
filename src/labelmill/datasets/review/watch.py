"""Pulling as people work: on a webhook, and at intervals whether or not one comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from labelmill.annotators.review.config import ReviewConfig
from labelmill.annotators.review.webhook import Receiver, receive
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.review.desk import Desk, at_desk
from labelmill.datasets.workspace import Workspace
from labelmill.errors import WorkspaceLockedError

_GATHER_S = 0.3
"""Answers come in bursts: so long after the first, one pull takes them all."""


def watch(
    config: AnnotationConfig,
    review: ReviewConfig,
    workspace: Workspace,
    *,
    every_s: float,
    listen: int | None = None,
    until_done: bool = False,
    pulled: Callable[[dict[str, Any]], bool] = lambda report: True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Pull again and again.

    The workspace is locked only while pulling; a pull that finds it in use is left out.

    Args:
        config: The line.
        review: Its `review` section.
        workspace: Where `annotate` worked.
        every_s: At least so often.
        listen: Port of a webhook receiver on 127.0.0.1 (0: a free one); None polls only.
        until_done: Stop when no task is open.
        pulled: Called with each report; False stops.
        say: Called with a line for people.

    Returns:
        The last report.

    Raises:
        ReviewError: The server refuses, or does not answer within patience.
    """
    with receive(port=listen) if listen is not None else nullcontext() as receiver:
        desk = Desk(config, review, workspace, say=say)
        try:
            if receiver is not None:
                desk.listen(receiver.url, receiver.header)
            return _loop(config, review, workspace, every_s, receiver, until_done, pulled, say)
        finally:
            if receiver is not None:
                desk.unlisten(receiver.url)
            desk.close()


def _loop(
    config: AnnotationConfig,
    review: ReviewConfig,
    workspace: Workspace,
    every_s: float,
    receiver: Receiver | None,
    until_done: bool,
    pulled: Callable[[dict[str, Any]], bool],
    say: Callable[[str], None],
) -> dict[str, Any]:
    report: dict[str, Any] = {}
    while True:
        try:
            with at_desk(config, review, workspace, say=say) as desk:
                report = desk.pull_and_count() if until_done else desk.pull()
        except WorkspaceLockedError as error:
            say(f"{error}: pulling later")
        else:
            if not pulled(report) or (until_done and not report["open"]):
                return report
        if receiver is None:
            time.sleep(every_s)
        elif receiver.woken.wait(every_s):
            time.sleep(_GATHER_S)
            receiver.woken.clear()
