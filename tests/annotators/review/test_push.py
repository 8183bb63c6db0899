"""What a push changes, said by comparing the queue as it should be with the queue as it is."""

from __future__ import annotations

from typing import Any

import pytest

from labelmill.annotators.review.client import RemoteTask
from labelmill.annotators.review.push import compare


def wanted(**regions: float) -> dict[str, dict[str, Any]]:
    return {
        region: {"data": {"region_id": region, "fingerprint": "f"}, "predictions": [{"score": score}]}
        for region, score in regions.items()
    }


def remote(number: int, region: str = "r", **changes: Any) -> RemoteTask:
    values: dict[str, Any] = {
        "annotations": 0, "skips": 0, "predictions": 1, "score": 0.5, "overlap": 1, "done": False,
    } | changes  # fmt: skip
    fingerprint = values.pop("fingerprint", "f")
    return RemoteTask(id=number, data={"region_id": region, "fingerprint": fingerprint}, **values)


WANTED = wanted(r=0.5)


@pytest.mark.parametrize(
    ("found", "want", "more", "change"),
    [
        ([], WANTED, {}, {"new": ["r"]}),
        ([], WANTED, {"decided": {"r"}}, {}),  # the project was deleted; it is not asked again
        ([remote(1)], WANTED, {}, {"kept": 1}),
        ([remote(1)], {}, {}, {"close": [1]}),  # withdrawn
        ([remote(1, done=True, overlap=0)], {}, {}, {"kept": 1}),
        ([remote(1, done=True, overlap=0)], WANTED, {}, {"open": {1: 2}}),  # it is back
        ([remote(1, fingerprint="g")], WANTED, {}, {"data": [1], "predictions": [1]}),
        ([remote(1, score=0.9)], WANTED, {}, {"predictions": [1]}),
        ([remote(1, score=0.5004)], WANTED, {}, {"kept": 1}),
        ([remote(1, predictions=0, score=None)], WANTED, {}, {"predictions": [1]}),  # killed in between
        ([remote(1, annotations=1, done=True)], {}, {"decided": {"r"}}, {"kept": 1}),
        ([remote(1, annotations=1, fingerprint="g")], WANTED, {}, {"kept": 1}),  # answered: never changed
        ([remote(1, annotations=2, done=True)], WANTED, {"disputed": {"r"}}, {"open": {1: 3}}),
        ([remote(1, annotations=2)], WANTED, {"disputed": {"r"}}, {"kept": 1}),  # open already
        ([remote(1, annotations=1)], {}, {}, {"close": [1]}),  # withdrawn half-way
        ([remote(1, annotations=1)], {}, {"decided": {"r"}}, {"kept": 1}),  # waits for its second answer
        ([remote(1), remote(2)], WANTED, {}, {"remove": [2], "kept": 1}),
        ([remote(1), remote(2, annotations=1)], WANTED, {}, {"remove": [1], "kept": 1}),
        ([remote(1, annotations=1), remote(2, skips=1)], WANTED, {}, {"kept": 1}),
        ([RemoteTask(9, {"text": "by hand"}, 0, 0, 0, None, 1, False)], WANTED, {}, {"new": ["r"]}),
    ],
)
def test_compare(
    found: list[RemoteTask], want: dict[str, Any], more: dict[str, Any], change: dict[str, Any]
) -> None:
    changes = compare(want, found, overlap=2, **more)
    seen = {
        "new": [task["data"]["region_id"] for task in changes.new],
        "data": list(changes.data),
        "predictions": list(changes.predictions),
        "open": changes.open,
        "close": changes.close,
        "remove": changes.remove,
        "kept": changes.kept,
    }
    assert {name: value for name, value in seen.items() if value} == change


def test_new_tasks_follow_the_queue() -> None:
    changes = compare(wanted(c=0.1, a=0.2, b=0.3), [], overlap=1)
    assert [task["data"]["region_id"] for task in changes.new] == ["c", "a", "b"]
