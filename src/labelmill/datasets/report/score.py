"""A run held against known truth: how many hands were found, how many labels are right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.datasets.report.data import ROUTES
from labelmill.datasets.tables import Route, Status
from labelmill.datasets.workspace import Workspace
from labelmill.errors import SourceError

IOU = 0.3
"""Overlap from which a region counts as found: the lower of LRIAR's two."""

NOTHING = "no object"


@dataclass(frozen=True)
class Truth:
    """Known boxes of one source.

    Attributes:
        boxes: Per frame index, x1, y1, x2, y2 and label of each box; a frame that is absent is not known.
        unclear: Frames that no one can judge; left out.
        events: First frame, last frame and name; may be empty.
    """

    boxes: dict[int, list[tuple[float, float, float, float, str]]]
    unclear: frozenset[int]
    events: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True)
class Score:
    """A run against truth, on frames that were kept and can be judged.

    Attributes:
        frames: Frames judged.
        objects: True boxes on them.
        found: Of these, how many a region overlaps by `IOU` or more.
        accepted: Accepted regions on them.
        right: Of these, how many have the label of the true box that they overlap.
        classes: Labels, in the order of the table.
        table: For each true label and `NOTHING`: regions by what became of them: each class (accepted),
            review, ng.
    """

    frames: int
    objects: int
    found: int
    accepted: int
    right: int
    classes: tuple[str, ...]
    table: dict[str, dict[str, int]]


def read_truth(path: Path) -> Truth:
    """Read true boxes.

    Two forms are known: that of the sample (`boxes` holds a list for each frame, `unclear` frame numbers,
    `events`), and a mapping from frame number to a list of [x1, y1, x2, y2, label].

    Raises:
        SourceError: It is neither.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        listed = document.get("boxes", document)
        pairs = enumerate(listed) if isinstance(listed, list) else listed.items()
        return Truth(
            boxes={int(index): [_box(box) for box in boxes] for index, boxes in pairs},
            unclear=frozenset(int(index) for index in document.get("unclear", ())),
            events=tuple(
                (int(first), int(last), str(name)) for first, last, name in document.get("events", ())
            ),
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} holds no true boxes",
            got=str(error),
            expected="{frame: [[x1, y1, x2, y2, label], ...]}",
            do="mend it, or leave it out",
        ) from error


def _box(box: Any) -> tuple[float, float, float, float, str]:
    x1, y1, x2, y2, label = box
    return float(x1), float(y1), float(x2), float(y2), str(label)


def score(workspace: Workspace, truth: Truth) -> Score:
    """Hold a run's regions against truth.

    On each frame, regions and true boxes are paired one to one, the largest overlap first.
    """
    frames = pq.read_table(workspace.table("frames"), columns=["frame_index", "status"])
    kept = frames.filter(pc.equal(frames["status"], Status.KEPT.value))["frame_index"].to_pylist()
    judged = sorted({index for index in kept if index in truth.boxes} - truth.unclear)
    columns = ["frame_index", "xyxy", "label", "route"]
    regions = pq.read_table(
        workspace.table("regions"), columns=columns, filters=[("frame_index", "in", judged)]
    )
    by_frame: dict[int, list[tuple[list[float], str, str]]] = {}
    for row in regions.to_pylist():
        by_frame.setdefault(row["frame_index"], []).append((row["xyxy"], row["label"], row["route"]))
    classes = tuple(sorted({box[4] for boxes in truth.boxes.values() for box in boxes}))
    table: dict[str, Counter[str]] = {name: Counter() for name in (*classes, NOTHING)}
    objects = found = accepted = right = 0
    for index in judged:
        true_boxes, proposed = truth.boxes[index], by_frame.get(index, [])
        objects += len(true_boxes)
        pairs = pair([box[:4] for box in true_boxes], [xyxy for xyxy, _, _ in proposed])
        found += len(pairs)
        for number, (_, label, route) in enumerate(proposed):
            true = true_boxes[pairs[number]][4] if number in pairs else NOTHING
            became = label if route == Route.ACCEPTED.value else route
            table[true][became] += 1
            accepted += route == Route.ACCEPTED.value
            right += route == Route.ACCEPTED.value and label == true
    outcomes = (*classes, *ROUTES[1:])
    return Score(
        frames=len(judged),
        objects=objects,
        found=found,
        accepted=accepted,
        right=right,
        classes=classes,
        table={true: {name: row[name] for name in outcomes} for true, row in table.items()},
    )


def pair(true: Sequence[Sequence[float]], proposed: Sequence[Sequence[float]]) -> dict[int, int]:
    """Pair boxes one to one by overlap, the largest first, while it is at least `IOU`.

    Returns:
        Index of the true box for each paired proposed one.
    """
    if not true or not proposed:
        return {}
    overlaps = iou(np.array(proposed, np.float64), np.array(true, np.float64))
    pairs: dict[int, int] = {}
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(true))
        if overlaps[row, column] < IOU:
            break
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs


def iou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes, shapes (n, 4) and (m, 4), as (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9))
