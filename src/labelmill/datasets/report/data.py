"""What the report is about, read from a workspace's tables: only the columns that it needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.datasets.tables import NG, Route, Status
from labelmill.datasets.workspace import Workspace
from labelmill.errors import WorkspaceError

ROUTES = tuple(route.value for route in Route)

Numbers = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The regions of a run, in the order of their table; every array has shape (n,).

    Attributes:
        classes: Every label that occurs, sorted, NG last.
        label: Index into `classes`.
        nearest: Index into `classes` of the class of the highest similarity; NG without templates.
        route: Index into `ROUTES`.
        similarity: To the nearest class; NaN without templates.
        margin: To the runner-up; NaN without one.
        source: Index into `sources`.
        sources: Names of the sources, in the order of the table.
        frame_index: Of the frame in its source.
        timestamp_s: Of the frame.
    """

    classes: tuple[str, ...]
    label: Codes
    nearest: Codes
    route: Codes
    similarity: Numbers
    margin: Numbers
    source: Codes
    sources: tuple[str, ...]
    frame_index: npt.NDArray[np.int64]
    timestamp_s: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    def counts(self) -> dict[str, dict[str, int]]:
        """Regions by class and route."""
        flat = self.label.astype(np.int64) * len(ROUTES) + self.route
        table = np.bincount(flat, minlength=len(self.classes) * len(ROUTES)).reshape(-1, len(ROUTES))
        return {
            name: {route: int(n) for route, n in zip(ROUTES, row, strict=True)}
            for name, row in zip(self.classes, table, strict=True)
        }


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """What is said of the frames of a run.

    Attributes:
        total: Sampled frames.
        by_status: How many were kept, repeats or unreadable.
        ng_frames: Kept frames in which nothing was proposed.
        span_s: First and last time of each source, by its name.
    """

    total: int
    by_status: dict[str, int]
    ng_frames: int
    span_s: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class RunTables:
    """Everything that the report reads of a run.

    Attributes:
        frames: Of the frames.
        regions: Of the regions.
        quarantine: Source, frame (None: all of it) and reason, of the first rows.
        quarantined: How many there are.
        summary: The engine's own words on the run; {} without.
    """

    frames: Frames
    regions: Regions
    quarantine: list[dict[str, Any]]
    quarantined: int
    summary: dict[str, Any]


def read_run(workspace: Workspace, *, quarantine_rows: int = 100) -> RunTables:
    """Read the tables of a workspace's last run.

    Raises:
        WorkspaceError: A table is absent or cannot be read.
    """
    rows = _read(workspace, "quarantine", ["source", "frame_index", "reason"])
    try:
        summary = json.loads((workspace.tables / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    return RunTables(
        frames=_frames(workspace),
        regions=_regions(workspace),
        quarantine=rows.slice(0, quarantine_rows).to_pylist(),
        quarantined=rows.num_rows,
        summary=summary if isinstance(summary, dict) else {},
    )


def _read(workspace: Workspace, name: str, columns: list[str], words: tuple[str, ...] = ()) -> pa.Table:
    """Read some columns; those in `words` as dictionaries, so that a million names cost little."""
    path = workspace.table(name)
    try:
        return pq.read_table(path, columns=columns, read_dictionary=list(words)).unify_dictionaries()
    except FileNotFoundError as error:
        raise WorkspaceError(
            f"no table {path}",
            expected="the tables of a finished run",
            do="run `labelmill annotate LINE` first, or name its --workspace",
        ) from error
    except (pa.ArrowException, KeyError, OSError) as error:
        raise WorkspaceError(
            f"{path} cannot be read", got=str(error), do="run `labelmill annotate LINE` again"
        ) from error


def _frames(workspace: Workspace) -> Frames:
    table = _read(workspace, "frames", ["source", "timestamp_s", "status", "regions"], ("source", "status"))
    counted = pc.value_counts(table["status"].cast(pa.string()))
    found = {row["values"]: row["counts"] for row in counted.to_pylist()}
    kept = pc.equal(table["status"].cast(pa.string()), Status.KEPT.value)
    spans = table.group_by("source", use_threads=False).aggregate(
        [("timestamp_s", "min"), ("timestamp_s", "max")]
    )
    return Frames(
        total=table.num_rows,
        by_status={status.value: found.get(status.value, 0) for status in Status},
        ng_frames=pc.sum(pc.and_(kept, pc.equal(table["regions"], 0))).as_py() or 0,
        span_s={
            row["source"]: (row["timestamp_s_min"] or 0.0, row["timestamp_s_max"] or 0.0)
            for row in spans.to_pylist()
        },
    )


def _regions(workspace: Workspace) -> Regions:
    words = ("label", "nearest", "route", "source")
    numbers = ["similarity", "margin", "frame_index", "timestamp_s"]
    table = _read(workspace, "regions", [*words, *numbers], words)
    names = {name: _codes(table[name]) for name in words}
    known = set(names["label"][0]) | set(names["nearest"][0])
    classes = (*sorted(known - {NG, ""}), NG)
    words_nearest, codes_nearest = names["nearest"]  # "" where the line has no templates yet
    names["nearest"] = ([word or NG for word in words_nearest], codes_nearest)
    return Regions(
        classes=classes,
        label=_recode(names["label"], classes),
        nearest=_recode(names["nearest"], classes),
        route=_recode(names["route"], ROUTES),
        similarity=table["similarity"].to_numpy().astype(np.float32),
        margin=table["margin"].to_numpy().astype(np.float32),
        source=names["source"][1],
        sources=tuple(names["source"][0]),
        frame_index=table["frame_index"].to_numpy(),
        timestamp_s=table["timestamp_s"].to_numpy(),
    )


def _codes(column: pa.ChunkedArray) -> tuple[list[str], Codes]:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if column.num_chunks == 0:
        return [], np.empty(0, np.int32)
    words = column.chunk(0).dictionary.to_pylist()
    parts = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return words, np.concatenate(parts).astype(np.int32)


def _recode(coded: tuple[list[str], Codes], order: tuple[str, ...]) -> Codes:
    words, codes = coded
    place = {word: number for number, word in enumerate(order)}
    unknown = [word for word in words if word not in place]
    if unknown:
        raise WorkspaceError(
            "the table of regions is damaged", got=repr(unknown[0]), expected=", ".join(order)
        )
    table = np.array([place[word] for word in words], dtype=np.int32)
    return table[codes] if len(words) else codes


def read_rows(workspace: Workspace, rows: npt.NDArray[np.int64], columns: list[str]) -> list[dict[str, Any]]:
    """Read some rows of the table of regions, in the given order, a row group at a time."""
    found: dict[int, dict[str, Any]] = {}
    wanted = np.unique(rows)
    path = workspace.table("regions")
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            here = wanted[(wanted >= start) & (wanted < start + size)]
            if len(here):
                table = file.read_row_group(group, columns=columns).take(pa.array(here - start))
                found |= dict(zip(here.tolist(), table.to_pylist(), strict=True))
            start += size
    return [found[row] for row in rows.tolist()]
