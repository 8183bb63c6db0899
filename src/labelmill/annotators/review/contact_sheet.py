"""The picture of a group: all its crops at once, the one that is asked about first and framed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CELL_PX = 112
COLUMNS = 5
_GAP_PX = 4
_PAPER, _INK, _ACCENT = (255, 255, 255), (120, 120, 120), (228, 87, 46)

Image = npt.NDArray[np.uint8]


def contact_sheet(crops: Sequence[Image]) -> Image:
    """Lay crops out in rows, each scaled into a square cell.

    Args:
        crops: RGB pictures, the asked one first.

    Returns:
        RGB, shape (height_px, width_px, 3), uint8.
    """
    import cv2

    columns = min(COLUMNS, math.isqrt(max(0, len(crops) - 1)) + 1)  # as square as can be: large on the page
    rows = -(-len(crops) // columns)
    step = CELL_PX + _GAP_PX
    sheet = np.full((rows * step + _GAP_PX, columns * step + _GAP_PX, 3), _PAPER, np.uint8)
    for number, crop in enumerate(crops):
        top, left = _GAP_PX + number // columns * step, _GAP_PX + number % columns * step
        scale = CELL_PX / max(crop.shape[:2])
        height, width = (max(1, round(side * scale)) for side in crop.shape[:2])
        small = cv2.resize(
            crop, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        )
        y, x = top + (CELL_PX - height) // 2, left + (CELL_PX - width) // 2
        sheet[y : y + height, x : x + width] = small
        colour = _ACCENT if number == 0 else _INK
        cv2.rectangle(
            sheet,
            (left - 2, top - 2),
            (left + CELL_PX + 1, top + CELL_PX + 1),
            colour,
            2 if number == 0 else 1,
        )
    return sheet


def notice(text: str) -> Image:
    """A small picture that says why there is no picture. ASCII only."""
    import cv2

    paper = np.full((CELL_PX, 3 * CELL_PX, 3), 245, np.uint8)
    cv2.putText(paper, text, (12, CELL_PX // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)
    return paper
