from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.annotators.shape_batches import ShapeBatches


class Journal:
    def __init__(self, *, batch_size: int, window: int, overlap: int = 0) -> None:
        self.batches: list[list[tuple[str, int]]] = []
        self.read = self.answered = self.furthest = 0
        self.flying = self.most_flying = 0
        self.machine: ShapeBatches[tuple[str, int], int, str] = ShapeBatches(
            shape=lambda item: item[0],
            launch=self.launch,
            collect=self.collect,
            batch_size=batch_size,
            window=window,
            overlap=overlap,
        )

    def launch(self, items: Sequence[tuple[str, int]]) -> int:
        self.batches.append(list(items))
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        return len(self.batches) - 1

    def collect(self, items: Sequence[tuple[str, int]], handle: int) -> list[str]:
        assert self.batches[handle] == list(items)
        self.flying -= 1
        return [f"{shape}{number}" for shape, number in items]

    def run(self, shapes: str) -> list[str]:
        def feed() -> Iterator[tuple[str, int]]:
            for number, shape in enumerate(shapes):
                self.read += 1
                self.furthest = max(self.furthest, self.read - self.answered)
                yield shape, number

        out = []
        for answer in self.machine.answer(feed()):
            self.answered += 1
            out.append(answer)
        return out


@pytest.mark.parametrize(
    ("shapes", "batches"),
    [
        ("aaaa", ["aa", "aa"]),
        ("aaa", ["aa", "a"]),
        ("abab", ["aa", "bb"]),
        ("abbb", ["bb", "a", "b"]),
        ("", []),
    ],
)
def test_batches_hold_one_shape(shapes: str, batches: list[str]) -> None:
    journal = Journal(batch_size=2, window=8)
    assert journal.run(shapes) == [f"{shape}{number}" for number, shape in enumerate(shapes)]
    assert ["".join(shape for shape, _ in batch) for batch in journal.batches] == batches


def test_a_lone_shape_does_not_hold_up_the_others_for_ever() -> None:
    journal = Journal(batch_size=2, window=4)
    journal.run("a" + "b" * 20)
    assert journal.furthest <= 4
    assert journal.batches[:3] == [[("b", 1), ("b", 2)], [("a", 0)], [("b", 3), ("b", 4)]]


def test_one_batch_is_started_before_the_last_is_collected() -> None:
    journal = Journal(batch_size=2, window=8, overlap=1)
    assert journal.run("aaaaaa") == [f"a{number}" for number in range(6)]
    assert journal.most_flying == 2


@given(
    shapes=st.text("abc", max_size=60),
    batch_size=st.integers(1, 5),
    window=st.integers(1, 12),
    overlap=st.integers(0, 2),
)
def test_every_item_is_answered_in_order(shapes: str, batch_size: int, window: int, overlap: int) -> None:
    journal = Journal(batch_size=batch_size, window=window, overlap=overlap)
    assert journal.run(shapes) == [f"{shape}{number}" for number, shape in enumerate(shapes)]
    assert journal.furthest <= max(window, batch_size)
    assert all(1 <= len(batch) <= batch_size for batch in journal.batches)
    assert all(len({shape for shape, _ in batch}) == 1 for batch in journal.batches)
