"""Batches of frames of one shape, answered in the order in which the frames came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Handle = TypeVar("Handle")
Answer = TypeVar("Answer")


class ShapeBatches(Generic[Item, Handle, Answer]):
    """Groups items by shape, so that no batch needs padding, which would change its results.

    Items of other shapes wait in their own bucket; once `window` items are unanswered, the bucket of the
    oldest one runs though it is not full. A batch is started before the one before it is collected, so that
    an accelerator computes while the caller works with earlier answers.

    Args:
        shape: What items of one batch must share.
        launch: Starts a batch; may return before it is computed.
        collect: Waits for a started batch; one answer an item.
        batch_size: Items in a batch.
        window: Items that may be unanswered; at least `batch_size`.
        overlap: Batches that may be started and not collected.
    """

    def __init__(
        self,
        *,
        shape: Callable[[Item], Hashable],
        launch: Callable[[Sequence[Item]], Handle],
        collect: Callable[[Sequence[Item], Handle], Sequence[Answer]],
        batch_size: int,
        window: int,
        overlap: int = 0,
    ) -> None:
        self._shape, self._launch, self._collect = shape, launch, collect
        self._batch_size, self._window, self._overlap = batch_size, max(window, batch_size), overlap
        self._buckets: dict[Hashable, list[tuple[int, Item]]] = {}
        self._flying: deque[tuple[list[tuple[int, Item]], Handle]] = deque()
        self._answers: dict[int, Answer] = {}
        self._next = 0

    def answer(self, items: Iterator[Item]) -> Iterator[Answer]:
        """Yield one answer for each item, in order."""
        number = -1
        for number, item in enumerate(items):
            shape = self._shape(item)
            bucket = self._buckets.setdefault(shape, [])
            bucket.append((number, item))
            if len(bucket) == self._batch_size:
                self._run(shape)
            while number - self._next + 1 >= self._window and not self._ready():
                self._press()
            yield from self._drain()
        while self._next <= number:
            if not self._ready():
                self._press()
            yield from self._drain()

    def _run(self, shape: Hashable) -> None:
        batch = self._buckets.pop(shape)
        self._flying.append((batch, self._launch([item for _, item in batch])))
        if len(self._flying) > self._overlap:
            self._land()

    def _land(self) -> None:
        batch, handle = self._flying.popleft()
        answers = self._collect([item for _, item in batch], handle)
        self._answers.update(zip((number for number, _ in batch), answers, strict=True))

    def _press(self) -> None:
        """Get the oldest unanswered item answered."""
        waiting = [shape for shape, bucket in self._buckets.items() if bucket[0][0] == self._next]
        if waiting:
            self._run(waiting[0])
        elif self._flying:
            self._land()

    def _ready(self) -> bool:
        return self._next in self._answers

    def _drain(self) -> Iterator[Answer]:
        while self._ready():
            yield self._answers.pop(self._next)
            self._next += 1
