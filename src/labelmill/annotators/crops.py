"""From a box on a frame to a crop."""

from __future__ import annotations

import numpy as np

from labelmill.annotators.config import CropConfig
from labelmill.annotators.types import Boxes
from labelmill.images import Image


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
