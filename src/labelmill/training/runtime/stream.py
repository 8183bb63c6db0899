"""Frames of a camera, a stream or a file, read by a thread into a queue that would rather drop than lag."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labelmill.errors import SourceError
from labelmill.images import Image

logger = logging.getLogger(__name__)

Full = Literal["drop", "wait"]
"""What a reader does when the queue is full: drop the oldest frame (live), or wait (a file, every frame)."""

_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://", "srt://")
_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Grabbed:
    """One frame, as it came in.

    Attributes:
        index: Counted from 0 over the whole watch, dropped frames included.
        time_s: Since the watch began; for a file, its own timestamp.
        arrived_s: `time.perf_counter()` when it was decoded: latency is counted from here.
        image: RGB.
    """

    index: int
    time_s: float
    arrived_s: float
    image: Image


class FrameQueue:
    """A bounded queue between one reader and one worker.

    Args:
        size: Most frames waiting.
        full: What happens to a frame that comes when it is full.
    """

    def __init__(self, size: int, full: Full) -> None:
        self.dropped = 0
        self._frames: deque[Grabbed] = deque()
        self._size = size
        self._full = full
        self._closed = False
        self._changed = threading.Condition()

    def put(self, frame: Grabbed) -> bool:
        """Add a frame.

        Returns:
            False when the queue was closed, and the frame was not taken.
        """
        with self._changed:
            while self._full == "wait" and len(self._frames) >= self._size and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            if len(self._frames) >= self._size:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float) -> Grabbed | None:
        """The oldest frame; None when none came in time, or none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed, timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """Take no more frames; those that wait can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._changed:
            return self._closed and not self._frames


class Stream:
    """Reads a source in a thread of its own.

    A live source that goes away is opened again, with growing pauses, until it comes back or `give_up_s` is
    over.

    Args:
        source: A video file, `rtsp://…` and other addresses, `/dev/video0`, or a camera's number.
        queue_frames: Most frames waiting for the worker.
        realtime: Read a file as fast as it was filmed, dropping frames like a camera; without it every frame
            of a file is worked on.
        give_up_s: How long a lost live source is looked for; None for ever.

    Raises:
        SourceError: The source cannot be opened when the watch begins.
    """

    def __init__(
        self, source: str, *, queue_frames: int = 2, realtime: bool = False, give_up_s: float | None = None
    ) -> None:
        self.source = source
        self.live = is_live(source)
        self.losses: deque[tuple[str, float, str]] = deque()
        self._realtime = realtime
        self._give_up_s = give_up_s
        self._stop = threading.Event()
        self._index = 0
        self._began_s = time.perf_counter()
        self.queue = FrameQueue(queue_frames, "drop" if self.live or realtime else "wait")
        self._container = self._open()
        self.fps = _rate(self._container)
        picture = self._container.streams.video[0]
        self.size_wh = (int(picture.width), int(picture.height))
        self._thread = threading.Thread(target=self._read, name="labelmill-stream", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._began_s = time.perf_counter()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for it a moment."""
        self._stop.set()
        self.queue.close()
        if self._thread.is_alive():
            self._thread.join(timeout=_READ_TIMEOUT_S + 1)

    def take_losses(self) -> Iterator[tuple[str, float, str]]:
        """What happened to the source since the last call: "lost", "found" or "given up", time_s, reason."""
        while self.losses:
            yield self.losses.popleft()

    def _read(self) -> None:
        try:
            self._read_until_it_ends()
        except Exception:
            logger.exception("reading %s failed", self.source)
        finally:
            self.queue.close()
            if self._container is not None:
                self._container.close()

    def _read_until_it_ends(self) -> None:
        while not self._stop.is_set():
            reason = self._read_once()
            if not self.live or self._stop.is_set():
                return
            self.losses.append(("lost", self._now_s(), reason))
            logger.warning("%s is lost (%s): looking for it", self.source, reason)
            if not self._find_again():
                return

    def _read_once(self) -> str:
        """Read until the source ends or breaks; why it did."""
        import av

        try:
            for picture in self._container.decode(video=0):
                if self._stop.is_set():
                    return "stopped"
                time_s = self._now_s()
                if not self.live:
                    time_s = float(picture.time or 0.0)
                    if self._realtime and self._stop.wait(max(0.0, time_s - self._now_s())):
                        return "stopped"
                frame = Grabbed(self._index, time_s, time.perf_counter(), to_rgb(picture))
                self._index += 1
                if not self.queue.put(frame):
                    return "stopped"
        except (av.error.FFmpegError, OSError) as error:
            return str(error).splitlines()[0]
        return "the stream ended"

    def _find_again(self) -> bool:
        self._container.close()
        self._container = None
        pause_s = _FIRST_PAUSE_S
        lost_s = self._now_s()
        while not self._stop.wait(pause_s):
            try:
                self._container = self._open()
            except SourceError as error:
                if self._give_up_s is not None and self._now_s() - lost_s >= self._give_up_s:
                    self.losses.append(("given up", self._now_s(), error.line))
                    logger.error("%s did not come back within %g s", self.source, self._give_up_s)
                    return False
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            self.losses.append(("found", self._now_s(), ""))
            logger.warning("%s is back", self.source)
            return True
        return False

    def _open(self) -> Any:
        import av

        source, settings = _address(self.source)
        try:
            container = av.open(source, **settings)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(
                f"cannot open {self.source}",
                got=str(error).splitlines()[0],
                expected="a video file, an rtsp:// address, a camera's number",
                do="check that it is reachable and not in use",
            ) from error
        if not container.streams.video:
            container.close()
            raise SourceError(f"{self.source} has no video", do="name another source")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _now_s(self) -> float:
        return time.perf_counter() - self._began_s


def is_live(source: str) -> bool:
    """Whether a source is a camera or a stream, which may come back after its end."""
    return source.isdigit() or source.startswith(("/dev/", *_STREAMS))


def to_rgb(picture: Any) -> Image:
    """A decoded frame as it is meant to be seen, rotation applied."""
    image: Image = picture.to_ndarray(format="rgb24")
    turns = (picture.rotation // 90) % 4  # display matrix, degrees counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _address(source: str) -> tuple[str, dict[str, Any]]:
    """What PyAV opens, and how."""
    if source.isdigit():
        return _address(f"/dev/video{source}")
    if source.startswith("/dev/"):
        return source, {"format": "v4l2"}
    if source.startswith(_STREAMS):
        options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
        return source, {"options": options, "timeout": (_OPEN_TIMEOUT_S, _READ_TIMEOUT_S)}
    if not Path(source).is_file():
        raise SourceError(
            f"no such source {source}",
            expected="a video file, an rtsp:// address, /dev/video0, or a camera's number",
            do="check the path",
        )
    return source, {}


def _rate(container: Any) -> float:
    stream = container.streams.video[0]
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if 1 <= rate <= 1000 else 25.0
