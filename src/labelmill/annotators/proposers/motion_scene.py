"""The background of each frame of a fixed camera, from the frames around it.

Source: temporal median background and ghosts: Cucchiara et al., "Detecting moving objects, ghosts, and
shadows in video streams", PAMI 2003.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from labelmill.annotators.detections import detections_class
from labelmill.annotators.proposers.motion_boxes import Background, boxes_of, level_light
from labelmill.annotators.types import Frame
from labelmill.images import Image

if TYPE_CHECKING:
    import numpy.typing as npt
    import supervision as sv

    from labelmill.annotators.proposers.motion import MotionConfig
    from labelmill.annotators.types import Boxes

KEY_STEP = 8
"""Frames of the source between two that the background is made of: neighbours say the same."""


class Scene:
    """One run of frames of one size: the background of each, and what differs from it.

    Keeps working pictures only: one for each frame of the look-ahead, and the key frames.

    Args:
        config: Settings of the proposer.
        size_wh: Size of every frame, in pixels.
    """

    def __init__(self, config: MotionConfig, size_wh: tuple[int, int]) -> None:
        self.config = config
        self.size_wh = size_wh
        scale = min(1.0, config.work_px / max(size_wh))
        self.work_wh = (max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale)))
        self._waiting: deque[tuple[Image, int]] = deque()  # working picture, number of its key frame
        self._ahead = config.lookahead_frames // KEY_STEP
        self._keys: deque[Image] = deque(maxlen=config.history_frames // KEY_STEP + self._ahead)
        self._newest = -1  # number of the newest key frame
        self._index = -1
        self._background: tuple[int, Background] | None = None

    def feed(self, frame: Frame) -> Iterator[sv.Detections]:
        """Take the next frame, and yield the boxes of those whose look-ahead is complete."""
        small = cv2.resize(frame.image, self.work_wh, interpolation=cv2.INTER_AREA)
        # Still images all have index 0: each is a key frame.
        if frame.index <= self._index or frame.index // KEY_STEP != self._index // KEY_STEP:
            self._keys.append(small)
            self._newest += 1
        self._index = frame.index
        self._waiting.append((small, self._newest))
        while self._newest - self._waiting[0][1] >= self._ahead:
            yield self._answer(*self._waiting.popleft())
            if not self._waiting:
                return

    def finish(self) -> Iterator[sv.Detections]:
        """Yield the boxes of the frames still waiting: the stream has ended."""
        while self._waiting:
            yield self._answer(*self._waiting.popleft())

    def _answer(self, small: Image, key: int) -> sv.Detections:
        if self._background is None or self._background[0] != key:
            at = len(self._keys) - 1 - (self._newest - key)
            rest = self.config.rest_frames // KEY_STEP
            self._background = (key, background_of(list(self._keys), at, rest))
        boxes, scores = boxes_of(small, self._background[1], self.config)
        return _detections(boxes, scores, self.work_wh, self.size_wh, self.config.phrase)


def background_of(keys: Sequence[Image], at: int, rest: int) -> Background:
    """Make the background of a time from key frames.

    Args:
        keys: Key frames, oldest first.
        at: Which of them is the present.
        rest: How many key frames a thing must rest to be background.
    """
    latest = max(len(keys) - rest, 0)
    starts = {min(max(at - round(part * (rest - 1)), 0), latest) for part in (0, 0.25, 0.5, 0.75, 1)}
    stretches = [range(start, min(start + rest, len(keys))) for start in sorted(starts)]
    middle = ordered(keys)[len(keys) // 2]
    levelled = {i: level_light(keys[i], middle) for i in sorted(set().union(*stretches))}
    rests = []
    for stretch in stretches:
        rows = ordered([levelled[i] for i in stretch])
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


def _detections(
    boxes: Boxes,
    scores: npt.NDArray[np.float32],
    work_wh: tuple[int, int],
    size_wh: tuple[int, int],
    phrase: str,
) -> sv.Detections:
    scale = np.array([size_wh[0] / work_wh[0], size_wh[1] / work_wh[1]] * 2, np.float32)
    xyxy = np.clip(boxes * scale, 0, np.array([*size_wh, *size_wh], np.float32)).astype(np.float32)
    return detections_class()(
        xyxy=xyxy, confidence=scores, data={"phrase": np.array([phrase] * len(xyxy), dtype=str)}
    )
