"""Joining shards into the final tables, shard by shard, so that memory does not grow with the footage."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.annotators.routing import NG
from labelmill.datasets import tables
from labelmill.datasets.bank import Makers, load_bank, resolve_lambda
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.plan import Plan, Shard
from labelmill.datasets.shards import ShardStore
from labelmill.datasets.workspace import Workspace
from labelmill.files import disk_errors, replacing


def join_tables(
    config: AnnotationConfig, plan: Plan, store: ShardStore, workspace: Workspace
) -> dict[str, Any]:
    """Write frames.parquet, regions.parquet and quarantine.parquet.

    The rows follow the order of the sources, frames and boxes; the same shards give the same bytes.

    Returns:
        λ, the classes, and counts: frames by status, NG frames, regions by label and route.
    """
    statuses: Counter[str] = Counter()
    labels: Counter[tuple[str, str]] = Counter()
    ng_frames = 0
    quarantine: list[dict[str, object]] = [
        {"source": p.source, "frame_index": p.frame_index, "reason": p.reason} for p in plan.problems
    ]
    with disk_errors(workspace.root), ExitStack() as stack:
        frames = _writer(stack, workspace, "frames", tables.FRAMES)
        regions = _writer(stack, workspace, "regions", tables.REGIONS)
        for shard in plan.shards:
            joined_frames, joined_regions = _join_shard(shard, store)
            frames.write_table(joined_frames)
            regions.write_table(joined_regions)
            statuses.update(joined_frames["status"].to_pylist())
            kept = pc.equal(joined_frames["status"], tables.Status.KEPT.value)
            ng_frames += pc.sum(pc.and_(kept, pc.equal(joined_frames["regions"], 0))).as_py() or 0
            labels.update(
                zip(joined_regions["label"].to_pylist(), joined_regions["route"].to_pylist(), strict=True)
            )
            unreadable = joined_frames.filter(
                pc.equal(joined_frames["status"], tables.Status.UNREADABLE.value)
            )
            quarantine += unreadable.select(tables.QUARANTINE.names).to_pylist()
        writer = _writer(stack, workspace, "quarantine", tables.QUARANTINE)
        writer.write_table(pa.Table.from_pylist(quarantine, schema=tables.QUARANTINE))
    bank = load_bank(plan, Makers(config), store)
    by_class = {
        name: {route.value: labels[name, route.value] for route in tables.Route}
        for name in (*bank.classes, NG)
    }
    return {
        "lambda": round(resolve_lambda(config, bank), 6),
        "classes": list(bank.classes),
        "counts": {
            "frames": sum(statuses.values()),
            **{status.value: statuses[status.value] for status in tables.Status},
            "ng_frames": ng_frames,
            "quarantined": len(quarantine),
            "regions": sum(labels.values()),
            **{route.value: sum(row[route.value] for row in by_class.values()) for route in tables.Route},
        },
        "by_class": by_class,
    }


def _writer(stack: ExitStack, workspace: Workspace, name: str, schema: pa.Schema) -> pq.ParquetWriter:
    temporary = stack.enter_context(replacing(workspace.table(name)))
    return stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))


def _join_shard(shard: Shard, store: ShardStore) -> tuple[pa.Table, pa.Table]:
    selected = store.read("select", shard.keys["select"])
    proposed = store.read("propose", shard.keys["propose"])
    encoded = store.read("encode", shard.keys["encode"], columns=["region_id", "crop_digest"])
    matched = store.read("match", shard.keys["match"])
    for other, stage in ((encoded, "encode"), (matched, "match")):
        if not other["region_id"].equals(proposed["region_id"]):
            raise RuntimeError(f"the {stage} shard {shard.keys[stage]} does not follow its propose shard")
    names = [ref.source for ref in shard.refs]
    keys = list(zip(selected["source_digest"].to_pylist(), selected["frame_index"].to_pylist(), strict=True))
    row_of = {key: row for row, key in enumerate(keys)}
    rows = [
        row_of[key]
        for key in zip(
            proposed["source_digest"].to_pylist(), proposed["frame_index"].to_pylist(), strict=True
        )
    ]
    counts = Counter(rows)
    frames = selected.add_column(0, tables.SOURCE, pa.array(names, pa.string())).append_column(
        tables.FRAMES.field("regions"), pa.array([counts[row] for row in range(len(keys))], pa.int32())
    )
    columns = {name: proposed[name] for name in proposed.column_names}
    columns |= {name: matched[name] for name in matched.column_names if name != "region_id"}
    columns |= {
        "source": pa.array([names[row] for row in rows], pa.string()),
        "timestamp_s": selected["timestamp_s"].take(pa.array(rows, pa.int64())),
        "crop_digest": encoded["crop_digest"],
    }
    regions = pa.table({name: columns[name] for name in tables.REGIONS.names}, schema=tables.REGIONS)
    return frames.cast(tables.FRAMES), regions
