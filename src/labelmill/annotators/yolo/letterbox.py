"""Frames of any size, scaled whole into what the detector was trained on, and boxes taken back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Boxes, Image

STRIDE_PX = 32
_GREY = 114  # ultralytics pads with this value in training


class Placement(NamedTuple):
    """Where a frame lies in the network's input: `input = frame * scale + offset`.

    Attributes:
        scale_xy: Input pixels per frame pixel, each axis as rounded to whole pixels.
        offset_xy: Of the frame's corner, input pixels.
        frame_wh: Size of the frame, pixels.
    """

    scale_xy: tuple[float, float]
    offset_xy: tuple[int, int]
    frame_wh: tuple[int, int]


def letterbox(image: Image, image_px: int) -> tuple[Image, Placement]:
    """Scale a frame so that its longer side is `image_px`, and pad the shorter to a multiple of the stride.

    Args:
        image: RGB.
        image_px: Longer side of the input, a multiple of the stride.

    Returns:
        The input, and where the frame lies in it.
    """
    import cv2

    height, width = image.shape[:2]
    scale = image_px / max(height, width)
    inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
    if (inner_w, inner_h) != (width, height):
        image = cv2.resize(image, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
    outer_w, outer_h = (-(-side // STRIDE_PX) * STRIDE_PX for side in (inner_w, inner_h))
    left, top = (outer_w - inner_w) // 2, (outer_h - inner_h) // 2
    placement = Placement((inner_w / width, inner_h / height), (left, top), (width, height))
    if (outer_w, outer_h) == (inner_w, inner_h):
        return image, placement
    padded = np.full((outer_h, outer_w, 3), _GREY, np.uint8)
    padded[top : top + inner_h, left : left + inner_w] = image
    return padded, placement


def to_frame(xyxy: npt.NDArray[np.floating], placement: Placement) -> Boxes:
    """Take boxes from the input back to the frame.

    Args:
        xyxy: Corners in pixels of the input, shape (n, 4).
        placement: As `letterbox` gave it.

    Returns:
        Corners in pixels of the frame, clipped to it, shape (n, 4).
    """
    offset, scale, wh = (
        np.tile(pair, 2) for pair in (placement.offset_xy, placement.scale_xy, placement.frame_wh)
    )
    boxes: Boxes = np.clip((xyxy - offset) / scale, 0, wh).astype(np.float32)
    return boxes
