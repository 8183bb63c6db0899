"""What goes into a version: kept frames, and regions with the label that stands."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets.tables import Route, Status
from labelmill.datasets.versions.tables import (
    BOX_OR_NULL,
    DECISIONS,
    FRAMES,
    NOT_SURE,
    REGIONS,
    DecidedBy,
    frame_id,
)
from labelmill.errors import VersionError

_DECIDED = ("decision_id", "annotator", "decided_at", "seconds", "agreement")


def standing_decisions(decisions: pa.Table | None) -> pa.Table:
    """The latest decision about each region that is neither superseded nor "not sure".

    Returns:
        Columns `DECISIONS`, at most one row a region.
    """
    if decisions is None or not decisions.num_rows:
        return DECISIONS.empty_table()
    valid = pc.and_(
        pc.invert(pc.fill_null(decisions["superseded"], False)), pc.not_equal(decisions["label"], NOT_SURE)
    )
    table = decisions.select(DECISIONS.names).cast(DECISIONS).filter(valid)
    table = table.sort_by(
        [("region_id", "ascending"), ("decided_at", "descending"), ("decision_id", "ascending")]
    )
    ids = table["region_id"].to_numpy(zero_copy_only=False)
    first = np.ones(len(ids), dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    return table.filter(pa.array(first))


def version_tables(
    frames: pa.Table, regions: pa.Table, decisions: pa.Table | None = None
) -> tuple[pa.Table, pa.Table]:
    """Join a run's tables with what people decided.

    A region is in the version when a person decided it, or the machine accepted it or called it NG. A
    region that waits for a person is left out and counted on its frame.

    Args:
        frames: Columns `datasets.tables.FRAMES`.
        regions: Columns `datasets.tables.REGIONS`.
        decisions: Columns `DECISIONS`, if anything was reviewed.

    Returns:
        Tables of `tables.FRAMES` (media digest, split and group still empty) and `tables.REGIONS`.

    Raises:
        VersionError: No frame was kept, or a decision names a region that the run does not have.
    """
    kept = frames.filter(pc.equal(frames["status"], Status.KEPT.value))
    if not kept.num_rows:
        raise VersionError(
            "nothing to publish",
            got=f"{frames.num_rows} frames, none kept",
            do="run labelmill annotate first, and read the quarantine table",
        )
    kept = kept.sort_by([(name, "ascending") for name in ("source", "source_digest", "frame_index")])
    keys = list(zip(kept["source_digest"].to_pylist(), kept["frame_index"].to_pylist(), strict=True))
    ids = pa.array([frame_id(digest, index) for digest, index in keys], pa.string())
    ours, pending = _regions(regions, standing_decisions(decisions), keys, ids)
    empty = pa.array([""] * len(ids), pa.string())
    columns = {name: kept[name] for name in FRAMES.names if name in kept.schema.names}
    columns |= {"frame_id": ids, "media_digest": empty, "split": empty, "group": empty}
    columns["pending"] = pa.array(pending, pa.int32())
    return pa.table([columns[name] for name in FRAMES.names], schema=FRAMES), ours


def _regions(
    regions: pa.Table, standing: pa.Table, keys: list[tuple[str, int]], ids: pa.Array
) -> tuple[pa.Table, np.ndarray]:
    row_of = {key: row for row, key in enumerate(keys)}
    theirs = zip(regions["source_digest"].to_pylist(), regions["frame_index"].to_pylist(), strict=True)
    rows = np.array([row_of.get(key, -1) for key in theirs], dtype=np.int64)
    decided = np.asarray(
        pc.is_in(regions["region_id"], value_set=flat_array(standing["region_id"])).to_numpy(
            zero_copy_only=False
        ),
        dtype=bool,
    )
    missing = set(standing["region_id"].to_pylist()) - set(
        pc.filter(regions["region_id"], pa.array(decided)).to_pylist()
    )
    if missing:
        raise VersionError(
            f"{len(missing)} reviewed regions are not in this run",
            got=", ".join(sorted(missing)[:3]),
            expected="decisions about regions of the run's tables",
            do="run labelmill annotate with the settings that the review was made with, or review again",
        )
    waits = np.asarray(
        pc.equal(regions["route"], Route.REVIEW.value).to_numpy(zero_copy_only=False), dtype=bool
    )
    inside = rows >= 0
    pending = np.bincount(rows[inside & waits & ~decided], minlength=len(keys)).astype(np.int32)
    keep = inside & (decided | ~waits)
    table = regions.append_column("row", pa.array(rows)).filter(pa.array(keep))
    table = table.sort_by([("row", "ascending"), ("region_id", "ascending")])
    table = table.append_column("frame_id", ids.take(flat_array(table["row"])))
    return _effective(table, standing), pending


def _effective(table: pa.Table, standing: pa.Table) -> pa.Table:
    """Put a person's label and box where there is one."""
    where = pc.index_in(table["region_id"], value_set=flat_array(standing["region_id"]))
    theirs = {name: flat_array(standing[name]).take(flat_array(where)) for name in standing.schema.names}
    has = theirs["decision_id"].is_valid()
    machine_xyxy, xyxy = _boxes(flat_array(table["xyxy"]), theirs["xyxy"])
    columns = {name: table[name] for name in REGIONS.names if name in table.schema.names}
    columns |= {
        "xyxy": xyxy,
        "machine_xyxy": machine_xyxy,
        "machine_label": table["label"],
        "label": pc.coalesce(theirs["label"], flat_array(table["label"])),
        "decided_by": pc.if_else(has, DecidedBy.PERSON.value, DecidedBy.MACHINE.value),
        **{name: theirs[name] for name in _DECIDED},
    }
    for name in ("margin", "ng_similarity"):
        column = flat_array(columns[name])
        columns[name] = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float32()), column)
    return pa.table([columns[name] for name in REGIONS.names], schema=REGIONS)


def _boxes(machine: pa.Array, corrected: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The machine's box where it was changed, and the box that stands."""
    ours = np.asarray(machine.flatten()).reshape(-1, 4)
    moved = np.asarray(corrected.is_valid())
    stands = ours.copy()
    if moved.any():
        stands[moved] = np.asarray(corrected.drop_null().flatten()).reshape(-1, 4)
        moved = moved & (stands != ours).any(axis=1)
    was = [row.tolist() if changed else None for row, changed in zip(ours, moved, strict=True)]
    return pa.array(was, BOX_OR_NULL), pa.FixedSizeListArray.from_arrays(
        pa.array(stands.ravel(), pa.float32()), 4
    )


def flat_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
