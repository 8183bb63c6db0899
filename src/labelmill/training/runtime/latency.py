"""How fast a watch is: frames a second, and how old a frame is when its labels are known."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

import numpy as np

_REMEMBERED = 20_000  # frames over which percentiles are told: eleven minutes at 30 a second


class Speed(NamedTuple):
    """Where a watch stands.

    Attributes:
        frames: Worked on.
        dropped: Dropped because newer ones had come.
        seconds: Since the first frame was taken up.
        fps: Frames worked on a second.
        p50_ms: Half of the frames were labelled within so long of their arrival.
        p95_ms: 95 of a hundred were.
    """

    frames: int
    dropped: int
    seconds: float
    fps: float
    p50_ms: float
    p95_ms: float

    @property
    def line(self) -> str:
        """All of it in one line."""
        return (
            f"{self.fps:.1f} fps, latency p50 {self.p50_ms:.0f} ms, p95 {self.p95_ms:.0f} ms, "
            f"{self.frames} frames, {self.dropped} dropped"
        )


class Stopwatch:
    """Counts frames and their latencies."""

    def __init__(self) -> None:
        self.frames = 0
        self._began_s: float | None = None
        self._ended_s = 0.0
        self._latencies_s: deque[float] = deque(maxlen=_REMEMBERED)

    def begin(self) -> None:
        """A frame is taken up."""
        if self._began_s is None:
            self._began_s = time.perf_counter()

    def end(self, arrived_s: float) -> float:
        """A frame is done.

        Args:
            arrived_s: `time.perf_counter()` when it came.

        Returns:
            Its latency in seconds.
        """
        self._ended_s = time.perf_counter()
        self.frames += 1
        self._latencies_s.append(self._ended_s - arrived_s)
        return self._latencies_s[-1]

    def speed(self, dropped: int) -> Speed:
        """Everything so far."""
        if self._began_s is None or not self._latencies_s:
            return Speed(0, dropped, 0.0, 0.0, float("nan"), float("nan"))
        seconds = self._ended_s - self._began_s
        p50, p95 = np.percentile(np.array(self._latencies_s), [50, 95]) * 1000
        return Speed(self.frames, dropped, seconds, self.frames / seconds, float(p50), float(p95))
