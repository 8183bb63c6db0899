"""What a line's sources hold: every frame named, in an order that a shard can be cut from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from labelmill import images as image_files
from labelmill.annotators.types import Frame
from labelmill.datasets.sources import video as video_files
from labelmill.datasets.sources.config import SourceConfig
from labelmill.datasets.sources.video import VideoIndex
from labelmill.errors import SourceError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame, or a whole source, that could not be read.

    Attributes:
        source: The source's path, for people.
        frame_index: The frame, or None for the whole source.
        reason: Why, in words.
    """

    source: str
    frame_index: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class FrameRef:
    """A frame by name, before anyone decodes it; the columns that every table carries."""

    source: str
    source_digest: str
    index: int
    timestamp_s: float


class Slice(Protocol):
    """Some frames of one source, small enough to be sent to another process.

    Attributes:
        refs: The frames by name, in order.
    """

    @property
    def refs(self) -> tuple[FrameRef, ...]: ...  # noqa: D102 - above

    def read(self) -> Iterator[Frame | str]:
        """Decode the frames, streaming: each a picture, or the reason why there is none."""
        ...


class Footage(Protocol):
    """A sequence of frames that can be read from anywhere."""

    @property
    def fps_applies(self) -> bool:
        """Whether the frames carry a time, so that `selection.fps` makes sense."""
        ...

    def __len__(self) -> int: ...

    def timestamps_s(self) -> npt.NDArray[np.float64]:
        """Seconds from the start of each frame, shape (len,)."""
        ...

    def slice(self, positions: Sequence[int]) -> Slice:
        """The frames at some positions, strictly increasing."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class VideoSlice:
    """Some frames of a video, as arrays: a plan holds every frame of its footage.

    Attributes:
        path: The file.
        name: Its path, for people and tables.
        digest: SHA-256 of its bytes.
        positions: The frames' indices.
        pts: Their timestamps, as the index has them.
        seconds: Their times from the start of the video.
        starts: Key frames from which a read may start; None where `pts` are positions.
    """

    path: Path
    name: str
    digest: str
    positions: npt.NDArray[np.int64]
    pts: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    starts: tuple[int, ...] | None

    @property
    def refs(self) -> tuple[FrameRef, ...]:
        """The frames by name, in order."""
        times = zip(self.positions.tolist(), self.seconds.tolist(), strict=True)
        return tuple(FrameRef(self.name, self.digest, index, at) for index, at in times)

    def read(self) -> Iterator[Frame | str]:
        """Decode the frames, streaming: each a picture, or the reason why there is none."""
        images = video_files.read_video(self.path, self.pts.tolist(), self.starts)
        for ref, image in zip(self.refs, images, strict=True):
            if isinstance(image, str):
                yield image
            else:
                yield Frame(ref.source_digest, ref.index, ref.timestamp_s, image)


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """One video file.

    Attributes:
        path: The file.
        name: Its path, for people and tables.
        digest: SHA-256 of its bytes.
        index: Its frames.
    """

    path: Path
    name: str
    digest: str
    index: VideoIndex
    fps_applies: bool = True

    def __len__(self) -> int:
        return len(self.index.pts)

    def timestamps_s(self) -> npt.NDArray[np.float64]:
        """Seconds from the start of each frame, shape (len,)."""
        return self.index.timestamps_s()

    def slice(self, positions: Sequence[int]) -> VideoSlice:
        """The frames at some positions, strictly increasing."""
        at = np.array(positions, dtype=np.int64)
        pts = self.index.pts[at]
        seconds = (pts - self.index.pts[0]) * self.index.time_base_s
        starts = self.index.starts(int(pts[0])) if len(at) else None
        return VideoSlice(self.path, self.name, self.digest, at, pts, seconds, starts)


@dataclass(frozen=True, slots=True)
class StillsSlice:
    """Some images of a folder.

    Attributes:
        paths: The files.
        names: Their paths, for people and tables.
        digests: SHA-256 of the bytes of each.
        within: POSIX paths of the files within their folder.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    within: tuple[str, ...]

    @property
    def refs(self) -> tuple[FrameRef, ...]:
        """The frames by name, in order."""
        return tuple(
            FrameRef(name, digest, 0, 0.0) for name, digest in zip(self.names, self.digests, strict=True)
        )

    def read(self) -> Iterator[Frame | str]:
        """Read the images: each a picture, or the reason why there is none."""
        for path, ref, name in zip(self.paths, self.refs, self.within, strict=True):
            image = image_files.read_image(path)
            if isinstance(image, str):
                yield image
            else:
                yield Frame(ref.source_digest, 0, 0.0, image, name=name)


@dataclass(frozen=True, slots=True, eq=False)
class Stills:
    """A folder of still images; each is a source of one frame.

    Attributes:
        paths: The files, in order.
        names: Their paths, for people and tables.
        digests: SHA-256 of the bytes of each.
        within: Their POSIX paths within the folder.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    digests: Sequence[str]
    within: Sequence[str]
    fps_applies: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def timestamps_s(self) -> npt.NDArray[np.float64]:
        """Zeros, shape (len,): still images carry no time."""
        return np.zeros(len(self.paths))

    def slice(self, positions: Sequence[int]) -> StillsSlice:
        """The images at some positions, strictly increasing."""
        return StillsSlice(
            tuple(self.paths[position] for position in positions),
            tuple(self.names[position] for position in positions),
            tuple(self.digests[position] for position in positions),
            tuple(self.within[position] for position in positions),
        )


class Catalogue(Protocol):
    """Remembers digests and video indices between runs."""

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's bytes."""
        ...

    def video_index(self, path: Path, digest: str) -> VideoIndex:
        """The frames of a video."""
        ...


def open_footage(
    sources: Sequence[SourceConfig], catalogue: Catalogue, base: Path
) -> tuple[list[Footage], list[Unreadable]]:
    """Find every frame that a line's sources name.

    Files of the same bytes are taken once. What cannot be opened is reported, and the rest goes on.

    Args:
        sources: The line's `sources`.
        catalogue: Where digests and video indices come from.
        base: The line file's folder; paths below it are named relative to it.

    Raises:
        SourceError: A named path does not exist, or nothing at all can be read.
    """
    footage: list[Footage] = []
    problems: list[Unreadable] = []
    seen: dict[str, str] = {}
    for source in sources:
        if source.video is not None:
            for path in _videos(source.video):
                _add_video(path, _name(path, base), catalogue, footage, problems, seen)
        elif source.images is not None:
            _add_stills(source.images, catalogue, base, footage, problems, seen)
    if not footage:
        reasons = "; ".join(problem.reason for problem in problems[:3])
        raise SourceError(
            f"no source can be read: {reasons or 'there is none'}",
            do="mend `sources`",
        )
    return footage, problems


def _add_video(
    path: Path,
    name: str,
    catalogue: Catalogue,
    footage: list[Footage],
    problems: list[Unreadable],
    seen: dict[str, str],
) -> None:
    try:
        digest = catalogue.digest(path)
        if digest in seen:
            problems.append(Unreadable(name, None, f"the same bytes as {seen[digest]}: taken once"))
            return
        index = catalogue.video_index(path, digest)
    except (SourceError, OSError) as error:
        problems.append(Unreadable(name, None, " ".join(str(error).split())))
        return
    seen[digest] = name
    if index.problem:
        problems.append(Unreadable(name, len(index.pts), index.problem))
    footage.append(Video(path, name, digest, index))


def _add_stills(
    folder: Path,
    catalogue: Catalogue,
    base: Path,
    footage: list[Footage],
    problems: list[Unreadable],
    seen: dict[str, str],
) -> None:
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}", expected="a folder of images", do="mend `sources: images`")
    paths, names, digests = [], [], []
    for path in image_files.list_images(folder):
        name = _name(path, base)
        try:
            digest = catalogue.digest(path)
        except OSError as error:
            problems.append(Unreadable(name, None, error.strerror or str(error)))
            continue
        if digest in seen:
            problems.append(Unreadable(name, None, f"the same bytes as {seen[digest]}: taken once"))
            continue
        seen[digest] = name
        paths.append(path)
        names.append(name)
        digests.append(digest)
    if paths:
        footage.append(Stills(paths, names, digests, [_name(path, folder) for path in paths]))
    else:
        problems.append(Unreadable(_name(folder, base), None, "no image in this folder"))


def _videos(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in video_files.SUFFIXES and p.is_file())
        if found:
            return found
        raise SourceError(
            f"no video in {path}", expected=f"files ending in {', '.join(sorted(video_files.SUFFIXES))}"
        )
    if not path.exists():
        raise SourceError(f"no file {path}", expected="a video file or a folder", do="mend `sources: video`")
    return [path]


def _name(path: Path, base: Path) -> str:
    try:
        name = path.relative_to(base).as_posix()
    except ValueError:
        name = path.as_posix()
    # Tables hold UTF-8; what a file's name has of other bytes is shown as U+FFFD.
    return os.fsencode(name).decode(errors="replace")
