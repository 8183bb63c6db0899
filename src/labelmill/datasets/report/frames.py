"""A few frames of the footage with their boxes, where the footage still lies where it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelmill.datasets.report.data import ROUTES, Regions, read_rows
from labelmill.datasets.report.gallery import jpeg_uri
from labelmill.datasets.sources.video import index_video, read_video
from labelmill.datasets.tables import NG
from labelmill.datasets.workspace import Workspace
from labelmill.errors import SourceError
from labelmill.images import SUFFIXES, Image, read_image

_WIDTH_PX = 640
_LARGEST_BYTES = 4 << 30  # of a video that is read through for its index, a few seconds a GiB
_APART_FRAMES = 30  # between two shown frames of a source, where there is a choice


@dataclass(frozen=True)
class Box:
    """A region on a shown frame.

    Attributes:
        xywh: Left, top, width and height in percent of the frame.
        label: Its label.
        route: Where it went.
        similarity: To the nearest class, as text; empty without templates.
    """

    xywh: tuple[float, float, float, float]
    label: str
    route: str
    similarity: str


@dataclass(frozen=True)
class Picture:
    """A frame with its boxes.

    Attributes:
        image: Data URI.
        width_px: Of the embedded picture.
        height_px: Likewise.
        where: Source, frame and time.
        boxes: Every region of the frame.
    """

    image: str
    width_px: int
    height_px: int
    where: str
    boxes: tuple[Box, ...]


def choose_frames(regions: Regions, most: int) -> list[tuple[int, int]]:
    """Choose frames that show what happened: the surest of each class, of review and of NG, beside a class.

    Returns:
        Index of the source and frame index of each, at most `most`, in the order of the footage.
    """
    accepted, review, ng = (regions.route == code for code in range(len(ROUTES)))
    keys = regions.source.astype(np.int64) << 40 | regions.frame_index
    with_accepted = np.isin(keys, keys[accepted])
    wishes = [
        *(
            accepted & (regions.label == n) & np.isin(keys, keys[ng])
            for n, name in enumerate(regions.classes)
            if name != NG
        ),
        review & ~with_accepted,
        *(accepted & (regions.label == n) for n, name in enumerate(regions.classes) if name != NG),
        review,
        ng,
    ]
    free = np.ones(len(keys), dtype=bool)
    chosen: list[int] = []
    for wish in wishes:
        rows = np.flatnonzero(wish & free)
        if len(rows) and len(chosen) < most:
            key = int(keys[rows[np.nan_to_num(regions.similarity[rows], nan=0.0).argmax()]])
            chosen.append(key)
            free &= np.abs(keys - key) >= _APART_FRAMES
    return [(key >> 40, key & ((1 << 40) - 1)) for key in sorted(chosen)]


def show_frames(workspace: Workspace, regions: Regions, base: Path | None, *, most: int = 3) -> list[Picture]:
    """Read the chosen frames from the footage; those that cannot be read are left out.

    Args:
        workspace: Of the run.
        regions: Of the run.
        base: Folder that the names of sources are relative to; None: the current one.
        most: Largest number of frames.
    """
    pictures = []
    for source, index in choose_frames(regions, most):
        name = regions.sources[source]
        image = _read((base or Path()) / name, index)
        if image is None:
            continue
        rows = np.flatnonzero((regions.source == source) & (regions.frame_index == index))
        pictures.append(_picture(workspace, image, rows.astype(np.int64)))
    return pictures


def _read(path: Path, index: int) -> Image | None:
    if not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
        return None
    if path.suffix.lower() in SUFFIXES:
        still = read_image(path)
        return None if isinstance(still, str) else still
    try:
        video = index_video(path)
    except SourceError:
        return None
    if index >= len(video.pts):
        return None
    pts = int(video.pts[index])
    image = next(read_video(path, [pts], video.starts(pts)))
    return None if isinstance(image, str) else image


def _picture(workspace: Workspace, image: Image, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Picture:
    import cv2

    found = read_rows(
        workspace, rows, ["source", "frame_index", "timestamp_s", "xyxy", "label", "route", "similarity"]
    )
    height, width = image.shape[:2]
    scale = min(1.0, _WIDTH_PX / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    boxes = []
    for row in found:
        x1, y1, x2, y2 = row["xyxy"]
        xywh = (100 * x1 / width, 100 * y1 / height, 100 * (x2 - x1) / width, 100 * (y2 - y1) / height)
        similarity = row["similarity"]
        sure = f"{similarity:.2f}" if np.isfinite(similarity) else ""
        boxes.append(Box(xywh, row["label"] if sure else "?", row["route"], sure))
    first = found[0]
    return Picture(
        image=jpeg_uri(np.ascontiguousarray(small[..., ::-1]), quality=85),
        width_px=size[0],
        height_px=size[1],
        where=f"{first['source']}, frame {first['frame_index']}, {first['timestamp_s']:.2f} s",
        boxes=tuple(boxes),
    )
