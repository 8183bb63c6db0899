"""YOLOv5n on the forklift pictures: from the COCO backbone against from scratch, same budget.

LABELMILL_DATA=... python -m benchmarks.training_forklift [--epochs 8] [--image-px 256] [--keep DIR]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.reports import table, write
from labelmill.training.config import DetectorConfig
from labelmill.training.detectors.train import train_detector
from labelmill.training.inputs import read_detection
from labelmill.training.progress import Progress


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--image-px", type=int, default=256)
    arguments.add_argument("--keep", type=Path, help="Keep the models there; a killed run goes on from it.")
    options = arguments.parse_args()
    data_root = Path(os.environ["LABELMILL_DATA"])
    backbone = data_root.parent / "weights" / "yolov5n_coco_backbone.safetensors"
    data = read_detection(data_root / "forklift")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
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
