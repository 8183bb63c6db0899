"""Boxes around whatever moves before a fixed camera: no weights, no training.

The background of a frame is the per-pixel median of the frames around it, before and after. Looking a
little ahead is what makes it clean: a thing that was put down, or the place of a thing that was taken
away, already looks as it will look from now on, and so is background at once, while a hand that only
rests for a moment is not.

Sources: temporal median background (Cucchiara et al., "Detecting moving objects, ghosts, and shadows in
video streams", PAMI 2003); brightness and colour distortion for shadows (Horprasert, Harwood, Davis, "A
statistical approach for real-time robust background subtraction and shadow detection", 1999).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from labelmill.annotators.types import Boxes, Frame, Image
from labelmill.config import MakerConfig

if TYPE_CHECKING:
    import supervision as sv

Mask = npt.NDArray[np.uint8]
"""0 or 255 for each pixel of a working picture, shape (height, width)."""

_KEY_STEP = 8
"""Frames of the source between two that the background is made of: neighbours say the same."""


class MotionConfig(MakerConfig):
    """Settings of the `motion` proposer. Shares are of the frame's area or width, so that they fit any size.

    Attributes:
        phrase: What the boxes are called.
        contrast: How much a pixel must differ from the background, in grey levels of 255; noisier
            footage raises it by itself.
        min_area: Smallest moving area, as a share of the frame.
        max_area: Largest moving area, as a share of the frame.
        max_changed: When more than this share of the frame changed, the light or the camera did: no boxes.
        merge_distance: Moving areas nearer than this share of the frame's longer side are one.
        shadows: "drop" takes darkening or brightening without a change of colour for shadow and reflection;
            "keep" is for grey things on grey ground.
        skin: "ignore"; or "prefer" to shrink a moving area to the bare skin in it, where there is any; or
            "require" to drop areas without skin as well. A rule on colour: it knows no gloves, and may
            take bare wood and cardboard for skin.
        history_frames: Frames of the source before a frame that its background is made of.
        lookahead_frames: Frames after it.
        rest_frames: Frames of the source that a thing must rest to be background at once.
        work_px: Longer side of the picture that is worked on, in pixels.
    """

    kind: Literal["motion"] = "motion"
    phrase: str = Field(default="motion", min_length=1)
    contrast: float = Field(default=16.0, gt=0, le=255)
    min_area: float = Field(default=0.001, gt=0, lt=1)
    max_area: float = Field(default=0.5, gt=0, le=1)
    max_changed: float = Field(default=0.6, gt=0, le=1)
    merge_distance: float = Field(default=0.04, ge=0, le=1)
    shadows: Literal["drop", "keep"] = "drop"
    skin: Literal["ignore", "prefer", "require"] = "ignore"
    history_frames: int = Field(default=192, ge=_KEY_STEP, le=2048)
    lookahead_frames: int = Field(default=64, ge=0, le=512)
    rest_frames: int = Field(default=64, ge=2 * _KEY_STEP, le=2048)
    work_px: int = Field(default=320, ge=64, le=1920)

    def reach(self) -> tuple[int, int]:
        """Frames before and after a shard that its backgrounds are made of."""
        return self.history_frames, self.lookahead_frames


class Motion:
    """Boxes around what moves.

    Args:
        config: Settings.
    """

    Config: ClassVar[type[MotionConfig]] = MotionConfig
    version = 1
    sees_repeats = True

    def __init__(self, config: MotionConfig) -> None:
        self.config = config

    def propose(self, frames: Iterator[Frame]) -> Iterator[sv.Detections]:
        """Yield the moving boxes of each frame, `lookahead_frames` later at most."""
        scene: _Scene | None = None
        for frame in frames:
            height, width = frame.image.shape[:2]
            if scene is None or scene.size_wh != (width, height):
                if scene is not None:
                    yield from scene.finish()
                scene = _Scene(self.config, (width, height))
            yield from scene.feed(frame)
        if scene is not None:
            yield from scene.finish()


class _Scene:
    """One run of frames of one size: the background of each, and what differs from it."""

    def __init__(self, config: MotionConfig, size_wh: tuple[int, int]) -> None:
        self.config = config
        self.size_wh = size_wh
        scale = min(1.0, config.work_px / max(size_wh))
        self.work_wh = (max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale)))
        self._waiting: deque[tuple[Image, int]] = deque()  # working picture, number of its key frame
        self._ahead = config.lookahead_frames // _KEY_STEP
        self._keys: deque[Image] = deque(maxlen=config.history_frames // _KEY_STEP + self._ahead)
        self._newest = -1  # number of the newest key frame
        self._index = -1
        self._background: tuple[int, Background] | None = None

    def feed(self, frame: Frame) -> Iterator[sv.Detections]:
        small = cv2.resize(frame.image, self.work_wh, interpolation=cv2.INTER_AREA)
        # Still images all have index 0: each is a key frame.
        if frame.index <= self._index or frame.index // _KEY_STEP != self._index // _KEY_STEP:
            self._keys.append(small)
            self._newest += 1
        self._index = frame.index
        self._waiting.append((small, self._newest))
        while self._newest - self._waiting[0][1] >= self._ahead:
            yield self._answer(*self._waiting.popleft())
            if not self._waiting:
                return

    def finish(self) -> Iterator[sv.Detections]:
        while self._waiting:
            yield self._answer(*self._waiting.popleft())

    def _answer(self, small: Image, key: int) -> sv.Detections:
        if self._background is None or self._background[0] != key:
            at = len(self._keys) - 1 - (self._newest - key)
            rest = max(2, self.config.rest_frames // _KEY_STEP)
            self._background = (key, background_of(list(self._keys), at, rest))
        boxes, scores = boxes_of(small, self._background[1], self.config)
        return _detections(boxes, scores, self.work_wh, self.size_wh, self.config.phrase)


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What a frame is compared with; each picture RGB, shape (height, width, 3), uint8.

    Attributes:
        middle: Median of the frames before and after.
        rests: Lower and upper quartile of stretches that the frame lies in: what agrees with both rests.
    """

    middle: Image
    rests: tuple[tuple[Image, Image], ...]


def background_of(keys: Sequence[Image], at: int, rest: int) -> Background:
    """Make the background of a time from key frames.

    Args:
        keys: Key frames, oldest first.
        at: Which of them is the present.
        rest: How many key frames a thing must rest to be background.
    """
    latest = max(len(keys) - rest, 0)
    starts = {min(max(at - round(part * (rest - 1)), 0), latest) for part in (0, 0.25, 0.5, 0.75, 1)}
    middle = ordered(keys)[len(keys) // 2]
    levelled = {
        i: level_light(keys[i], middle)
        for start in starts
        for i in range(start, min(start + rest, len(keys)))
    }
    rests = []
    for start in sorted(starts):
        rows = ordered([levelled[i] for i in range(start, min(start + rest, len(keys)))])
        last = len(rows) - 1
        rests.append((rows[round(last * 0.25)], rows[round(last * 0.75)]))
    return Background(middle, tuple(rests))


def ordered(pictures: Sequence[Image]) -> list[Image]:
    """Sort pictures pixel by pixel, darkest first.

    Batcher's odd-even merge sort on whole pictures: minimum and maximum of bytes are vectorised, which
    is about ten times faster than sorting along an axis.
    """
    rows = [picture.copy() for picture in pictures]
    n = len(rows)
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        low, high = rows[i + j], rows[i + j + k]
                        rows[i + j] = cv2.min(low, high)
                        rows[i + j + k] = cv2.max(low, high)
            k //= 2
        p *= 2
    return rows


def boxes_of(
    image: Image, background: Background, config: MotionConfig
) -> tuple[Boxes, npt.NDArray[np.float32]]:
    """Find the moving boxes of one working picture.

    Returns:
        Boxes in pixels of the working picture, shape (n, 4), and their scores, shape (n,).
    """
    image = level_light(image, background.middle)
    gap = difference(image, background.middle)
    contrast = max(config.contrast, 3 * noise_of(image, background.middle))
    _, mask = cv2.threshold(gap, contrast, 255, cv2.THRESH_BINARY)
    if config.shadows == "drop":
        drop_shadows(mask, image, background.middle, contrast)
    for low, high in background.rests:
        mask = cv2.bitwise_and(mask, cv2.bitwise_not(_resting(image, low, high, contrast)))
    if cv2.countNonZero(mask) > config.max_changed * mask.size:
        return np.empty((0, 4), np.float32), np.empty(0, np.float32)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    areas = areas_of(mask, config)
    if config.skin != "ignore":
        skin = cv2.morphologyEx(
            cv2.bitwise_and(skin_mask(image), mask), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
        )
        bare = areas_of(np.asarray(skin, np.uint8), config)
        areas = bare if bare or config.skin == "require" else areas
    boxes = np.array([(*area.low, *area.high) for area in areas], np.float32).reshape(-1, 4)
    scores = np.array([gap[area.inside].mean() for area in areas], np.float32)
    return boxes, (1 - np.exp(-scores / 64)).astype(np.float32)


def level_light(image: Image, background: Image) -> Image:
    """Undo what exposure and white balance changed: a factor a channel, fitted to the whole picture."""
    now, then = (picture[::8, ::8].astype(np.float32) + 1.0 for picture in (image, background))
    gain = np.clip(np.median(then / now, axis=(0, 1)), 0.5, 2.0)
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
    return np.asarray(cv2.erode(cv2.inRange(image, least, most), np.ones((5, 5), np.uint8)), np.uint8)


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
    """Gather the marked pixels into areas: pieces nearer than the merge distance are one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    least = config.min_area * mask.size
    groups = [
        (np.array([x, y, x + w, y + h]), [number])
        for number, (x, y, w, h, size) in enumerate(stats[:count])
        if number and size >= least / 8
    ]
    reach = config.merge_distance * max(mask.shape)
    merged = True
    while merged:
        merged = False
        for i in range(len(groups)):
            for j in range(len(groups) - 1, i, -1):
                (one, first), (two, second) = groups[i], groups[j]
                if (np.maximum(one[:2], two[:2]) - np.minimum(one[2:], two[2:])).max() <= reach:
                    box = np.concatenate([np.minimum(one[:2], two[:2]), np.maximum(one[2:], two[2:])])
                    groups[i] = (box, first + second)
                    del groups[j]
                    merged = True
    areas = []
    for (x1, y1, x2, y2), numbers in groups:
        rows, columns = np.nonzero(np.isin(labels[y1:y2, x1:x2], numbers))
        if least <= len(rows) <= config.max_area * mask.size:
            areas.append(Area((x1, y1), (x2, y2), (rows + y1, columns + x1)))
    return areas


def skin_mask(image: Image) -> Mask:
    """Mark the colours of bare skin: 255 or 0, shape (height, width).

    Hue, saturation and red chroma as usual for skin (Kolkur et al., "Human skin detection using RGB, HSV and
    YCbCr color models", 2017), wider towards the dark: skin in shade grows saturated and stays orange, while
    red cloth is both saturated and red.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    ycrcb = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    lit = cv2.inRange(hsv, (0, 58, 30), (25, 145, 255))
    shade = cv2.inRange(hsv, (3, 58, 30), (25, 210, 255))
    chroma = cv2.inRange(ycrcb, (0, 136, 77), (255, 180, 127))
    return np.asarray(cv2.bitwise_and(cv2.bitwise_or(lit, shade), chroma), np.uint8)


def _detections(
    boxes: Boxes,
    scores: npt.NDArray[np.float32],
    work_wh: tuple[int, int],
    size_wh: tuple[int, int],
    phrase: str,
) -> sv.Detections:
    import supervision as sv

    scale = np.array([size_wh[0] / work_wh[0], size_wh[1] / work_wh[1]] * 2, np.float32)
    xyxy = np.clip(boxes * scale, 0, np.array([*size_wh, *size_wh], np.float32)).astype(np.float32)
    return sv.Detections(
        xyxy=xyxy, confidence=scores, data={"phrase": np.array([phrase] * len(xyxy), dtype=str)}
    )
