"""A model's pictures: confusion, calibration, history, precision over recall. Drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from labelmill.files import write_bytes
from labelmill.training.classification_metrics import CALIBRATION_BINS, ClassificationMetrics

_DPI = 120
_NUMBERED = 25  # classes up to which a confusion matrix can hold readable numbers


def confusion(path: Path, metrics: ClassificationMetrics, title: str) -> None:
    """Draw a confusion matrix, each row as shares of its true label, with counts."""
    size = len(metrics.labels)
    figure, axes = _figure(max(4.0, 0.45 * size + 2.5), max(3.5, 0.45 * size + 2))
    totals = metrics.confusion.sum(axis=1, keepdims=True)
    shares = np.divide(metrics.confusion, totals, out=np.zeros((size, size)), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), metrics.labels, rotation=90)
    axes.set_yticks(range(size), metrics.labels)
    axes.set_xlabel("given")
    axes.set_ylabel("true")
    axes.set_title(title)
    if size <= _NUMBERED:
        for row, column in np.argwhere(metrics.confusion):
            dark = shares[row, column] > 0.5
            text = str(metrics.confusion[row, column])
            axes.text(
                column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black"
            )
    _save(figure, path)


def reliability(
    path: Path, confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], title: str
) -> None:
    """Draw accuracy over confidence, with how many crops each bin holds."""
    figure, axes = _figure(4.5, 4.0)
    which = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    count = np.bincount(which, minlength=CALIBRATION_BINS)
    filled = count > 0
    accuracy = np.bincount(which, weights=right, minlength=CALIBRATION_BINS)[filled] / count[filled]
    middle = (np.flatnonzero(filled) + 0.5) / CALIBRATION_BINS
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.bar(middle, accuracy, width=0.9 / CALIBRATION_BINS, color="tab:blue", alpha=0.7)
    for x, y, n in zip(middle, accuracy, count[filled], strict=True):
        axes.text(x, y, str(n), ha="center", va="bottom", fontsize=6)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("calibrated score")
    axes.set_ylabel("accuracy")
    axes.set_title(title)
    _save(figure, path)


def history(path: Path, curves: Mapping[str, Sequence[float]], title: str) -> None:
    """Draw one small curve over the epochs for each figure."""
    figure, _ = _figure(3.2 * len(curves), 3.0, columns=len(curves))
    for axes, (name, values) in zip(figure.axes, curves.items(), strict=True):
        axes.plot(range(1, len(values) + 1), values, marker=".", color="tab:blue")
        axes.set_xlabel("epoch")
        axes.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def precision_recall(
    path: Path, curves: Mapping[str, tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]], title: str
) -> None:
    """Draw precision over recall, one line a class.

    Args:
        path: The picture.
        curves: Recall and precision by class.
        title: Above it.
    """
    figure, axes = _figure(5.0, 4.0)
    for name, (recall, precision) in curves.items():
        axes.plot(recall, precision, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(title)
    if curves:
        axes.legend(fontsize=7)
    _save(figure, path)


def _figure(width_in: float, height_in: float, columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
