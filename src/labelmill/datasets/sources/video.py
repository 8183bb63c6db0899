"""Video files through PyAV: an exact frame index, and streaming reads that start anywhere.

A frame's index is its position in decoding order. The index is made by reading the container's packets
without decoding them; a shard then seeks to the key frame before its first frame and matches frames by
their presentation timestamps, never by seconds, which would be off by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelmill.errors import SourceError
from labelmill.images import Image

SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".ts", ".mts", ".mpg", ".mpeg", ".wmv"}
)


UNDECODABLE = "the picture could not be decoded"


@dataclass(frozen=True, slots=True, eq=False)
class VideoIndex:
    """Every frame of a video, in the order in which it is shown.

    Attributes:
        pts: Presentation timestamp of each frame in units of `time_base_s`, strictly increasing,
            shape (frames,), int64. Where the container has none, the frame's position.
        time_base_s: Seconds per unit of `pts`; without timestamps, seconds per frame.
        seekable: Whether `pts` are the container's own, so that a read may start in the middle.
        problem: What is wrong with the file's end, or "".
    """

    pts: npt.NDArray[np.int64]
    time_base_s: float
    seekable: bool
    problem: str = ""

    def timestamps_s(self) -> npt.NDArray[np.float64]:
        """Seconds of each frame from the first one, shape (frames,)."""
        return np.asarray((self.pts - self.pts[:1]) * self.time_base_s, dtype=np.float64)


def index_video(path: Path) -> VideoIndex:
    """Read a video's packets and list its frames.

    Raises:
        SourceError: The file cannot be opened, or holds no video frame.
    """
    import av

    problem = ""
    found: list[int | None] = []
    with _open(path) as container:
        stream = container.streams.video[0]
        declared = int(stream.frames or 0)
        rate = float(stream.average_rate or stream.base_rate or 25)
        time_base_s = float(stream.time_base or 0)
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    found.append(packet.pts)  # noqa: PERF401 - what was read before a break is kept
        except av.error.FFmpegError as error:
            problem = f"the file breaks off: {error.strerror}"
    pts = np.unique(np.array([value for value in found if value is not None], dtype=np.int64))
    if len(pts) == len(found) and time_base_s > 0:
        index = VideoIndex(pts, time_base_s, seekable=True, problem=problem)
    else:
        count = sum(1 for _ in _decode_all(path))
        index = VideoIndex(np.arange(count, dtype=np.int64), 1 / rate, seekable=False, problem=problem)
    if len(index.pts) == 0:
        raise SourceError(f"no frame in {path.name}", do="check the file, or take it out of `sources`")
    if declared > len(index.pts) and not problem:
        problem = f"the file ends after frame {len(index.pts) - 1} of the {declared} that it declares"
        index = VideoIndex(index.pts, index.time_base_s, index.seekable, problem)
    return index


def read_video(path: Path, pts: Sequence[int], *, seekable: bool) -> Iterator[Image | str]:
    """Decode some frames, streaming.

    Args:
        path: The video file.
        pts: Their timestamps as `VideoIndex` has them, strictly increasing.
        seekable: As `VideoIndex` has it.

    Yields:
        For each wanted frame, in order, its picture (RGB) or the reason why there is none.
    """
    if not pts:
        return
    wanted = iter(pts)
    target = next(wanted, None)
    for found, picture in _decode_from(path, pts[0]) if seekable else _decode_all(path):
        while target is not None and target < found:
            yield UNDECODABLE
            target = next(wanted, None)
        if target == found:
            yield "the picture is damaged" if picture.is_corrupt else _rgb(picture)
            target = next(wanted, None)
        if target is None:
            return
    while target is not None:
        yield UNDECODABLE
        target = next(wanted, None)


def _open(path: Path) -> Any:
    import av

    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        reason = "an empty file" if path.stat().st_size == 0 else str(error.strerror).lower()
        raise SourceError(
            f"cannot open {path.name} as a video", got=reason, expected="a video file", do="export it again"
        ) from error
    if not container.streams.video:
        container.close()
        raise SourceError(f"{path.name} has no video stream", do="take it out of `sources`")
    container.streams.video[0].thread_type = "AUTO"
    return container


def _decode(container: Any) -> Iterator[Any]:
    import av

    stream = container.streams.video[0]
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # the file breaks off; what was read is good
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:  # one damaged packet; its frame is found missing by the caller
            continue


def _decode_all(path: Path) -> Iterator[tuple[int, Any]]:
    with _open(path) as container:
        yield from enumerate(_decode(container))


def _decode_from(path: Path, start_pts: int) -> Iterator[tuple[int, Any]]:
    with _open(path) as container:
        stream = container.streams.video[0]
        container.seek(start_pts, stream=stream, backward=True, any_frame=False)
        frames = ((frame.pts, frame) for frame in _decode(container) if frame.pts is not None)
        first = next(frames, None)
        if first is not None and first[0] <= start_pts:
            yield first
            yield from frames
            return
    # Containers without an index (MPEG-TS) may land behind the target: then read from the beginning.
    with _open(path) as container:
        yield from ((frame.pts, frame) for frame in _decode(container) if frame.pts is not None)


def _rgb(picture: Any) -> Image:
    image: Image = picture.to_ndarray(format="rgb24")
    turns = (picture.rotation // 90) % 4  # display matrix, degrees counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
