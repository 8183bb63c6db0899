from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from labelmill.datasets.prefetch import prefetch


def alive() -> int:
    return sum(thread.name == "labelmill-prefetch" for thread in threading.enumerate())


def test_items_come_in_order_from_another_thread() -> None:
    seen = set()

    def items() -> Iterator[int]:
        for number in range(100):
            seen.add(threading.current_thread().name)
            yield number

    assert list(prefetch(items(), depth=3)) == list(range(100))
    assert seen == {"labelmill-prefetch"}
    assert alive() == 0


def test_nothing_is_nothing() -> None:
    assert list(prefetch(iter([]))) == []


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("no third")

    stream = prefetch(items())
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(KeyError, match="no third"):
        next(stream)
    assert alive() == 0


def test_it_reads_no_further_ahead_than_it_may() -> None:
    made = [0]

    def items() -> Iterator[int]:
        for number in range(1000):
            made[0] = number + 1
            yield number

    stream = prefetch(items(), depth=4)
    assert next(stream) == 0
    time.sleep(0.3)
    assert made[0] <= 1 + 4 + 1  # taken, waiting, and one in hand
    stream.close()  # type: ignore[attr-defined]


def test_the_thread_stops_with_its_consumer() -> None:
    def items() -> Iterator[int]:
        while True:
            yield 0

    stream = prefetch(items(), depth=2)
    next(stream)
    assert alive() == 1
    stream.close()  # type: ignore[attr-defined]
    assert alive() == 0
