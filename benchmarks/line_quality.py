"""`python -m benchmarks.line_quality`: boxes and labels of the bottle line against its hand-made truth.

Runs `labelmill annotate examples/bottle-line.yaml` as a user would, and reads its tables. The truth are the
boxes of `line/boxes.json`: 48 frames after frame 620, on which nothing was tuned. Needs LABELMILL_DATA.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from labelmill.images import Image
from labelmill.training.evaluation import BoxSet, confusion, evaluate, pair

ROOT = Path(__file__).parents[1]
LINE = ROOT / "examples" / "bottle-line.yaml"
RESULTS = ROOT / "docs" / "results"
THRESHOLDS = (0.3, 0.4)
NG = "NG"
LABELS = ("hand_empty", "hand_on_bottle", NG)
MOBILENET = {
    "kind": "timm",
    "model": "mobilenetv2_100",
    "weights": "${LABELMILL_DATA}/../weights/mobilenet_v2_imagenet.safetensors",
    "model_args": {"pad_type": "same", "num_classes": 1001},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "size_px": 224,
}
"""MobileNetV2 with ImageNet weights, as their README says that it is to be loaded."""

Found = dict[int, BoxSet]
"""Frame index to what was proposed there; the labels are those of template matching."""


def run(data: Path) -> dict[str, Any]:
    """Measure everything.

    Args:
        data: The folder of evaluation data.
    """
    truth = read_truth(data)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        line, summary, routed = annotate(place, {})
        timm, _, timm_routed = annotate(place, {"encoder": MOBILENET})
        prefer, _, _ = annotate(place, {"proposer": {"kind": "motion", "skin": "prefer"}})
        default, _, _ = annotate(place, {"proposer": {"kind": "motion"}})
    images = list(decode(data))
    rows = {
        "`examples/bottle-line.yaml` (motion, `skin: require`)": line,
        "… after matching with `hog`: routed accepted or review, label not NG": routed,
        "… after matching with `timm`: routed accepted or review, label not NG": timm_routed,
        "motion, `skin: prefer`": prefer,
        "motion, default (`skin: ignore`)": default,
        "plain MOG2, opening and closing": dict(enumerate(mog2(images))),
    }
    return {
        "machine": describe(),
        "frames": len(truth),
        "hand_boxes": sum(len(boxes) for boxes in truth.values()),
        "boxes": {name: score(found, truth) for name, found in rows.items()},
        "labels": {"hog": judge_labels(line, truth), "timm": judge_labels(timm, truth)},
        "speed": {
            "annotate_wall_s": summary["wall_s"],
            "annotate_fps": summary["counts"]["frames"] / summary["wall_s"],
            "propose_fps": propose_fps(images),
        },
    }


def read_truth(data: Path) -> Found:
    """The hand boxes, by frame index."""
    document = json.loads((data / "line" / "boxes.json").read_text())
    return {
        int(index): BoxSet.of([row[:4] for row in rows], [row[4] for row in rows])
        for index, rows in document.items()
    }


def annotate(place: Path, changes: dict[str, Any]) -> tuple[Found, dict[str, Any], Found]:
    """Run the line as a user would.

    Args:
        place: A folder for line files and workspaces.
        changes: Sections of the line file to replace.

    Returns:
        Every region, the run's summary, and the regions that matching lets pass.
    """
    import pyarrow.parquet as pq
    import yaml

    path = LINE
    if changes:
        path = place / "line.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(LINE.read_text()), **changes}))
    command = [sys.executable, "-m", "labelmill.cli", "annotate", str(path)]
    command += ["--json", "--workspace", str(place / "workspace")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    tables = place / "workspace" / "tables"
    frames = pq.read_table(tables / "frames.parquet")["frame_index"].to_pylist()
    rows = pq.read_table(tables / "regions.parquet").to_pylist()
    passed = [row for row in rows if row["route"] in ("accepted", "review") and row["label"] != NG]
    return by_frame(rows, frames), json.loads(done.stdout), by_frame(passed, frames)


def by_frame(rows: Sequence[dict[str, Any]], frames: Sequence[int]) -> Found:
    """Gather rows of the regions table."""
    gathered: dict[int, list[dict[str, Any]]] = {index: [] for index in frames}
    for row in rows:
        gathered[row["frame_index"]].append(row)
    return {
        index: BoxSet.of([row["xyxy"] for row in these], [row["label"] for row in these])
        for index, these in gathered.items()
    }


def decode(data: Path) -> Iterator[Image]:
    """Every frame of the video, in order."""
    import av

    with av.open(str(data / "line" / "bottle-detection.mp4")) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def mog2(images: Sequence[Image]) -> list[BoxSet]:
    """The usual recipe with OpenCV's own settings: MOG2 without shadows, opening, closing, big pieces."""
    import cv2

    model = cv2.createBackgroundSubtractorMOG2(detectShadows=True)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15))
    found = []
    for image in images:
        _, mask = cv2.threshold(model.apply(image), 200, 255, cv2.THRESH_BINARY)
        mask = cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, wide)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        found.append(
            BoxSet.of([(x, y, x + w, y + h) for x, y, w, h, area in stats[1:] if area >= 0.001 * mask.size])
        )
    return found


def score(found: Found, truth: Found) -> dict[str, dict[str, float]]:
    """Recall and precision of the hand boxes, whatever their class, at each IoU threshold."""
    result = {}
    for threshold in THRESHOLDS:
        tally = evaluate([found[index] for index in truth], list(truth.values()), threshold).boxes
        result[str(threshold)] = {
            "recall": tally.recall,
            "precision": tally.precision,
            "true_positives": tally.true_positives,
            "false_positives": tally.false_positives,
            "false_negatives": tally.false_negatives,
        }
    return result


def judge_labels(found: Found, truth: Found) -> dict[str, Any]:
    """Compare each proposal's label with that of the hand box it overlaps by at least 0.4; NG without one."""
    real: list[str] = []
    said: list[str] = []
    for index, boxes in truth.items():
        expected = [NG] * len(found[index])
        for proposal, box in pair(found[index], boxes, THRESHOLDS[1]):
            expected[proposal] = boxes.labels[box]
        real += expected
        said += found[index].labels
    table = confusion(real, said, LABELS)
    return {
        "labels": LABELS,
        "confusion": table.tolist(),
        "right": int(table.trace()),
        "of": int(table.sum()),
    }


def propose_fps(images: Sequence[Image]) -> float:
    """Frames a second of the line's proposer alone, on decoded frames: the best of three."""
    from labelmill.annotators.proposers.motion import Motion, MotionConfig
    from labelmill.annotators.types import Frame

    frames = [Frame("source", index, index / 30, image) for index, image in enumerate(images)]
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        count = sum(1 for _ in Motion(MotionConfig(skin="require")).propose(iter(frames)))
        best = min(best, (time.perf_counter() - started) / count)
    return 1 / best


def report(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Boxes and labels on the bottle line",
        "",
        f"`python -m benchmarks.line_quality`: {result['hand_boxes']} hand boxes in {result['frames']} frames"
        " after frame 620; settings were chosen on frames before it.",
        "",
        result["machine"],
        "",
        "## Hand boxes, whatever their class",
        "",
        "| | " + " | ".join(f"recall at {t} | precision at {t}" for t in THRESHOLDS) + " |",
        "|---|" + "---|" * (2 * len(THRESHOLDS)),
    ]
    for name, scores in result["boxes"].items():
        cells = [f"{scores[str(t)][what]:.3f}" for t in THRESHOLDS for what in ("recall", "precision")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for encoder, labels in result["labels"].items():
        lines += [
            "",
            f"## Labels by template matching with `{encoder}`: {labels['right']} of {labels['of']} right",
        ]
        lines += ["", "| true \\ said | " + " | ".join(LABELS) + " |", "|---|" + "---|" * len(LABELS)]
        for label, counts in zip(LABELS, labels["confusion"], strict=True):
            lines.append(f"| {label} | " + " | ".join(str(count) for count in counts) + " |")
    speed = result["speed"]
    lines += [
        "",
        "The true label of a proposal is that of the hand box that it overlaps by at least 0.4; NG without.",
        "",
        f"`labelmill annotate`: {speed['annotate_wall_s']:.1f} s, {speed['annotate_fps']:.0f} frames/s; the "
        f"proposer alone, on decoded frames: {speed['propose_fps']:.0f} frames/s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    data = os.environ.get("LABELMILL_DATA")
    if not data:
        sys.exit("set LABELMILL_DATA to the folder of evaluation data")
    result = run(Path(data))
    text = report(result)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "line_quality.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "line_quality.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
