"""Everything that people ever answered, as it was pulled: rows are added, never changed or removed.

The decisions are worked out from this table, so that a better rule, a class that is added later, or a lost
decisions table needs no second look at the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelmill.annotators.review.client import RemoteTask
from labelmill.annotators.review.tasks import read_answer, read_time
from labelmill.files import replacing

BOX_OR_NULL = pa.list_(pa.float32())
"""Four numbers or null: pyarrow cannot read nulls in a fixed-size list back from Parquet."""

TIME = pa.timestamp("us", "UTC")

LEDGER = pa.schema(
    [
        ("origin", pa.string()),  # server and project, so that numbers of two projects stay apart
        ("annotation", pa.int64()),  # its number there
        ("task", pa.int64()),
        ("region_id", pa.string()),
        ("members", pa.list_(pa.string())),  # the other regions of the group it was offered for
        ("label", pa.string()),  # null: nothing was chosen
        ("xyxy", BOX_OR_NULL),  # null: the box was left as it was
        ("group", pa.bool_()),  # whether the annotator said that it holds for the group
        ("skipped", pa.bool_()),
        ("retracted", pa.bool_()),  # the annotator removed it
        ("annotator", pa.string()),
        ("created_at", TIME),
        ("updated_at", TIME),  # a row for every change
        ("seconds", pa.float64()),  # spent on it in all
        ("result", pa.string()),  # as the server gave it, JSON
    ]
)

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The rows of a ledger, oldest pull first; none without a file."""
    import pyarrow.parquet as pq

    if not path.exists():
        return []
    rows: list[Row] = pq.read_table(path).cast(LEDGER).to_pylist()
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write a ledger whole or not at all."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=LEDGER), temporary, compression="zstd")


def new_rows(
    rows: Sequence[Row], tasks: Iterable[RemoteTask], origin: str, users: Mapping[int, str]
) -> list[Row]:
    """What the server's tasks say that the ledger does not have yet.

    Args:
        rows: The ledger.
        tasks: Tasks with their annotations; those without a region id are none of ours.
        origin: Server and project.
        users: Annotator numbers to e-mail addresses.
    """
    latest = {row["annotation"]: row for row in rows if row["origin"] == origin}
    of_task: dict[int, list[Row]] = {}
    for row in latest.values():
        of_task.setdefault(row["task"], []).append(row)
    added: list[Row] = []
    for task in tasks:
        if not task.data.get("region_id"):
            continue
        present = set()
        for answer in task.answers:
            number = int(answer["id"])
            present.add(number)
            known = latest.get(number)
            changed_at = read_time(answer["updated_at"])
            if known is None or known["retracted"] or known["updated_at"] != changed_at:
                added.append(_row(task, answer, changed_at, origin, users))
        added += [
            {**row, "retracted": True}
            for row in of_task.get(task.id, ())
            if row["annotation"] not in present and not row["retracted"]
        ]
    return added


def _row(
    task: RemoteTask,
    annotation: Mapping[str, Any],
    changed_at: datetime,
    origin: str,
    users: Mapping[int, str],
) -> Row:
    result = annotation.get("result") or []
    answer = read_answer(result, task.data["xyxy"])
    person = annotation.get("completed_by")
    number = int(person["id"] if isinstance(person, dict) else person or 0)
    return {
        "origin": origin,
        "annotation": int(annotation["id"]),
        "task": task.id,
        "region_id": str(task.data["region_id"]),
        "members": [str(member) for member in task.data.get("members") or ()],
        "label": answer.label,
        "xyxy": list(answer.xyxy) if answer.xyxy else None,
        "group": answer.group,
        "skipped": bool(annotation.get("was_cancelled")),
        "retracted": False,
        "annotator": users.get(number, f"user {number}"),
        "created_at": read_time(annotation["created_at"]),
        "updated_at": changed_at,
        "seconds": float(annotation.get("lead_time") or 0.0),
        "result": json.dumps(result, ensure_ascii=False, sort_keys=True),
    }
