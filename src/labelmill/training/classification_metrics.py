"""How good a classifier is, from labels and probabilities alone; NG is a column like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmill.datasets.tables import NG

Indices = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

CALIBRATION_BINS = 15


@dataclass(frozen=True, eq=False)
class ClassificationMetrics:
    """What a classifier got right on a split.

    Attributes:
        labels: Names of rows and columns; with NG, it is among them.
        confusion: Crops by true label (row) and given label (column), shape (labels, labels).
        calibration_error: Expected calibration error, 0 to 1; None where it was not measured.
        log_loss: Mean negative log probability of the true class; None likewise.
    """

    labels: tuple[str, ...]
    confusion: Indices
    calibration_error: float | None = None
    log_loss: float | None = None

    @property
    def count(self) -> int:
        """How many crops were measured."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of crops with the right label."""
        return _share(np.trace(self.confusion), self.confusion.sum())

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """Of each label's crops, the share that got it; NaN for a label without crops."""
        return _shares(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """Of the crops that got a label, the share that are right; NaN for a label never given."""
        return _shares(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def f1(self) -> npt.NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN); NaN for a label neither present nor given."""
        hits = np.diag(self.confusion)
        return _shares(2 * hits, self.confusion.sum(axis=0) + self.confusion.sum(axis=1))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the labels that have crops."""
        present = self.recall[~np.isnan(self.recall)]
        return float(present.mean()) if len(present) else float("nan")

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the labels that have crops."""
        present = self.f1[self.confusion.sum(axis=1) > 0]
        return float(present.mean()) if len(present) else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """JSON values; what is undefined is null."""
        rows = zip(self.labels, self.precision, self.recall, self.f1, self.confusion.sum(axis=1), strict=True)
        return {
            "count": self.count,
            "accuracy": _json(self.accuracy),
            "balanced_accuracy": _json(self.balanced_accuracy),
            "macro_f1": _json(self.macro_f1),
            "calibration_error": _json(self.calibration_error),
            "log_loss": _json(self.log_loss),
            **self._without_ng(),
            "classes": {
                name: {"precision": _json(p), "recall": _json(r), "f1": _json(f), "count": int(n)}
                for name, p, r, f, n in rows
            },
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
        }

    def _without_ng(self) -> dict[str, float | None]:
        """The paper's own two figures: how much was called NG, and how much of the rest is right."""
        if NG not in self.labels:
            return {}
        kept = [index for index, name in enumerate(self.labels) if name != NG]
        ng_share = 1 - _share(self.confusion[:, kept].sum(), self.confusion.sum())
        right = np.diag(self.confusion)[kept].sum()
        return {
            "ng_share": _json(ng_share),
            "accuracy_of_accepted": _json(_share(right, self.confusion[:, kept].sum())),
        }


def confusion_matrix(truth: Indices, given: Indices, size: int) -> Indices:
    """Count crops by true label (row) and given label (column)."""
    return np.bincount(truth * size + given, minlength=size * size).reshape(size, size)


def measure(
    labels: Sequence[str],
    truth: Sequence[str],
    given: Sequence[str],
    *,
    calibration_error: float | None = None,
    log_loss: float | None = None,
) -> ClassificationMetrics:
    """Compare given labels with true ones.

    Args:
        labels: Every label that may occur, in the order of the matrix.
        truth: Of each crop.
        given: Likewise.
        calibration_error: As measured apart.
        log_loss: Likewise.
    """
    index = {name: position for position, name in enumerate(labels)}
    matrix = confusion_matrix(
        np.array([index[name] for name in truth], np.int64),
        np.array([index[name] for name in given], np.int64),
        len(labels),
    )
    return ClassificationMetrics(tuple(labels), matrix, calibration_error, log_loss)


def expected_calibration_error(
    confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> float:
    """Mean distance of confidence from accuracy, over bins of equal width weighted by their crops.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.
    """
    if not len(confidence):
        return float("nan")
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    gap = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / count.sum())


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _shares(part: Indices, whole: Indices) -> npt.NDArray[np.float64]:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def _json(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 6)
