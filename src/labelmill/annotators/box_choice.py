"""Which of a detector's many candidate boxes are answers: thresholds, the frame's edge, and duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labelmill.annotators.detections import detections_class

if TYPE_CHECKING:
    import supervision as sv

    from labelmill.annotators.prompts import Prompt
    from labelmill.annotators.types import Boxes

_MIN_SIDE_PX = 1.0
"""A box thinner than a pixel has no crop."""


def choose(
    boxes_cxcywh: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    prompts: tuple[Prompt, ...],
    frame_wh: tuple[int, int],
    *,
    box_threshold: float,
    text_threshold: float,
    nms_iou: float | None,
) -> sv.Detections:
    """Turn candidate boxes with a score for each phrase into detections.

    As in the original, a box stays if its best phrase scores above `box_threshold`, and it answers to every
    phrase that scores above `text_threshold`. Where the original joins those phrases to one text, here each
    is a detection of its own, and class-agnostic non-maximum suppression leaves one box for an object.

    Args:
        boxes_cxcywh: Centre and size relative to the frame, shape (candidates, 4).
        scores: Probabilities, shape (candidates, len(prompts)).
        prompts: The phrases, in the order of the scores' columns.
        frame_wh: Size of the frame in pixels.
        box_threshold: For a box.
        text_threshold: For a phrase of a box.
        nms_iou: Intersection over union above which the lower-scored box goes; None: all stay.

    Returns:
        Highest score first; `data["phrase"]` holds classes, `data["text"]` the phrases that found them.
    """
    kept = scores.max(axis=1) > box_threshold
    row, column = np.nonzero(kept[:, None] & (scores > text_threshold))
    xyxy = to_xyxy(boxes_cxcywh[row], frame_wh)
    confidence = scores[row, column]
    solid = ((xyxy[:, 2:] - xyxy[:, :2]) >= _MIN_SIDE_PX).all(axis=1)
    order = np.flatnonzero(solid)[np.argsort(-confidence[solid], kind="stable")]
    if nms_iou is not None:
        order = order[suppress(xyxy[order], nms_iou)]
    found = [prompts[index] for index in column[order]]
    return detections_class()(
        xyxy=xyxy[order],
        confidence=confidence[order].astype(np.float32),
        data={
            "phrase": np.array([prompt.name for prompt in found], dtype=str),
            "text": np.array([prompt.phrase for prompt in found], dtype=str),
        },
    )


def to_xyxy(boxes_cxcywh: npt.NDArray[np.float32], frame_wh: tuple[int, int]) -> Boxes:
    """Convert relative centres and sizes to corners in pixels, cut at the frame's edge.

    Args:
        boxes_cxcywh: Shape (n, 4), relative to the frame.
        frame_wh: Size of the frame in pixels.
    """
    size = np.array(frame_wh, dtype=np.float32)
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:] / 2
    corners = np.concatenate([(centre - half) * size, (centre + half) * size], axis=1)
    xyxy: Boxes = np.clip(corners, 0, np.tile(size, 2)).astype(np.float32)
    return xyxy


def suppress(xyxy: Boxes, iou: float) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression over boxes of all classes.

    Args:
        xyxy: Shape (n, 4), highest score first.
        iou: Overlap above which a later box goes.

    Returns:
        Indices of the boxes that stay, in order.
    """
    area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    alive = np.ones(len(xyxy), dtype=bool)
    for index in range(len(xyxy)):
        if not alive[index]:
            continue
        later = slice(index + 1, None)
        low = np.maximum(xyxy[index, :2], xyxy[later, :2])
        high = np.minimum(xyxy[index, 2:], xyxy[later, 2:])
        overlap = np.clip(high - low, 0, None).prod(axis=1)
        alive[later] &= overlap <= iou * (area[index] + area[later] - overlap)
    return np.flatnonzero(alive)
