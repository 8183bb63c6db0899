"""How well the weight-free defaults find and label hands on real footage.

`labelmill annotate` runs on the bottle line, with `hog` and with `timm`; its hand boxes are held against the
48 labelled frames, all of them after frame 620, while everything was chosen on frames before it. Plain
background subtraction (MOG2, opening and closing, boxes of large blobs) runs on the same frames.

    LABELMILL_DATA=... python -m benchmarks.line_quality
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.runs import ROOT, data, measure, report
from labelmill.datasets.sources.video import index_video, read_video
from labelmill.training.evaluation import BoxSet, confusion, evaluate, pair

IOUS = (0.3, 0.4, 0.5)
NG = "NG"
LINES = {"hog": "bottle-line.yaml", "timm": "bottle-line-timm.yaml"}


def truth(folder: Path) -> dict[int, BoxSet]:
    """The labelled frames: number to boxes."""
    document = json.loads((folder / "line" / "boxes.json").read_text())
    return {
        int(frame): BoxSet.of([row[:4] for row in rows], [row[4] for row in rows])
        for frame, rows in document.items()
    }


def annotate(name: str, workspace: Path) -> list[dict[str, Any]]:
    """Run a line as a user would; its regions."""
    summary = measure("annotate", ROOT / "examples" / LINES[name], "-w", workspace, "--json").document
    assert summary["counts"]["unreadable"] == 0
    return list(pq.read_table(workspace / "tables" / "regions.parquet").to_pylist())


def mog2(folder: Path, frames: set[int]) -> dict[int, list[list[float]]]:
    """Plain background subtraction: MOG2, opening, closing, boxes of blobs of 0.5 % of the picture."""
    subtractor = cv2.createBackgroundSubtractorMOG2(history=500, varThreshold=16, detectShadows=True)
    small, large = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (5, 15))
    found: dict[int, list[list[float]]] = {}
    for index, image in pictures(folder):
        mask = (subtractor.apply(image) == 255).astype(np.uint8)
        if index not in frames:
            continue
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, small)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, large)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        boxes = [cv2.boundingRect(contour) for contour in contours]
        least = 0.005 * mask.size
        found[index] = [[x, y, x + w, y + h] for x, y, w, h in boxes if w * h >= least]
    return found


def pictures(folder: Path) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Every frame of the footage."""
    path = folder / "line" / "bottle-detection.mp4"
    index = index_video(path)
    images = read_video(path, index.pts.tolist(), index.starts(int(index.pts[0])))
    for number, image in enumerate(images):
        assert not isinstance(image, str), image
        yield number, image


def motion(folder: Path, skin: str) -> tuple[dict[int, list[list[float]]], float]:
    """The proposer alone, with its own settings but for `skin`: boxes, and frames a CPU second."""
    from labelmill.annotators.proposers.motion import Motion, MotionConfig
    from labelmill.annotators.types import Frame

    frames = [Frame("source", number, number / 30, image) for number, image in pictures(folder)]
    proposer = Motion(MotionConfig.model_validate({"kind": "motion", "skin": skin}))
    started = time.process_time()  # of all threads: neighbours on the machine don't count
    found = [boxes.xyxy.tolist() for boxes in proposer.propose(iter(frames))]
    return dict(enumerate(found)), len(frames) / (time.process_time() - started)


def detection(found: dict[int, list[list[float]]], known: dict[int, BoxSet]) -> dict[str, dict[str, float]]:
    """Recall and precision at each IoU threshold."""
    frames = sorted(known)
    figures = {}
    for threshold in IOUS:
        boxes = evaluate(
            [BoxSet.of(found.get(frame, [])) for frame in frames],
            [known[frame] for frame in frames],
            threshold,
        ).boxes
        figures[f"{threshold:g}"] = {
            "recall": round(boxes.recall, 3),
            "precision": round(boxes.precision, 3),
            "true_positives": boxes.true_positives,
            "false_positives": boxes.false_positives,
            "false_negatives": boxes.false_negatives,
        }
    return figures


def by_frame(regions: list[dict[str, Any]]) -> dict[int, list[list[float]]]:
    """Boxes of each frame."""
    found: dict[int, list[list[float]]] = {}
    for region in regions:
        found.setdefault(region["frame_index"], []).append(region["xyxy"])
    return found


def labelling(regions: list[dict[str, Any]], known: dict[int, BoxSet]) -> dict[str, Any]:
    """What template matching makes of the proposals: true label, machine label and route.

    A proposal that overlaps no hand by 0.3 or more should be NG.
    """
    labels = [*sorted({label for boxes in known.values() for label in boxes.labels}), NG]
    true: list[str] = []
    said: list[str] = []
    accepted: list[bool] = []
    for frame, boxes in known.items():
        mine = [region for region in regions if region["frame_index"] == frame]
        pairs = dict(pair(BoxSet.of([region["xyxy"] for region in mine]), boxes, 0.3))
        for number, region in enumerate(mine):
            true.append(boxes.labels[pairs[number]] if number in pairs else NG)
            said.append(region["label"])
            accepted.append(region["route"] == "accepted")
    right = [one == other for one, other in zip(true, said, strict=True)]
    sure = [fine for fine, taken in zip(right, accepted, strict=True) if taken]
    return {
        "labels": labels,
        "confusion": confusion(true, said, labels).tolist(),
        "proposals": len(true),
        "right": sum(right),
        "accepted": len(sure),
        "accepted_right": sum(sure),
    }


def main() -> None:
    folder = data()
    known = truth(folder)
    hands = sum(len(boxes) for boxes in known.values())
    figures: dict[str, Any] = {"frames": len(known), "hands": hands, "labelling": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name in LINES:
            regions = annotate(name, Path(scratch) / name)
            if name == "hog":
                figures["motion"] = detection(by_frame(regions), known)
            kept = [region for region in regions if region["label"] != NG]
            figures["labelling"][name] = {
                **labelling(regions, known),
                "hands_not_ng": detection(by_frame(kept), known),
            }
    for skin in ("prefer", "ignore"):
        found, fps = motion(folder, skin)
        figures[f"motion_{skin}"] = detection(found, known)
        figures[f"motion_{skin}_fps"] = round(fps, 1)
    figures["mog2"] = detection(mog2(folder, set(known)), known)
    report("line_quality", page(figures), figures)


def page(figures: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [
        "# Hands on real footage, weight-free\n",
        f"{figures['frames']} labelled frames after frame 620 with {figures['hands']} hands; all settings "
        "were chosen on frames before 620. Boxes count whatever their label.\n",
        "| proposals | IoU | recall | precision | found | invented | missed |",
        "|---|---|---|---|---|---|---|",
    ]
    sets = {
        "`motion`, examples/bottle-line.yaml": figures["motion"],
        "`motion`, `skin: prefer`": figures["motion_prefer"],
        "`motion`, default (`skin: ignore`: hand, sleeve and bottle in one box)": figures["motion_ignore"],
        "plain MOG2, opening, closing": figures["mog2"],
    }
    for name, found in figures["labelling"].items():
        sets[f"`motion`, then not NG by `{name}`"] = found["hands_not_ng"]
    for title, table in sets.items():
        for threshold, row in table.items():
            counts = " | ".join(
                str(row[key]) for key in ("true_positives", "false_positives", "false_negatives")
            )
            rows.append(
                f"| {title} | {threshold} | {row['recall']:.3f} | {row['precision']:.3f} | {counts} |"
            )
    rows.append(
        f"\nThe proposer alone, on decoded frames: {figures['motion_prefer_fps']:.0f} frames a CPU second "
        f"with `skin: prefer`, {figures['motion_ignore_fps']:.0f} with the default."
    )
    for name, found in figures["labelling"].items():
        rows += [
            f"\n## Labels by template matching, `{name}`\n",
            f"{found['right']} of {found['proposals']} crops right; of the {found['accepted']} accepted, "
            f"{found['accepted_right']} right.\n",
            "| truth \\ machine | " + " | ".join(found["labels"]) + " |",
            "|---" * (len(found["labels"]) + 1) + "|",
        ]
        for label, counts in zip(found["labels"], found["confusion"], strict=True):
            rows.append(f"| {label} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
