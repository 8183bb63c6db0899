"""A detector's raw output, made into boxes: threshold and non-maximum suppression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Boxes

_CANDIDATES = 4096  # more than this many boxes above a low threshold are noise, and suppression is quadratic


class Decoded(NamedTuple):
    """Boxes of one frame, best first.

    Attributes:
        xyxy: Corners in pixels of the network's input, shape (n, 4).
        scores: 0 to 1, shape (n,).
        classes: Shape (n,).
    """

    xyxy: Boxes
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


def decode(raw: npt.NDArray[np.float32], threshold: float, iou_threshold: float, limit: int = 300) -> Decoded:
    """Choose the boxes of one frame.

    Args:
        raw: Centre x, centre y, width, height, then a score for each class: shape (4 + classes, anchors).
        threshold: Lowest score of a box.
        iou_threshold: Of two boxes of one class that overlap more, the better one stays.
        limit: Most boxes.
    """
    per_class = raw[4:]
    scores = per_class.max(axis=0)
    above = np.flatnonzero(scores >= threshold)
    order = above[np.argsort(-scores[above], kind="stable")][:_CANDIDATES]
    centre, half = raw[:2, order].T, raw[2:4, order].T / 2
    xyxy = np.concatenate([centre - half, centre + half], axis=1)
    classes = per_class[:, order].argmax(axis=0)
    kept = suppress(xyxy, classes, iou_threshold, limit)
    return Decoded(xyxy[kept].astype(np.float32), scores[order][kept].astype(np.float32), classes[kept])


def suppress(
    xyxy: npt.NDArray[np.floating], classes: npt.NDArray[np.int64], iou_threshold: float, limit: int
) -> npt.NDArray[np.int64]:
    """Indices of the boxes that stay, for boxes sorted best first; each class by itself."""
    areas = np.prod((xyxy[:, 2:] - xyxy[:, :2]).clip(0), axis=1)
    waiting = np.arange(len(xyxy))
    kept: list[int] = []
    while len(waiting) and len(kept) < limit:
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        low = np.maximum(xyxy[best, :2], xyxy[waiting, :2])
        high = np.minimum(xyxy[best, 2:], xyxy[waiting, 2:])
        shared = np.prod((high - low).clip(0), axis=1)
        union = areas[best] + areas[waiting] - shared
        same = classes[waiting] == classes[best]
        waiting = waiting[~(same & (shared > iou_threshold * union))]
    return np.array(kept, np.int64)
