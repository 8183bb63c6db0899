"""Suggesting classes for footage that has no templates: crops that look alike, in folders to be named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from labelmill.annotators.clustering import cluster
from labelmill.annotators.similarity import unit_rows
from labelmill.annotators.types import Embeddings
from labelmill.datasets.report.write import Group
from labelmill.datasets.shards import embeddings_of
from labelmill.datasets.workspace import Workspace
from labelmill.files import disk_errors, write_bytes

PREFIX = "unnamed-"

_MOST_GROUPS = 8
_SAMPLE = 1500  # crops that groups are found on; all others join the nearest
_CROPS = 12  # in a group's folder
_LEAST_SHARE = 0.02  # of all crops, below which a group is no suggestion


def suggest_groups(workspace: Workspace, folder: Path) -> list[Group]:
    """Group the crops of a run by likeness, and put some of each group where template folders go.

    Folders from an earlier suggestion that still have their made-up names are replaced; others are left
    alone.

    Args:
        workspace: Of a finished run.
        folder: Where `unnamed-1`, `unnamed-2` … are made, the largest group first.

    Returns:
        The groups; none where the run found no regions.

    Raises:
        WorkspaceError: The folder cannot be written.
    """
    table = pq.read_table(workspace.table("regions"), columns=["region_id", "crop_digest"])
    place = {name: row for row, name in enumerate(table["region_id"].to_pylist())}
    crops = table["crop_digest"].to_pylist()
    _sweep(folder)
    if not place:
        return []
    count = table.num_rows
    wanted = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).round().astype(np.int64))
    chosen = np.zeros(count, dtype=bool)
    chosen[wanted] = True
    sample: dict[int, npt.NDArray[np.float32]] = {}
    for rows, vectors in _embedded(workspace, place):
        sample.update((int(row), vector) for row, vector in zip(rows, vectors, strict=True) if chosen[row])
    order = sorted(sample)
    if not order:
        return []
    _, centres = cluster(np.stack([sample[row] for row in order]), _MOST_GROUPS)

    group = np.full(count, -1, dtype=np.int64)
    nearness = np.zeros(count, dtype=np.float32)
    for rows, vectors in _embedded(workspace, place):
        similarity = vectors @ centres.T
        group[rows], nearness[rows] = similarity.argmax(axis=1), similarity.max(axis=1)
    totals = np.bincount(group[group >= 0], minlength=len(centres))
    ranked = [n for n in np.argsort(-totals, kind="stable").tolist() if totals[n] >= _LEAST_SHARE * count]
    groups = []
    with disk_errors(folder):
        for number, found in enumerate(ranked, start=1):
            rows = _typical(np.flatnonzero(group == found), nearness)
            name = f"{PREFIX}{number}"
            paths = [
                _copy(workspace, crops[row], folder / name / f"{place:02d}.jpg")
                for place, row in enumerate(rows.tolist(), start=1)
            ]
            groups.append(Group(name, int(totals[found]), tuple(path for path in paths if path)))
    return groups


def _embedded(
    workspace: Workspace, place: dict[str, int]
) -> Iterator[tuple[npt.NDArray[np.int64], Embeddings]]:
    """Rows of the table of regions with their unit embeddings, a shard at a time, the newest first.

    Shards of earlier runs with another encoder are told by their length and left out.
    """
    files = sorted(
        (workspace.shards / "encode").glob("*.parquet"), key=lambda path: (-path.stat().st_mtime_ns, path)
    )
    seen: set[str] = set()
    dim = 0
    for path in files:
        table = pq.read_table(path, columns=["region_id", "embedding"])
        names = table["region_id"].to_pylist()
        fresh = [n for n, name in enumerate(names) if name in place and name not in seen]
        length = table.schema.field("embedding").type.list_size
        if not fresh or length != (dim := dim or length):
            continue
        seen.update(names[n] for n in fresh)
        rows = np.array([place[names[n]] for n in fresh], dtype=np.int64)
        yield rows, unit_rows(embeddings_of(table.take(fresh)))


def _typical(rows: npt.NDArray[np.int64], nearness: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Some rows of a group from its nearer half, spread evenly over time."""
    near = rows[nearness[rows] >= np.median(nearness[rows])]
    return near[np.unique(np.linspace(0, len(near) - 1, min(len(near), _CROPS)).round().astype(np.int64))]


def _copy(workspace: Workspace, digest: str, target: Path) -> Path | None:
    try:
        data = workspace.media.path(digest).read_bytes()
    except FileNotFoundError:
        return None
    write_bytes(target, data)
    return target


def _sweep(folder: Path) -> None:
    with disk_errors(folder):
        for old in folder.glob(f"{PREFIX}*/[0-9][0-9].jpg"):
            old.unlink()
        for old in folder.glob(f"{PREFIX}*"):
            if old.is_dir() and not any(old.iterdir()):
                old.rmdir()
