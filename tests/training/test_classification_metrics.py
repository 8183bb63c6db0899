"""Figures by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labelmill.training.classification_metrics import expected_calibration_error, measure


def test_by_hand() -> None:
    """Ten crops: a is right 3 of 4, b 2 of 3, NG 2 of 3."""
    truth = ["a"] * 4 + ["b"] * 3 + ["NG"] * 3
    given = ["a", "a", "a", "NG", "b", "b", "a", "NG", "NG", "b"]
    metrics = measure(["a", "b", "NG"], truth, given)
    assert metrics.confusion.tolist() == [[3, 0, 1], [1, 2, 0], [0, 1, 2]]
    assert metrics.accuracy == 0.7
    assert metrics.recall.tolist() == [3 / 4, 2 / 3, 2 / 3]
    assert metrics.precision.tolist() == [3 / 4, 2 / 3, 2 / 3]
    assert metrics.balanced_accuracy == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    figures = metrics.as_dict()
    assert figures["ng_share"] == 0.3
    assert figures["accuracy_of_accepted"] == round(5 / 7, 6)
    assert figures["classes"]["a"] == {"precision": 0.75, "recall": 0.75, "f1": 0.75, "count": 4}


def test_what_is_undefined_is_null_and_leaves_the_means_alone() -> None:
    metrics = measure(["a", "b", "c"], ["a", "a"], ["a", "b"])
    figures = metrics.as_dict()
    assert figures["classes"]["b"] == {"precision": 0.0, "recall": None, "f1": 0.0, "count": 0}
    assert figures["classes"]["c"] == {"precision": None, "recall": None, "f1": None, "count": 0}
    assert metrics.balanced_accuracy == 0.5
    assert metrics.macro_f1 == pytest.approx(2 / 3)
    assert "ng_share" not in figures


def test_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import classification_report

    random = np.random.default_rng(0)
    names = ["a", "b", "c"]
    truth, given = ([names[i] for i in random.integers(0, 3, 200)] for _ in range(2))
    metrics = measure(names, truth, given)
    report = classification_report(truth, given, output_dict=True)
    for row, name in enumerate(names):
        assert metrics.precision[row] == pytest.approx(report[name]["precision"])
        assert metrics.recall[row] == pytest.approx(report[name]["recall"])
        assert metrics.f1[row] == pytest.approx(report[name]["f1-score"])
    assert metrics.macro_f1 == pytest.approx(report["macro avg"]["f1-score"])


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [True, False], 0.5),
        ([0.5, 0.5, 0.9, 0.9], [True, False, True, True], (0 * 2 + 0.1 * 2) / 4),
    ],
)
def test_calibration_error_by_hand(confidence: list[float], right: list[bool], error: float) -> None:
    assert expected_calibration_error(np.array(confidence), np.array(right)) == pytest.approx(error)


def test_calibration_error_of_nothing_is_undefined() -> None:
    assert math.isnan(expected_calibration_error(np.empty(0), np.empty(0, bool)))
