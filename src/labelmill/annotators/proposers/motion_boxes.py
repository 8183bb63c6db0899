"""What of a frame differs from its background: shadows, noise and light apart, boxed.

Sources: brightness and colour distortion of shadows: Horprasert, Harwood, Davis, "A statistical approach
for real-time robust background subtraction and shadow detection", 1999. Skin colours: Kolkur et al., "Human
skin detection using RGB, HSV and YCbCr color models", 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Boxes
from labelmill.images import Image

if TYPE_CHECKING:
    from labelmill.annotators.proposers.motion import MotionConfig

Mask = npt.NDArray[np.uint8]
"""0 or 255 for each pixel of a working picture, shape (height, width)."""


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What a frame is compared with; each picture RGB, shape (height, width, 3), uint8.

    Attributes:
        middle: Median of the frames before and after.
        rests: Lower and upper quartile of stretches that the frame lies in: what agrees with both rests.
    """

    middle: Image
    rests: tuple[tuple[Image, Image], ...]


def boxes_of(
    image: Image, background: Background, config: MotionConfig
) -> tuple[Boxes, npt.NDArray[np.float32]]:
    """Find the moving boxes of one working picture.

    Returns:
        Boxes in pixels of the working picture, shape (n, 4), and their scores, shape (n,).
    """
    image = level_light(image, background.middle)
    gap = difference(image, background.middle)
    contrast = min(max(config.contrast, 3 * noise_of(image, background.middle)), 255.0)
    _, mask = cv2.threshold(gap, contrast, 255, cv2.THRESH_BINARY)
    if config.shadows == "drop":
        drop_shadows(mask, image, background.middle, contrast)
    for low, high in background.rests:
        mask = cv2.bitwise_and(mask, cv2.bitwise_not(_resting(image, low, high, contrast)))
    moving = cv2.countNonZero(mask)
    if not config.min_area * mask.size <= moving <= config.max_changed * mask.size:
        return np.empty((0, 4), np.float32), np.empty(0, np.float32)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    areas = areas_of(np.asarray(mask, np.uint8), config)
    if config.skin != "ignore":
        whole = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        skin = cv2.bitwise_and(skin_mask(image), whole)
        skin = cv2.morphologyEx(skin, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        bare = areas_of(np.asarray(skin, np.uint8), config)
        areas = bare if bare or config.skin == "require" else areas
    boxes = np.array([(*area.low, *area.high) for area in areas], np.float32).reshape(-1, 4)
    scores = np.array([gap[area.inside].mean() for area in areas], np.float32)
    return boxes, (1 - np.exp(-scores / 64)).astype(np.float32)


def level_light(image: Image, background: Image) -> Image:
    """Undo what exposure and white balance changed: a factor a channel, fitted to the whole picture."""
    now, then = (picture[::8, ::8].astype(np.float32) + 1.0 for picture in (image, background))
    ratios = (then / now).reshape(-1, 3)
    gain = np.clip(np.partition(ratios, len(ratios) // 2, axis=0)[len(ratios) // 2], 0.5, 2.0)
    if np.abs(gain - 1.0).max() < 0.01:
        return image
    grey = np.arange(256, dtype=np.float32)[:, None]
    table = np.clip(np.rint(grey * gain), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def difference(image: Image, background: Image) -> Mask:
    """Say by how many grey levels each pixel differs, in its most different channel.

    Returns:
        Shape (height, width), uint8.
    """
    red, green, blue = cv2.split(cv2.absdiff(image, background))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def noise_of(image: Image, background: Image) -> float:
    """Estimate the standard deviation of the noise, in grey levels.

    From neighbours in the difference of the two pictures, so that neither texture nor broad shadows count;
    the median, so that moving things do not. A median absolute deviation is 0.6745 standard deviations.
    """
    green = image[::4, :, 1].astype(np.int16) - background[::4, :, 1]
    if green.shape[1] < 2:
        return 0.0
    return float(np.median(np.abs(np.diff(green, axis=1)))) / (0.6745 * 2**0.5)


def drop_shadows(mask: Mask, image: Image, background: Image, contrast: float) -> None:
    """Unmark, in place, what is darker or a little brighter than the background, but of the same colour.

    Horprasert et al.: brightness distortion is the best-fitting factor, colour distortion what is left.
    """
    at = np.nonzero(mask)
    now = image[at].astype(np.float32)
    then = background[at].astype(np.float32)
    factor = (now * then).sum(axis=1) / ((then * then).sum(axis=1) + 1.0)
    colour = np.abs(now - factor[:, None] * then).max(axis=1)
    shaded = (factor > 0.4) & (factor < 1.25) & (colour < contrast / 2)
    mask[at[0][shaded], at[1][shaded]] = 0


def _resting(image: Image, low: Image, high: Image, contrast: float) -> Mask:
    """Mark pixels that, with their neighbours, agree with both quartiles of a stretch of time.

    The neighbours matter: the flat inside of a hand looks at rest while its edges tremble.
    """
    least = cv2.subtract(high, np.full_like(high, round(contrast)))
    most = cv2.add(low, np.full_like(low, round(contrast)))
    return np.asarray(cv2.erode(cv2.inRange(image, least, most), np.ones((3, 3), np.uint8)), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """Marked pixels that belong together.

    Attributes:
        low: Left and top, inclusive.
        high: Right and bottom, exclusive.
        inside: Row and column indices of the pixels.
    """

    low: tuple[int, int]
    high: tuple[int, int]
    inside: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


def areas_of(mask: Mask, config: MotionConfig) -> list[Area]:
    """Gather the marked pixels into areas: pieces nearer than the merge distance are one.

    The order is that of the first pixel, from the top left.
    """
    half = round(config.merge_distance * max(mask.shape) / 2)
    near = cv2.dilate(mask, np.ones((2 * half + 1, 2 * half + 1), np.uint8)) if half else mask
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    sizes = np.bincount(labels[mask > 0], minlength=count)
    fitting = (sizes >= config.min_area * mask.size) & (sizes <= config.max_area * mask.size)
    areas = []
    for number in np.flatnonzero(fitting).tolist():
        left, top, width, height = stats[number, :4].tolist()
        part = np.s_[top : top + height, left : left + width]
        rows, columns = np.nonzero((labels[part] == number) & (mask[part] > 0))
        rows, columns = rows + top, columns + left
        low = (int(columns.min()), int(rows.min()))
        areas.append(Area(low, (int(columns.max()) + 1, int(rows.max()) + 1), (rows, columns)))
    return areas


def skin_mask(image: Image) -> Mask:
    """Mark the colours of bare skin: 255 or 0, shape (height, width).

    Hue, saturation and red chroma as usual for skin (Kolkur et al.), wider towards the dark: skin in shade
    grows saturated and stays orange, while red cloth is both saturated and red.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    ycrcb = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    lit = cv2.inRange(hsv, (0, 58, 30), (25, 145, 255))
    shade = cv2.inRange(hsv, (3, 58, 30), (25, 210, 255))
    chroma = cv2.inRange(ycrcb, (0, 136, 77), (255, 180, 127))
    return np.asarray(cv2.bitwise_and(cv2.bitwise_or(lit, shade), chroma), np.uint8)
