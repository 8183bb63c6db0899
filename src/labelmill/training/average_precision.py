"""Average precision of a detector, as COCO defines it.

For each class and IoU threshold: detections of the whole split, best first, each takes the true box of its
frame that it overlaps most and that is still free; precision, made monotone, is averaged over 101 recalls.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the behaviour of its
reference evaluation for all areas and 100 detections a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Boxes
from labelmill.training.evaluation import iou

COCO_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
MOST_A_FRAME = 100
_RECALLS = np.linspace(0, 1, 101)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What a detector said of one frame.

    Attributes:
        xyxy: Corners in pixels, shape (n, 4).
        scores: Shape (n,).
        classes: Index of each box's class, shape (n,).
    """

    xyxy: Boxes
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Precision over recall of one class at one threshold.

    Attributes:
        average: Average precision; NaN for a class without true boxes.
        recall: After each detection, best first.
        precision: Likewise, as it is (not made monotone).
    """

    average: float
    recall: Floats
    precision: Floats


@dataclass(frozen=True, slots=True, eq=False)
class AveragePrecision:
    """Average precision of every class at every threshold.

    Attributes:
        classes: Names by index.
        thresholds: Of IoU.
        table: Shape (classes, thresholds); NaN for a class without true boxes.
        curves: At the first threshold, by class.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    table: Floats
    curves: tuple[Curve, ...]

    @property
    def at_50(self) -> float:
        """mAP50: the mean over classes at IoU 0.5."""
        return _mean(self.table[:, self.thresholds.index(0.5)])

    @property
    def at_50_95(self) -> float:
        """mAP50-95: the mean over classes and the ten thresholds of COCO."""
        return _mean(self.table[:, [self.thresholds.index(threshold) for threshold in COCO_THRESHOLDS]])


def average_precision(
    truth: Sequence[tuple[Boxes, npt.NDArray[np.int64]]],
    predicted: Sequence[Predicted],
    classes: Sequence[str],
    thresholds: Sequence[float] = COCO_THRESHOLDS,
) -> AveragePrecision:
    """Measure a detector on a split.

    Args:
        truth: True boxes and their classes, one pair a frame.
        predicted: One for each frame, in the same order.
        classes: Names by index.
        thresholds: Of IoU.

    Raises:
        ValueError: The two do not have the same number of frames.
    """
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} frames of truth, {len(predicted)} of predictions")
    rows = []
    curves = []
    for number in range(len(classes)):
        frames = [_of_class(number, *pair, found) for pair, found in zip(truth, predicted, strict=True)]
        measured = _class_curves(frames, thresholds)
        rows.append([curve.average for curve in measured])
        curves.append(measured[0])
    table = np.array(rows, np.float64).reshape(len(classes), len(thresholds))
    return AveragePrecision(tuple(classes), tuple(thresholds), table, tuple(curves))


_Frame = tuple[Floats, Floats, int]
"""Of one class: scores, best first; overlaps (detections, true boxes); number of true boxes."""


def _of_class(number: int, xyxy: Boxes, classes: npt.NDArray[np.int64], found: Predicted) -> _Frame:
    # The limit is a frame's and a class's, as in COCO's reference evaluation.
    chosen = np.flatnonzero(found.classes == number)
    chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")][:MOST_A_FRAME]
    true = xyxy[classes == number]
    return found.scores[chosen].astype(np.float64), iou(found.xyxy[chosen], true), len(true)


def _class_curves(frames: Sequence[_Frame], thresholds: Sequence[float]) -> list[Curve]:
    scores = np.concatenate([frame[0] for frame in frames]) if frames else np.empty(0)
    order = np.argsort(-scores, kind="stable")
    total = sum(frame[2] for frame in frames)
    curves = []
    for threshold in thresholds:
        hits = (
            np.concatenate([match(frame[1], threshold) >= 0 for frame in frames])
            if frames
            else np.empty(0, bool)
        )
        right = np.cumsum(hits[order])
        precision = right / np.arange(1, len(right) + 1)
        if not total:
            curves.append(Curve(float("nan"), np.empty(0), precision))
            continue
        recall = right / total
        monotone = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(recall, _RECALLS, side="left")
        sampled = np.where(
            reached < len(monotone), np.append(monotone, 0)[np.minimum(reached, len(monotone))], 0
        )
        curves.append(Curve(float(sampled.mean()), recall, precision))
    return curves


def match(overlaps: Floats, threshold: float) -> npt.NDArray[np.int64]:
    """Give each detection, best first, the free true box that it overlaps most.

    Args:
        overlaps: IoU, shape (detections, true boxes).
        threshold: Least IoU of a pair.

    Returns:
        Index of each detection's true box, -1 without one, shape (detections,).
    """
    free = np.ones(overlaps.shape[1], bool)
    taken = np.full(len(overlaps), -1, np.int64)
    for row, overlap in enumerate(overlaps):
        open_overlap = np.where(free, overlap, -1.0)
        if not open_overlap.size:
            break
        best = len(open_overlap) - 1 - int(np.argmax(open_overlap[::-1]))  # of equals the last, as COCO takes
        if open_overlap[best] >= min(threshold, 1 - 1e-10):
            free[best], taken[row] = False, best
    return taken


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
