"""Which frames are looked at: sampling by rate, and repeats of a fixed camera dropped."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelmill.datasets.sources.config import RepeatsConfig, SelectionConfig
from labelmill.datasets.sources.footage import Footage
from labelmill.images import Image

VERSION = 2
"""Part of every shard key: raise it when the same settings keep other frames."""

_CELLS_ACROSS = 40


def sample(footage: Footage, config: SelectionConfig) -> npt.NDArray[np.int64]:
    """Choose positions by stride or by rate.

    With `fps`, the first frame of each interval of 1/fps seconds is taken, so that the rate holds on
    average whatever the camera's own rate is.

    Returns:
        Positions in the footage, strictly increasing, shape (n,), int64.
    """
    if config.fps is not None and footage.fps_applies:
        # A tenth of an interval absorbs what timestamps are off: Matroska rounds them to a millisecond, at
        # 29.97 frames/s a thirty-third of an interval, and cameras jitter.
        interval = np.floor(footage.timestamps_s() * config.fps + 0.1)
        return np.flatnonzero(np.diff(interval, prepend=-1.0) > 0)
    return np.arange(0, len(footage), config.stride, dtype=np.int64)


class RepeatFilter:
    """Tells frames that show what the last kept frame showed.

    A picture is reduced to cells (the mean grey level of about a fortieth of its width, squared); a frame
    is a repeat when no cell changed by more than the threshold. The largest cell decides, not the mean, so
    that a small thing that moves is seen; averaging over a cell is what makes it deaf to noise.
    The comparison is with the last frame that was kept, so that slow drift adds up and is noticed.
    """

    def __init__(self, config: RepeatsConfig | None) -> None:
        self._config = config
        self._kept_cells: npt.NDArray[np.float32] | None = None
        self._kept_name = ""

    def repeat_reason(self, image: Image, name: str) -> str:
        """Say why a frame is a repeat.

        Args:
            image: The frame, RGB.
            name: How a later reason refers to this frame, if it is kept.

        Returns:
            The reason, or "" for a frame to keep.
        """
        if self._config is None:
            return ""
        cells = _cells(image)
        if self._kept_cells is not None and self._kept_cells.shape == cells.shape:
            change = float(np.abs(cells - self._kept_cells).max())
            if change <= self._config.threshold:
                return (
                    f"repeat of {self._kept_name}: largest change {change:.1f} <= {self._config.threshold:g}"
                )
        self._kept_cells = cells
        self._kept_name = name
        return ""


def _cells(image: Image) -> npt.NDArray[np.float32]:
    import cv2

    height, width = image.shape[:2]
    side = max(1.0, width / _CELLS_ACROSS)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    shape = (max(1, round(width / side)), max(1, round(height / side)))
    cells: npt.NDArray[np.float32] = cv2.resize(grey, shape, interpolation=cv2.INTER_AREA).astype(np.float32)
    return cells
