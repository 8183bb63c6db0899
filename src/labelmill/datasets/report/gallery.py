"""Which crops the report shows, and their thumbnails."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelmill.datasets.report.data import ROUTES, Regions, read_rows
from labelmill.datasets.tables import NG, Route
from labelmill.datasets.workspace import Workspace

THUMBNAIL_PX = 148
"""Longer side of a thumbnail; shown at half of it on dense screens."""

_MOST_CROPS = 480  # in all galleries: about 3 MB
_APART_FRAMES = 4  # between two crops of one gallery where there is a choice

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tile:
    """A crop in a gallery.

    Attributes:
        image: Data URI of its thumbnail; empty when the crop is missing.
        width_px: Of the thumbnail.
        height_px: Likewise.
        label: Its label.
        nearest: The class of the highest similarity.
        similarity: To it, as text; empty without templates.
        margin: To the runner-up, as text; empty without one.
        reason: Why it went where it went.
        where: Source, frame and time.
    """

    image: str
    width_px: int
    height_px: int
    label: str
    nearest: str
    similarity: str
    margin: str
    reason: str
    where: str


@dataclass(frozen=True)
class Gallery:
    """Some crops of one kind.

    Attributes:
        name: Class name, or what the group is.
        route: One of `ROUTES`.
        total: How many such regions there are.
        order: How the shown ones were chosen, in words.
        tiles: The shown ones.
    """

    name: str
    route: str
    total: int
    order: str
    tiles: tuple[Tile, ...]


def choose_galleries(regions: Regions, lambda_: float | None, most: int) -> list[tuple[str, str, str, Rows]]:
    """Choose the rows to show.

    Args:
        regions: All of them.
        lambda_: λ, for the order of the review gallery; None: smallest margin first.
        most: Largest number of crops in a gallery.

    Returns:
        Name, route, order in words, and rows (all of the group first chosen ones first), for accepted
        crops of each class, review, and NG.
    """
    chosen: list[tuple[str, str, str, Rows]] = []
    present = [n for n, name in enumerate(regions.classes) if name != NG]
    most = max(6, min(most, _MOST_CROPS // (len(present) + 2)))
    code = {route: number for number, route in enumerate(ROUTES)}
    for number in present:
        rows = np.flatnonzero((regions.label == number) & (regions.route == code[Route.ACCEPTED.value]))
        chosen.append(
            (regions.classes[number], Route.ACCEPTED.value, "spread evenly over time", _evenly(rows, most))
        )
    review = np.flatnonzero(regions.route == code[Route.REVIEW.value])
    if not np.isfinite(regions.similarity[review]).any():
        order, shown = "spread evenly over time", _evenly(review, most)
    else:
        doubt, order = np.nan_to_num(regions.margin[review], nan=np.inf), "smallest margin first"
        if lambda_ is not None:
            doubt, order = np.abs(regions.similarity[review] - lambda_), "closest to λ first"
        shown = _apart(review[np.lexsort((review, doubt))], regions, most)
    chosen.append(("To review", Route.REVIEW.value, order, shown))
    ng = np.flatnonzero(regions.route == code[Route.NG.value])
    chosen.append(("NG", Route.NG.value, "spread evenly over time", _evenly(ng, most)))
    return chosen


def _evenly(rows: Rows, most: int) -> Rows:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _apart(ranked: Rows, regions: Regions, most: int) -> Rows:
    """The first rows, neighbours in time left out while there are others."""
    taken: list[int] = []
    skipped: list[int] = []
    for row in ranked[: 40 * most].tolist():
        near = any(
            regions.source[row] == regions.source[other]
            and abs(regions.frame_index[row] - regions.frame_index[other]) < _APART_FRAMES
            for other in taken
        )
        (skipped if near else taken).append(row)
        if len(taken) == most:
            break
    place = {row: number for number, row in enumerate(ranked.tolist())}
    shown = sorted([*taken, *skipped[: most - len(taken)]], key=place.__getitem__)
    return np.array(shown, dtype=np.int64)


def make_galleries(
    workspace: Workspace, regions: Regions, lambda_: float | None, *, most: int = 24
) -> list[Gallery]:
    """Make the galleries: accepted crops of each class, review, NG."""
    groups = choose_galleries(regions, lambda_, most)
    rows = np.concatenate([rows for _, _, _, rows in groups]) if groups else np.empty(0, np.int64)
    columns = [
        "crop_digest",
        "source",
        "frame_index",
        "timestamp_s",
        "label",
        "nearest",
        "similarity",
        "margin",
        "reason",
    ]
    found = dict(zip(rows.tolist(), read_rows(workspace, rows, columns), strict=True))
    counts = regions.counts()
    totals = {route: sum(row[route] for row in counts.values()) for route in ROUTES}
    galleries = []
    for name, route, order, group in groups:
        accepted = route == Route.ACCEPTED.value
        tiles = tuple(_tile(workspace, found[row]) for row in group.tolist())
        total = counts[name][route] if accepted else totals[route]
        galleries.append(Gallery(name, route, total, order, tiles))
    return galleries


def _tile(workspace: Workspace, row: dict[str, object]) -> Tile:
    image, width, height = thumbnail(workspace.media.path(str(row["crop_digest"])), THUMBNAIL_PX)
    similarity, margin = float(str(row["similarity"])), float(str(row["margin"]))
    return Tile(
        image=image,
        width_px=width,
        height_px=height,
        label=str(row["label"]),
        nearest=str(row["nearest"]),
        similarity="" if np.isnan(similarity) else f"{similarity:.3f}",
        margin="" if np.isnan(margin) else f"{margin:+.2f}",
        reason=str(row["reason"]),
        where=f"{row['source']}, frame {row['frame_index']}, {float(str(row['timestamp_s'])):.2f} s",
    )


def thumbnail(path: Path, side_px: int) -> tuple[str, int, int]:
    """A small JPEG of a stored crop as a data URI, with its size; empty when the file is absent or broken."""
    import cv2

    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return "", side_px, side_px
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        return "", side_px, side_px
    height, width = image.shape[:2]
    scale = min(side_px / max(height, width), 2.0)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return jpeg_uri(cv2.resize(image, size, interpolation=smooth), quality=82), *size


def jpeg_uri(bgr: npt.NDArray[np.uint8], *, quality: int) -> str:
    """A picture as a data URI."""
    import cv2

    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
