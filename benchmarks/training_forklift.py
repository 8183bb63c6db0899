"""YOLOv5n on the forklift pictures, published as a version: from the COCO backbone against from scratch.

    LABELMILL_DATA=... python -m benchmarks.training_forklift [--epochs 20] [--image-px 192] [--keep DIR]

The set goes the factory's own way: `labelmill annotate` with the `boxes` proposer, its authors' classes as
people's decisions, `labelmill publish` with its own splits (past the gate against leaks), and both trainings
from `forklift@v1`'s YOLO pull.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import runs
from benchmarks.reports import table, write
from labelmill.datasets.versions.pull.pull import Format
from labelmill.datasets.versions.store import Version, VersionStore
from labelmill.datasets.versions.tables import DECISIONS
from labelmill.datasets.workspace import Workspace
from labelmill.training.config import DetectorConfig
from labelmill.training.detectors.train import train_detector
from labelmill.training.from_version import pull_version
from labelmill.training.inputs import read_detection
from labelmill.training.progress import Progress

LINE = """\
name: forklift
sources: [{{images: '{set}/images'}}]
selection: {{repeats: false}}
proposer: {{kind: boxes, labels: '{set}/labels', names: '{set}/data.yaml'}}
dataset: {{splits: {{train: 0.8, val: 0.2}}, assignments: splits.csv}}
"""


def published(root: Path, source: Path) -> tuple[Workspace, Version]:
    """`forklift@v1`, published below `root` unless it is there already."""
    workspace = Workspace(root / "workspace")
    line = root / "line.yaml"
    if not workspace.root.is_dir():
        line.write_text(LINE.format(set=source))
        runs.measure("annotate", line, "--workspace", workspace.root, "--json")
        write_truth(workspace, root / "splits.csv")
        runs.measure(
            "publish", line, "--workspace", workspace.root, "--json", "-m", "boxes of the set's authors"
        )
    return workspace, VersionStore(workspace).resolve("forklift@v1")


def write_truth(workspace: Workspace, splits: Path) -> None:
    """The set's splits, and its classes as people's decisions: without templates every box asks a person."""
    now = datetime.now(UTC)
    blank = dict.fromkeys(DECISIONS.names)
    rows = [
        blank
        | {
            "decision_id": f"set-{row['region_id']}",
            "region_id": row["region_id"],
            "label": row["phrase"],
            "annotator": "the set's authors",
            "decided_at": now,
            "source": "forklift",
            "superseded": False,
        }
        for row in pq.read_table(workspace.table("regions")).to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=DECISIONS), workspace.table("decisions"))
    sources = pq.read_table(workspace.table("frames"), columns=["source"])["source"].to_pylist()
    with splits.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "split"])
        writer.writerows([source, Path(source).parent.name] for source in sources)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--image-px", type=int, default=192)
    arguments.add_argument("--keep", type=Path, help="Keep the models there; a killed run goes on from it.")
    options = arguments.parse_args()
    backbone = runs.data().parent / "weights" / "yolov5n_coco_backbone.safetensors"
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        workspace, version = published(place, runs.data() / "forklift")
        data = read_detection(pull_version(workspace, version, Format.YOLO))
        for name, weights in (("COCO backbone", backbone), ("scratch", None)):
            config = DetectorConfig(
                image_px=options.image_px,
                epochs=options.epochs,
                batch=16,
                weights=weights,
                optimizer="AdamW",
                learning_rate=1e-3,
                warmup_epochs=1,
                mosaic=0.5,
                device="cpu",
            )
            started = time.perf_counter()
            written = train_detector(data, config, place / name.replace(" ", "-"), report=say)
            figures[name] = written.metrics["splits"]["val"] | {
                "seconds": written.metrics["seconds"],
                "wall_s": time.perf_counter() - started,
                "epochs": written.metrics["epochs"],
            }
    rows = [
        [
            name,
            f"{row['mAP50']:.3f}",
            f"{row['mAP50-95']:.3f}",
            *(f"{row['at_iou'][iou]['recall']:.2f}" for iou in ("0.3", "0.4", "0.5")),
            *(_two(row["at_iou"][iou]["precision"]) for iou in ("0.3", "0.4", "0.5")),
            f"{row['seconds']:.0f}",
        ]
        for name, row in figures.items()
    ]
    head = ["start", "mAP50", "mAP50-95"]
    head += [f"recall at IoU {iou}" for iou in ("0.3", "0.4", "0.5")]
    head += [f"precision at IoU {iou}" for iou in ("0.3", "0.4", "0.5")]
    text = (
        f"From {data.version}, published through the `boxes` proposer with the set's own splits: "
        f"{len(data.split('train'))} training and {len(data.split('val'))} validation pictures, "
        f"{options.image_px} px, {options.epochs} epochs, batch 16, AdamW 1e-3, seed 0. mAP by our own "
        "evaluation (equal to COCO's), recall and precision at score 0.25. Both trainings have the same "
        "settings; the budget is what two shared CPU cores give, far from a full training. The epoch was "
        "chosen on the "
        "same validation pictures.\n\n" + table([*head, "s"], rows)
    )
    write("training_forklift", "YOLOv5n on forklifts: pretrained backbone against scratch", text, figures)


def say(progress: Progress) -> None:
    if progress.done % 10 == 0:
        print(f"{progress.done}/{progress.total} {progress.text}", flush=True)


def _two(value: float | None) -> str:
    return "none given" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
