"""Reading ahead on another thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")

DEPTH = 8
"""Items read ahead: enough to smooth over uneven decoding, few enough to bound memory."""


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterator[T], depth: int = DEPTH) -> Iterator[T]:
    """Run an iterator on a thread of its own, at most `depth` items ahead, in order.

    An error in the iterator is raised here, after the items before it. When the consumer stops early, so
    does the thread.
    """
    handover: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: T | _End) -> bool:
        while not stopped.is_set():
            try:
                handover.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as caught:  # handed over, and raised by the consumer
            error = caught
        put(_End(error))

    thread = threading.Thread(target=work, name="labelmill-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = handover.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        thread.join()
