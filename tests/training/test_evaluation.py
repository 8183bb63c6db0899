from __future__ import annotations

import math

import numpy as np
import pytest

from labelmill.training.evaluation import (
    BoxSet,
    Pairing,
    Tally,
    confusion,
    evaluate,
    iou,
    pair,
)

NO_BOXES = BoxSet.of([])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),
        ([0, 0, 10, 10], [5, 5, 15, 15], 25 / 175),
        ([0, 0, 10, 10], [2, 2, 4, 4], 0.04),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # they touch
        ([0, 0, 10, 10], [30, 30, 40, 40], 0.0),
        ([5, 5, 5, 5], [5, 5, 5, 5], 0.0),  # empty
        ([9, 9, 0, 0], [0, 0, 10, 10], 0.0),  # inside out
    ],
)
def test_iou(first: list[float], second: list[float], expected: float) -> None:
    one, two = BoxSet.of([first]).xyxy, BoxSet.of([second]).xyxy
    assert iou(one, two) == pytest.approx(expected)
    assert iou(two, one) == pytest.approx(expected)


def test_iou_of_nothing_has_the_shape_of_nothing() -> None:
    assert iou(NO_BOXES.xyxy, BoxSet.of([[0, 0, 1, 1]]).xyxy).shape == (0, 1)


A = [0, 0, 10, 10]
B = [100, 0, 110, 10]
A_LOW = [0, 0, 10, 4]  # IoU 0.4 with A
BETWEEN = [[0, 0, 10, 10], [4, 0, 14, 10]]  # the first overlaps both true boxes below, the second one only
BETWEEN_TRUE = [[2, 0, 12, 10], [-4, 0, 6, 10]]


@pytest.mark.parametrize(
    ("predicted", "true", "threshold", "expected"),
    [
        ([], [], 0.5, []),
        ([A], [], 0.5, []),
        ([], [A], 0.5, []),
        ([A, B], [B, A], 0.5, [(0, 1), (1, 0)]),
        ([A_LOW], [A], 0.4, [(0, 0)]),  # the threshold itself counts
        ([A_LOW], [A], 0.41, []),
        ([A, A], [A], 0.5, [(0, 0)]),  # one truth, one pair
        # The first predicted box likes the first true box best (0.67), which the second also needs.
        (BETWEEN, BETWEEN_TRUE, 0.4, [(0, 1), (1, 0)]),
    ],
)
def test_pairs(
    predicted: list[list[float]], true: list[list[float]], threshold: float, expected: list[tuple[int, int]]
) -> None:
    assert pair(BoxSet.of(predicted), BoxSet.of(true), threshold) == expected


def test_pairing_by_score_lets_the_surest_choose() -> None:
    sure_first = BoxSet(BoxSet.of(BETWEEN).xyxy, scores=np.array([0.9, 0.5], np.float32))
    sure_second = BoxSet(BoxSet.of(BETWEEN).xyxy, scores=np.array([0.5, 0.9], np.float32))
    true = BoxSet.of(BETWEEN_TRUE)
    assert pair(sure_first, true, 0.4, "score") == [(0, 0)]
    assert pair(sure_second, true, 0.4, "score") == [(0, 1), (1, 0)]
    assert pair(BoxSet(NO_BOXES.xyxy, scores=np.empty(0, np.float32)), true, 0.4, "score") == []
    assert pair(sure_first, NO_BOXES, 0.4, "score") == []


def test_pairing_by_score_needs_scores() -> None:
    with pytest.raises(ValueError, match="needs scores"):
        pair(BoxSet.of([A]), BoxSet.of([A]), 0.5, "score")


@pytest.mark.parametrize(
    ("tally", "recall", "precision", "f1"),
    [
        (Tally(3, 1, 2), 0.6, 0.75, 2 / 3),
        (Tally(0, 1, 2), 0.0, 0.0, 0.0),
        (Tally(0, 0, 2), 0.0, math.nan, 0.0),
        (Tally(0, 2, 0), math.nan, 0.0, 0.0),
        (Tally(), math.nan, math.nan, math.nan),
    ],
)
def test_shares(tally: Tally, recall: float, precision: float, f1: float) -> None:
    assert (tally.recall, tally.precision, tally.f1) == pytest.approx((recall, precision, f1), nan_ok=True)


@pytest.mark.parametrize("pairing", ["most", "score"])
def test_evaluate_overall_and_per_class(pairing: Pairing) -> None:
    true = [BoxSet.of([A, B], ["hand", "tool"]), NO_BOXES, BoxSet.of([A], ["hand"])]
    found = [BoxSet.of([A, B], ["hand", "hand"]), BoxSet.of([A], ["tool"]), NO_BOXES]
    scored = [BoxSet(boxes.xyxy, boxes.labels, np.ones(len(boxes), np.float32)) for boxes in found]
    result = evaluate(scored, true, 0.5, pairing)
    assert result.boxes == Tally(2, 1, 1)
    assert result.classes == {"hand": Tally(1, 1, 1), "tool": Tally(0, 1, 1)}


def test_evaluate_without_labels_has_no_classes() -> None:
    result = evaluate([BoxSet.of([A])], [BoxSet.of([A])])
    assert (result.boxes, result.classes) == (Tally(1, 0, 0), {})


def test_evaluate_wants_the_same_pictures() -> None:
    with pytest.raises(ValueError, match="shorter"):
        evaluate([NO_BOXES], [])


def test_confusion() -> None:
    counts = confusion(["a", "a", "NG", "NG"], ["a", "NG", "NG", "NG"], ["a", "b", "NG"])
    assert counts.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 2]]


def test_confusion_knows_its_labels() -> None:
    with pytest.raises(ValueError, match=r"\['c'\] are not among \['a'\]"):
        confusion(["a"], ["c"], ["a"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoxSet(np.zeros((2, 3), np.float32)), r"shape \(n, 4\), got \(2, 3\)"),
        (lambda: BoxSet.of([A, B], ["hand"]), "2 boxes need as many labels, got 1"),
        (lambda: BoxSet(BoxSet.of([A]).xyxy, (), np.zeros(2, np.float32)), "1 boxes need as many scores"),
    ],
)
def test_box_sets_are_whole(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
