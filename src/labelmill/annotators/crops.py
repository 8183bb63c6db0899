"""From boxes on a frame to crops, and from crops of any size to one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmill.annotators.config import CropConfig
from labelmill.annotators.types import Boxes, Image

Fit = Literal["squash", "pad"]
"""How a crop meets a square: stretched to fill it, or scaled whole and padded with grey."""

_GREY = 127


def cut(image: Image, xyxy: Boxes, config: CropConfig) -> list[Image]:
    """Cut boxes out of a frame.

    Args:
        image: The frame, RGB.
        xyxy: Boxes in pixels of the frame, shape (n, 4).
        config: Margin and shape.

    Returns:
        One crop a box, at least 1 x 1 pixel, inside the frame; views of `image` where possible.
    """
    height, width = image.shape[:2]
    crops = []
    for x1, y1, x2, y2 in np.asarray(xyxy, dtype=np.float64):
        box_width, box_height = x2 - x1, y2 - y1
        grow_x, grow_y = box_width * config.margin, box_height * config.margin
        if config.square:
            side = max(box_width + 2 * grow_x, box_height + 2 * grow_y)
            grow_x, grow_y = (side - box_width) / 2, (side - box_height) / 2
        left = int(np.clip(np.floor(x1 - grow_x), 0, width - 1))
        top = int(np.clip(np.floor(y1 - grow_y), 0, height - 1))
        right = int(np.clip(np.ceil(x2 + grow_x), left + 1, width))
        bottom = int(np.clip(np.ceil(y2 + grow_y), top + 1, height))
        crops.append(image[top:bottom, left:right])
    return crops


def stack_crops(crops: Sequence[Image], size_px: int, fit: Fit = "squash") -> npt.NDArray[np.uint8]:
    """Scale crops to squares.

    Shrinking averages over the pixels' area (no aliasing) and enlarging is bicubic, each axis by its own
    rule, so that a thin tall crop is treated as well as a square one.

    Args:
        crops: RGB, each (height_px, width_px, 3) uint8, at least one pixel.
        size_px: Side of the squares.
        fit: "squash" changes the aspect ratio, "pad" keeps it and fills up with grey.

    Returns:
        Shape (len(crops), size_px, size_px, 3).

    Raises:
        ValueError: A crop is not an RGB uint8 picture with pixels.
    """
    stack = np.empty((len(crops), size_px, size_px, 3), np.uint8)
    for row, crop in zip(stack, crops, strict=True):
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or crop.size == 0:
            raise ValueError(f"crop must be (height, width, 3) uint8, got {crop.shape} {crop.dtype}")
        if fit == "squash":
            row[:] = _scale(crop, size_px, size_px)
            continue
        height, width = crop.shape[:2]
        scale = size_px / max(height, width)
        inner_h, inner_w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size_px - inner_h) // 2, (size_px - inner_w) // 2
        row[:] = _GREY
        row[top : top + inner_h, left : left + inner_w] = _scale(crop, inner_w, inner_h)
    return stack


def _scale(image: Image, width_px: int, height_px: int) -> Image:
    import cv2

    small_wh = min(width_px, image.shape[1]), min(height_px, image.shape[0])
    if small_wh != (image.shape[1], image.shape[0]):
        image = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
    if small_wh != (width_px, height_px):
        image = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    return image
