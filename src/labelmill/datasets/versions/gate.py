"""The gate before every version: no split may leak into another."""

from __future__ import annotations

import csv
import html
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmill.datasets.media import MediaStore
from labelmill.datasets.versions.similar import near_pairs
from labelmill.datasets.versions.splits import Crops, neighbours, sources
from labelmill.datasets.versions.stills import Stills, bits_of, cosine_of
from labelmill.datasets.versions.tables import ASIDE
from labelmill.errors import LabelmillError, VersionError
from labelmill.files import write_bytes

_SHOWN = 200
"""Pairs on the page for people; all are counted."""


_MEASURES = {
    "near-duplicate": "cosine {:.3f}",
    "same picture": "{:.0f} of 256 bits differ",
    "neighbours": "{:.2f} s apart",
}


@dataclass(frozen=True)
class Place:
    """One side of a leak.

    Attributes:
        source: The footage.
        frame_index: The frame.
        split: Where it is.
        picture: Digest of the crop, or of the frame, in media/.
    """

    source: str
    frame_index: int
    split: str
    picture: str

    def __str__(self) -> str:
        return f"{self.source} frame {self.frame_index} ({self.split})"


@dataclass(frozen=True)
class Leak:
    """Two pictures that must not be in two splits.

    Attributes:
        kind: "near-duplicate" of crops, "same picture" of stills, or "neighbours".
        left: One.
        right: The other.
        measure: Cosine of near-duplicates; differing bits of stills; seconds between neighbours.
    """

    kind: str
    left: Place
    right: Place
    measure: float

    def __str__(self) -> str:
        return f"{self.left} and {self.right}, {_MEASURES[self.kind].format(self.measure)}"


@dataclass(frozen=True)
class Leaks:
    """What the gate found.

    Attributes:
        near_duplicates: Pairs of crops of a class, alike, in two splits.
        pictures: Pairs of stills that are nearly the same picture, in two splits.
        neighbours: Pairs of frames of a source, within the guard, in two splits.
        worst: The most similar and the nearest of them, at most 200.
    """

    near_duplicates: int
    pictures: int
    neighbours: int
    worst: list[Leak]

    def __bool__(self) -> bool:
        return bool(self.near_duplicates or self.pictures or self.neighbours)

    @property
    def summary(self) -> str:
        """How many pairs of which kind."""
        return (
            f"{self.near_duplicates} near-duplicate crops, {self.pictures} of the same picture, "
            f"{self.neighbours} neighbouring frames"
        )


def find_leaks(
    frames: pa.Table,
    regions: pa.Table,
    crops: Crops,
    *,
    threshold: float | None,
    guard_s: float,
    stills: Stills | None = None,
    bits: int | None = None,
) -> Leaks:
    """Look for what is in two splits and should not be.

    Args:
        frames: Columns `tables.FRAMES`, with their splits.
        regions: Columns `tables.REGIONS`.
        crops: The crops of a class.
        threshold: Cosine of near-duplicates; None looks for none.
        guard_s: Frames of a source nearer than this are neighbours.
        stills: The still pictures among the frames.
        bits: Of the hashes of two stills that may differ and they are the same picture; None looks for none.
    """
    names = frames["split"].combine_chunks().dictionary_encode()
    split = np.asarray(names.indices.to_numpy(), dtype=np.int64)
    words = names.dictionary.to_pylist()
    used = split != (words.index(ASIDE) if ASIDE in words else -1)
    close, measures = _neighbours(frames, split, used, guard_s)
    alike: list[tuple[float, int, int]] = []
    found = 0
    if threshold is not None:
        for left, right, cosine in near_pairs(crops.vectors, threshold):
            a, b = crops.frame[left], crops.frame[right]
            apart = (split[a] != split[b]) & used[a] & used[b]
            found += int(np.count_nonzero(apart))
            alike += zip(cosine[apart].tolist(), left[apart].tolist(), right[apart].tolist(), strict=True)
            alike = sorted(alike, reverse=True)[:_SHOWN]

    same = _same_pictures(stills, bits, split, used) if stills is not None and bits is not None else []

    def place(row: int, picture: str) -> Place:
        at = {name: frames[name][row].as_py() for name in ("source", "frame_index", "split")}
        return Place(**at, picture=picture)

    def crop(row: int) -> Place:
        return place(int(crops.frame[row]), regions["crop_digest"][int(crops.region[row])].as_py())

    worst = [Leak("near-duplicate", crop(left), crop(right), cosine) for cosine, left, right in alike]
    media = frames["media_digest"]
    for differing, one, other in same[:_SHOWN]:
        here, there = (place(row, media[row].as_py()) for row in (one, other))
        worst.append(Leak("same picture", here, there, differing))
    order = np.argsort(measures, kind="stable")[:_SHOWN]
    for a, b in close[order].tolist():
        gap = abs(frames["timestamp_s"][b].as_py() - frames["timestamp_s"][a].as_py())
        worst.append(Leak("neighbours", place(a, media[a].as_py()), place(b, media[b].as_py()), gap))
    return Leaks(found, len(same), len(close), worst)


def _same_pictures(
    stills: Stills, bits: int, split: npt.NDArray[np.int64], used: npt.NDArray[np.bool_]
) -> list[tuple[int, int, int]]:
    """Differing bits, and the two frames, of every pair of stills in two splits; the most alike first."""
    nearest: dict[tuple[int, int], int] = {}
    for left, right, cosine in near_pairs(stills.vectors, cosine_of(bits)):
        a, b = np.sort(np.stack([stills.frame[left], stills.frame[right]]), axis=0)
        apart = (split[a] != split[b]) & used[a] & used[b]
        for one, other, near in zip(
            a[apart].tolist(), b[apart].tolist(), cosine[apart].tolist(), strict=True
        ):
            nearest[one, other] = min(bits_of(near), nearest.get((one, other), bits))
    return sorted((differing, one, other) for (one, other), differing in nearest.items())


def _neighbours(
    frames: pa.Table, split: npt.NDArray[np.int64], used: npt.NDArray[np.bool_], guard_s: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    source, seconds = sources(frames)
    order = np.lexsort((seconds, source))
    order = order[used[order]]
    left, right = order[:-1], order[1:]
    meet = neighbours(source, seconds, split, left, right, guard_s)
    pairs = np.stack([left[meet], right[meet]], axis=1)
    return pairs, np.abs(seconds[pairs[:, 1]] - seconds[pairs[:, 0]])


def refuse(leaks: Leaks, media: MediaStore, page: Path) -> LabelmillError:
    """Write the pairs as a page with pictures, and say in one line why nothing is published.

    Args:
        leaks: What was found.
        media: Where the pictures are.
        page: Where the page goes.
    """
    write_bytes(page, leaks_page(leaks, media, page).encode())
    first = "; ".join(str(leak) for leak in leaks.worst[:2])
    return VersionError(
        "the splits leak, nothing is published",
        got=f"pairs in two splits: {leaks.summary} ({first})",
        expected="none",
        do=f"see them in {page}; leave dataset.assignments out to let labelmill split, or mend it",
    )


def leaks_page(leaks: Leaks, media: MediaStore, page: Path) -> str:
    """The pairs side by side, as HTML for a file at `page`."""
    rows = []
    for leak in leaks.worst:
        cells = ""
        for side in (leak.left, leak.right):
            link = html.escape(_link(media.path(side.picture), page))
            cells += f'<td><img src="{link}"><br>{html.escape(str(side))}</td>'
        rows.append(f"<tr>{cells}<td>{leak.kind}<br>{_MEASURES[leak.kind].format(leak.measure)}</td></tr>")
    title = f"Pairs in two splits: {leaks.summary}"
    return (
        "<!doctype html><meta charset=utf-8><title>Leaking splits</title>"
        "<style>body{font:14px sans-serif;margin:2em}img{max-height:200px;max-width:360px}"
        "td{padding:8px;border-bottom:1px solid #ddd;vertical-align:top}</style>"
        f"<h1>{title}</h1><table>{''.join(rows)}</table>\n"
    )


def _link(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()


def read_assignments(path: Path, frames: pa.Table, names: list[str]) -> list[str]:
    """Read given splits.

    Args:
        path: CSV with columns source and split, and frame_index where a source has several frames.
        frames: Columns `tables.FRAMES`.
        names: The splits that the line knows.

    Returns:
        Split of each frame; frames that the file does not name are set aside.

    Raises:
        VersionError: The file cannot be used.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VersionError(f"cannot read {path}", got=str(error), expected="a CSV file") from error
    if not rows or not {"source", "split"} <= set(rows[0]):
        raise VersionError(f"{path} gives no splits", expected="columns source, frame_index, split")
    given: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["split"] not in (*names, ASIDE):
            known = ", ".join([*names, ASIDE])
            raise VersionError(f"{path} names an unknown split", got=row["split"], expected=known)
        given[row["source"], (row.get("frame_index") or "").strip()] = row["split"]
    keys = zip(frames["source"].to_pylist(), frames["frame_index"].to_pylist(), strict=True)
    splits = [given.get((source, str(index)), given.get((source, ""), "")) for source, index in keys]
    if not any(splits):
        raise VersionError(
            f"{path} names none of the frames",
            got=rows[0]["source"],
            expected=f"sources as the tables write them, like {frames['source'][0].as_py()}",
        )
    return [split or ASIDE for split in splits]


def as_json(leaks: Leaks) -> dict[str, object]:
    """The finding as one JSON value."""
    return asdict(leaks)
