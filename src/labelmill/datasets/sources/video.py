"""Video files through PyAV: an exact frame index, and streaming reads that start anywhere.

A frame's index is its position in the order in which the decoder gives them out, which is that of
presentation. The index is made by reading the container's packets without decoding them; a shard then seeks
to the key frame before its first frame and matches frames by their presentation timestamps, never by
seconds, which would be off by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
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

_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\s*$")

_KEYS_TRIED = 8
"""Key frames before a target that are tried before all is read from the beginning."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoIndex:
    """Every frame of a video, in the order in which it is shown.

    Attributes:
        pts: Presentation timestamp of each frame in units of `time_base_s`, strictly increasing,
            shape (frames,), int64. Where the container has none, the frame's position.
        time_base_s: Seconds per unit of `pts`; without timestamps, seconds per frame.
        keys: The `pts` of the frames that a decoder can start at, increasing, int64; None where `pts` are
            positions, so that every read starts at the beginning.
        problem: What is wrong with the file's end, or "".
    """

    pts: npt.NDArray[np.int64]
    time_base_s: float
    keys: npt.NDArray[np.int64] | None
    problem: str = ""

    def timestamps_s(self) -> npt.NDArray[np.float64]:
        """Seconds of each frame from the first one, shape (frames,)."""
        return np.asarray((self.pts - self.pts[:1]) * self.time_base_s, dtype=np.float64)

    def starts(self, pts: int) -> tuple[int, ...] | None:
        """Key frames at or before a frame, the nearest last, from which `read_video` may decode it."""
        if self.keys is None:
            return None
        stop = int(np.searchsorted(self.keys, pts, side="right"))
        return tuple(self.keys[max(0, stop - _KEYS_TRIED) : stop].tolist())


def index_video(path: Path) -> VideoIndex:
    """Read a video's packets and list its frames.

    Raises:
        SourceError: The file cannot be opened, or holds no video frame.
    """
    import av

    problem = ""
    stored = 0
    found: list[int | None] = []
    keys: list[int] = []
    with _open(path) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.base_rate or 25)
        time_base_s = float(stream.time_base or 0)
        try:
            for packet in container.demux(stream):
                stored += packet.size > 0
                if packet.size and not packet.is_discard:
                    found.append(packet.pts)
                    if packet.is_keyframe and packet.pts is not None:
                        keys.append(packet.pts)
        except av.error.FFmpegError as error:
            problem = f"the file breaks off: {error.strerror}"
        pts = np.unique(np.array([value for value in found if value is not None], dtype=np.int64))
        problem = problem or _cut_off(stream, stored, pts, time_base_s)
        trusted = len(pts) == len(found) and time_base_s > 0 and _tells_time(container, problem)
    if trusted:
        index = VideoIndex(pts, time_base_s, np.unique(np.array(keys, dtype=np.int64)), problem)
    else:
        count = sum(1 for _ in _decode_all(path))
        index = VideoIndex(np.arange(count, dtype=np.int64), 1 / rate, None, problem)
    if len(index.pts) == 0:
        raise SourceError(f"no frame in {path.name}", do="check the file, or take it out of `sources`")
    return index


def read_video(path: Path, pts: Sequence[int], starts: Sequence[int] | None) -> Iterator[Image | str]:
    """Decode some frames, streaming.

    Args:
        path: The video file.
        pts: Their timestamps as `VideoIndex` has them, strictly increasing.
        starts: What `VideoIndex.starts` gives for the first of them.

    Yields:
        For each wanted frame, in order, its picture (RGB) or the reason why there is none.
    """
    if not pts:
        return
    wanted = iter(pts)
    target = next(wanted, None)
    for found, picture in _decode_from(path, starts) if starts is not None else _decode_all(path):
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


def _cut_off(stream: Any, stored: int, pts: npt.NDArray[np.int64], time_base_s: float) -> str:
    """Say whether a file ends before what its header declares."""
    declared = int(stream.frames or 0)
    if declared > stored:
        return f"the file ends after {stored} of the {declared} frames that it declares"
    # Matroska declares no count, but the length of each stream.
    text = _DURATION.match(stream.metadata.get("DURATION", ""))
    if declared or not text or len(pts) < 2:
        return ""
    declared_s = int(text[1]) * 3600 + int(text[2]) * 60 + float(text[3])
    start_s = (stream.start_time or 0) * time_base_s
    end_s = float(pts[-1]) * time_base_s + (1 / float(stream.average_rate) if stream.average_rate else 0.0)
    if end_s < declared_s - 0.5 and end_s - start_s < declared_s - 0.5:
        return f"the file ends at {end_s:.1f} s of the {declared_s:.1f} s that it declares"
    return ""


def _tells_time(container: Any, problem: str) -> bool:
    """Whether timestamps are the frames' own.

    AVI has none: FFmpeg counts the packets, which is wrong where frames are shown in another order than they
    are stored, or where some of them are lost.
    """
    reordered = container.streams.video[0].codec_context.has_b_frames
    return container.format.name != "avi" or not (reordered or problem)


def _open(path: Path) -> Any:
    import av

    try:
        # Cameras write their tags in any encoding; none is needed for the pictures.
        container = av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        empty = path.is_file() and path.stat().st_size == 0
        reason = "an empty file" if empty else str(error.strerror).lower()
        raise SourceError(
            f"cannot open {path.name} as a video", got=reason, expected="a video file", do="export it again"
        ) from error
    if not container.streams.video:
        container.close()
        raise SourceError(f"{path.name} has no video stream", do="take it out of `sources`")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise SourceError(
            f"{path.name} is of an unknown codec", expected="what FFmpeg decodes", do="export it again"
        )
    # One thread: with more, what a decoder makes of damaged data depends on their number and timing. Frames
    # are decoded ahead of the work anyway.
    container.streams.video[0].thread_type = "NONE"
    return container


def _decode(container: Any) -> Iterator[Any]:
    import av

    stream = container.streams.video[0]
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # the file breaks off; what was read is good
            packet = None
        # An error is one damaged packet, whose frame the caller finds missing. None at a break flushes the
        # frames that the decoder still holds; at a sound end it has been flushed already.
        with suppress(av.error.FFmpegError):
            yield from stream.decode(packet)
        if packet is None:
            return


def _decode_all(path: Path) -> Iterator[tuple[int, Any]]:
    with _open(path) as container:
        yield from enumerate(_decode(container))


def _decode_from(path: Path, starts: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Decode from a key frame on, and not before the last of `starts`.

    A seek may land behind its target (MPEG-TS has no index, others have one by decoding time), and frames
    shown before the first key frame may lack what they refer to. So only what comes after a key frame in
    presentation is given out, and an earlier one is tried until that is early enough.
    """
    import av

    keys = frozenset(starts)
    for start in reversed(starts):
        with _open(path) as container:
            try:
                container.seek(start, stream=container.streams.video[0], backward=True, any_frame=False)
            except av.error.FFmpegError:  # this container cannot seek there
                continue
            frames = _stamped(container)
            for pts, picture in frames:
                if pts in keys:
                    yield pts, picture
                    yield from frames
                    return
                if pts > starts[-1]:
                    break
    with _open(path) as container:
        yield from _stamped(container)


def _stamped(container: Any) -> Iterator[tuple[int, Any]]:
    return ((picture.pts, picture) for picture in _decode(container) if picture.pts is not None)


def _rgb(picture: Any) -> Image:
    image: Image = picture.to_ndarray(format="rgb24")
    turns = (picture.rotation // 90) % 4  # display matrix, degrees counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
