"""Killing Label Studio under a push or a pull, at a random moment."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from labelmill.annotators.review.server import LabelStudioServer

T = TypeVar("T")


def process_of(server: LabelStudioServer) -> int:
    """Number of the server's process."""
    number: int = json.loads((server.root / "process.json").read_text())["pid"]
    return number


def under_fire(
    server: LabelStudioServer, action: Callable[[], T], after_s: float, *, port: int | None = None
) -> tuple[T, bool]:
    """Do something while the server is killed and started again.

    Args:
        server: The server.
        action: What is done.
        after_s: When the server is killed, from the start of the action.
        port: Where it is started again; where it was without one.

    Returns:
        The action's result, and whether the server was killed before it ended.
    """
    pid = process_of(server)
    over = threading.Event()
    hit = threading.Event()

    def fire() -> None:
        if not over.wait(after_s):
            hit.set()
        os.kill(pid, signal.SIGKILL)
        while server.running():
            time.sleep(0.02)
        server.up(port=port)

    thread = threading.Thread(target=fire)
    thread.start()
    try:
        result = action()
    finally:
        over.set()
        thread.join()
    return result, hit.is_set()
