"""What changed between two versions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets.versions.content import flat_array
from labelmill.datasets.versions.store import Version

_RESCORED = ("similarity", "margin", "ng_similarity", "score", "route", "decided_by")


@dataclass(frozen=True)
class Diff:
    """What changed from an older version to a newer one. Every list is sorted.

    Attributes:
        old: `<dataset>@v<N>`.
        new: `<dataset>@v<N>`.
        frames_added: Frame ids.
        frames_removed: Frame ids.
        frames_redrawn: Frame ids whose picture is another file.
        split_changed: Frame id, old split, new split.
        regions_added: Region id, label.
        regions_removed: Region id, label.
        relabelled: Region id, old label, new label.
        moved: Region id, old box, new box; pixels.
        rescored: Region ids whose label and box stand, but not their figures, route or who decided.
        counts: Label to its number of regions before and after.
        split_counts: Split to its number of frames before and after.
    """

    old: str
    new: str
    frames_added: list[str]
    frames_removed: list[str]
    frames_redrawn: list[str]
    split_changed: list[tuple[str, str, str]]
    regions_added: list[tuple[str, str]]
    regions_removed: list[tuple[str, str]]
    relabelled: list[tuple[str, str, str]]
    moved: list[tuple[str, list[float], list[float]]]
    rescored: list[str]
    counts: dict[str, tuple[int, int]]
    split_counts: dict[str, tuple[int, int]]

    def __bool__(self) -> bool:
        return any(self.summary().values())

    def touched(self) -> set[str]:
        """Regions that were added, removed, relabelled or moved."""
        changes = (self.regions_added, self.regions_removed, self.relabelled, self.moved)
        return {str(change[0]) for part in changes for change in part}

    def summary(self) -> dict[str, int]:
        """How many of each."""
        return {
            "frames_added": len(self.frames_added),
            "frames_removed": len(self.frames_removed),
            "frames_redrawn": len(self.frames_redrawn),
            "split_changed": len(self.split_changed),
            "regions_added": len(self.regions_added),
            "regions_removed": len(self.regions_removed),
            "relabelled": len(self.relabelled),
            "moved": len(self.moved),
            "rescored": len(self.rescored),
        }

    def to_json(self) -> dict[str, Any]:
        """As one JSON value: counts first, then every change by name."""
        lists: dict[str, Any] = {
            "frames_added": self.frames_added,
            "frames_removed": self.frames_removed,
            "frames_redrawn": self.frames_redrawn,
            "split_changed": _named(self.split_changed, "frame_id", "old", "new"),
            "regions_added": _named(self.regions_added, "region_id", "label"),
            "regions_removed": _named(self.regions_removed, "region_id", "label"),
            "relabelled": _named(self.relabelled, "region_id", "old", "new"),
            "moved": _named(self.moved, "region_id", "old_xyxy", "new_xyxy"),
            "rescored": self.rescored,
        }
        return {
            "old": self.old,
            "new": self.new,
            "summary": self.summary(),
            "classes": {name: {"old": old, "new": new} for name, (old, new) in self.counts.items()},
            "splits": {name: {"old": old, "new": new} for name, (old, new) in self.split_counts.items()},
            **lists,
        }


def diff(old: Version, new: Version) -> Diff:
    """Compare two versions, row by row."""
    return diff_tables(
        (old.frames, old.regions), (new.frames, new.regions), old.manifest.name, new.manifest.name
    )


def diff_tables(
    old: tuple[pa.Table, pa.Table], new: tuple[pa.Table, pa.Table], old_name: str = "", new_name: str = ""
) -> Diff:
    """Compare the frames and regions of two versions.

    Args:
        old: Tables of `tables.FRAMES` and `tables.REGIONS`.
        new: Likewise.
        old_name: For the result.
        new_name: For the result.
    """
    frames = _Match(old[0], new[0], "frame_id")
    regions = _Match(old[1], new[1], "region_id")
    boxes = [_boxes(part["xyxy"]) for part in (regions.old, regions.new)]
    label, moved = regions.differs("label"), np.any(boxes[0] != boxes[1], axis=1)
    figures = np.zeros(len(label), dtype=bool)
    for name in _RESCORED:
        figures |= regions.differs(name)
    figures &= ~label & ~moved
    resplit = frames.differs("split")
    return Diff(
        old=old_name,
        new=new_name,
        frames_added=sorted(frames.added["frame_id"].to_pylist()),
        frames_removed=sorted(frames.removed["frame_id"].to_pylist()),
        frames_redrawn=sorted(frames.ids(frames.differs("media_digest"))),
        split_changed=_triples(frames, resplit, "split"),
        regions_added=_pairs(regions.added),
        regions_removed=_pairs(regions.removed),
        relabelled=_triples(regions, label, "label"),
        moved=sorted(
            zip(regions.ids(moved), boxes[0][moved].tolist(), boxes[1][moved].tolist(), strict=True)
        ),
        rescored=sorted(regions.ids(figures)),
        counts=_before_after(old[1]["label"], new[1]["label"]),
        split_counts=_before_after(old[0]["split"], new[0]["split"]),
    )


class _Match:
    """Rows of two tables with the same key beside each other."""

    def __init__(self, old: pa.Table, new: pa.Table, key: str) -> None:
        place = pc.index_in(old[key], value_set=flat_array(new[key]))
        common = place.is_valid()
        self.key = key
        self.old = old.filter(common)
        self.new = new.take(flat_array(place).drop_null())
        self.removed = old.filter(pc.invert(common))
        self.added = new.filter(pc.invert(pc.is_in(new[key], value_set=flat_array(old[key]))))

    def differs(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a column changed; null is a value like others."""
        old, new = flat_array(self.old[name]), flat_array(self.new[name])
        unequal = pc.fill_null(pc.not_equal(old, new), False)
        return np.asarray(pc.or_(unequal, pc.xor(old.is_null(), new.is_null())), dtype=bool)

    def ids(self, where: npt.NDArray[np.bool_]) -> list[str]:
        """Keys of some rows."""
        return list(self.old[self.key].filter(pa.array(where)).to_pylist())


def _triples(match: _Match, where: npt.NDArray[np.bool_], name: str) -> list[tuple[str, str, str]]:
    chosen = pa.array(where)
    old, new = match.old[name].filter(chosen), match.new[name].filter(chosen)
    return sorted(zip(match.ids(where), old.to_pylist(), new.to_pylist(), strict=True))


def _pairs(regions: pa.Table) -> list[tuple[str, str]]:
    return sorted(zip(regions["region_id"].to_pylist(), regions["label"].to_pylist(), strict=True))


def _boxes(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    return np.asarray(flat_array(column).flatten(), dtype=np.float32).reshape(-1, 4)


def _before_after(old: pa.ChunkedArray, new: pa.ChunkedArray) -> dict[str, tuple[int, int]]:
    before, after = Counter(old.to_pylist()), Counter(new.to_pylist())
    return {name: (before[name], after[name]) for name in sorted({*before, *after})}


def _named(rows: list[Any], *names: str) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def as_text(changes: Diff, shown: int = 10) -> str:
    """For people: numbers, then the first changes of each kind."""
    rows = [f"{changes.old} → {changes.new}"]
    if not changes:
        return f"{rows[0]}: no difference"
    words = {
        "frames_added": "frames added",
        "frames_removed": "frames removed",
        "frames_redrawn": "frames with another picture",
        "split_changed": "frames in another split",
        "regions_added": "regions added",
        "regions_removed": "regions removed",
        "relabelled": "regions relabelled",
        "moved": "boxes moved",
        "rescored": "regions with other figures only",
    }
    rows += [f"  {number:>9,} {words[name]}" for name, number in changes.summary().items() if number]
    for title, table in (("label", changes.counts), ("split (frames)", changes.split_counts)):
        rows += ["", f"  {title:<24} {'old':>9} {'new':>9} {'change':>9}"]
        rows += [
            f"  {name[:24]:<24} {old:>9,} {new:>9,} {new - old:>+9,}" for name, (old, new) in table.items()
        ]
    kinds = Counter((old, new) for _, old, new in changes.relabelled)
    if kinds:
        rows += ["", "  relabelled"]
        rows += [f"  {number:>9,} {old} → {new}" for (old, new), number in kinds.most_common(shown)]
        rows += [f"            {name}: {old} → {new}" for name, old, new in changes.relabelled[:shown]]
    if changes.moved:
        rows += ["", "  moved"]
        rows += [f"            {name}: {_box(old)} → {_box(new)}" for name, old, new in changes.moved[:shown]]
    if changes.split_changed:
        rows += ["", "  splits"]
        rows += [f"            {name}: {old} → {new}" for name, old, new in changes.split_changed[:shown]]
    return "\n".join(rows)


def _box(xyxy: list[float]) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in xyxy) + ")"
