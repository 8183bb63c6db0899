"""`python -m benchmarks.selection`: what looking at fewer frames of real footage saves, and costs.

The bottle line (`motion`, `hog`) runs with several settings of `selection`; the boxes it finds are held
against the 48 labelled frames, all after frame 620. A frame that was not looked at takes the boxes of the
last one that was: that is what dropping it as a repeat claims. `strict` counts such frames as empty.

    LABELMILL_DATA=... python -m benchmarks.selection
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.machine import describe
from labelmill.datasets.annotate import annotate
from labelmill.datasets.workspace import Workspace
from labelmill.line import Line
from labelmill.training.evaluation import BoxSet, evaluate

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SETTINGS: dict[str, dict[str, Any]] = {
    "every frame": {"repeats": False},
    "repeats dropped (default)": {},
    "repeats dropped, threshold 8": {"repeats": {"threshold": 8}},
    "10 frames a second": {"fps": 10, "repeats": False},
    "10 frames a second, repeats dropped": {"fps": 10},
    "5 frames a second, repeats dropped": {"fps": 5},
}
IOU = 0.3


def line(folder: Path, selection: dict[str, Any]) -> Line:
    """The bottle line of `examples/`, with a selection of its own."""
    document = {
        "name": "bottle-line",
        "sources": [{"video": str(folder / "bottle-detection.mp4")}],
        "selection": selection,
        "proposer": {"kind": "motion", "phrase": "hand", "skin": "require"},
        "encoder": "hog",
        "templates": {"folder": str(folder / "templates"), "ng": str(folder / "templates_ng")},
    }
    return Line.model_validate(document, context={"base": folder})


def measure(folder: Path, selection: dict[str, Any]) -> dict[str, Any]:
    """Run one setting in a fresh workspace."""
    truth = {int(frame): rows for frame, rows in json.loads((folder / "boxes.json").read_text()).items()}
    footage = json.loads((folder / "events.json").read_text())["bottle-detection.mp4"]
    events = footage["events"]
    with tempfile.TemporaryDirectory() as root:
        workspace = Workspace(Path(root))
        wall, busy = time.perf_counter(), time.process_time()
        counts = annotate(line(folder, selection), workspace)["counts"]
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        frames = pq.read_table(workspace.table("frames"), columns=["frame_index", "status"]).to_pylist()
        regions = pq.read_table(workspace.table("regions"), columns=["frame_index", "xyxy"]).to_pylist()
    boxes: dict[int, list[list[float]]] = {}
    for region in regions:
        boxes.setdefault(region["frame_index"], []).append(region["xyxy"])
    looked_at = sorted(row["frame_index"] for row in frames if row["status"] == "kept")
    labelled = sorted(truth)
    true = [BoxSet.of([row[:4] for row in truth[frame]]) for frame in labelled]

    def recall(*, carry: bool) -> dict[str, float]:
        found = []
        for frame in labelled:
            last = max((index for index in looked_at if index <= frame), default=-1)
            found.append(BoxSet.of(boxes.get(last, []) if carry or last == frame else []))
        tally = evaluate(found, true, IOU).boxes
        return {"recall": tally.recall, "precision": tally.precision}

    seen = sum(any(first <= frame <= last for frame in boxes) for first, last, *_ in events)
    return {
        "kept": len(looked_at),
        "footage_frames": footage["frames"],
        "regions": counts["regions"],
        "wall_s": wall,
        "cpu_s": busy,
        "carried": recall(carry=True),
        "strict": recall(carry=False),
        "events_seen": seen,
        "events": len(events),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The settings as a Markdown table."""
    lines = [
        "| selection | frames looked at | footage frames/s | per processor s | regions | recall | precision "
        "| strict recall | events seen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        total = row["footage_frames"]
        lines.append(
            f"| {name} | {row['kept']} ({row['kept'] / total:.0%}) | {total / row['wall_s']:.0f} | "
            f"{total / row['cpu_s']:.0f} | {row['regions']} | {row['carried']['recall']:.3f} | "
            f"{row['carried']['precision']:.3f} | {row['strict']['recall']:.3f} | "
            f"{row['events_seen']} of {row['events']} |"
        )
    return "\n".join(lines)


def main() -> None:
    folder = Path(os.environ["LABELMILL_DATA"]) / "line"
    rows = {}
    for name, selection in SETTINGS.items():
        rows[name] = measure(folder, selection)
        print(name, rows[name], file=sys.stderr, flush=True)
    print(table(rows))
    RESULTS.mkdir(parents=True, exist_ok=True)
    machine = describe()
    document = {"machine": machine, "iou": IOU, "rows": rows}
    (RESULTS / "selection.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "selection.md").write_text(
        f"# Selection on the bottle line\n\n{machine}\n\n`python -m benchmarks.selection`: "
        f"`motion` and `hog`; 48 labelled frames, IoU ≥ {IOU}.\nA frame not looked at takes the boxes of the "
        "last one that was; strict: it counts as empty.\n\n" + table(rows) + "\n"
    )


if __name__ == "__main__":
    main()
