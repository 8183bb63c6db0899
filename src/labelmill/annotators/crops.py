"""Crops of any size, made into one array of a fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Image

Fit = Literal["squash", "pad"]
"""How a crop meets a square: stretched to fill it, or scaled whole and padded with grey."""

_GREY = 127


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
