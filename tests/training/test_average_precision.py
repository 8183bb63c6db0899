"""mAP against COCO's reference evaluation, and by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from labelmill.training.average_precision import Predicted, average_precision


def boxes(*rows: tuple[float, float, float, float]) -> Any:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_by_hand() -> None:
    """Two true boxes; the detections are right, wrong, right: (51 · 1 + 50 · 2/3) / 101."""
    truth = [(boxes((0, 0, 10, 10), (20, 20, 30, 30)), np.array([0, 0]))]
    found = [
        Predicted(
            boxes((0, 0, 10, 10), (50, 50, 60, 60), (20, 20, 30, 30)),
            np.array([0.9, 0.8, 0.7], np.float32),
            np.array([0, 0, 0]),
        )
    ]
    measured = average_precision(truth, found, ["a"])
    assert measured.at_50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert measured.curves[0].recall.tolist() == [0.5, 0.5, 1.0]
    assert measured.curves[0].precision.tolist() == [1.0, 0.5, 2 / 3]


def test_a_class_without_truth_does_not_count() -> None:
    truth = [(boxes((0, 0, 10, 10)), np.array([0]))]
    found = [Predicted(boxes((0, 0, 10, 10)), np.ones(1, np.float32), np.array([0]))]
    measured = average_precision(truth, found, ["a", "b"])
    assert measured.at_50_95 == 1.0
    assert np.isnan(measured.table[1]).all()


def test_nothing_found_is_zero_and_nothing_true_is_undefined() -> None:
    nothing = Predicted(boxes(), np.empty(0, np.float32), np.empty(0, np.int64))
    true = (boxes((0, 0, 10, 10)), np.array([0]))
    assert average_precision([true], [nothing], ["a"]).at_50_95 == 0.0
    assert np.isnan(average_precision([(boxes(), np.empty(0, np.int64))], [nothing], ["a"]).at_50)


@pytest.mark.parametrize("seed", range(6))
def test_equals_coco(seed: int) -> None:
    """On random frames with near misses, doubles, equal scores, and more than 100 boxes in one frame."""
    truth, found = random_split(np.random.default_rng(seed))
    ours = average_precision(truth, found, ["a", "b", "c"])
    reference = coco(truth, found, 3)
    assert ours.at_50_95 == pytest.approx(reference[0], abs=1e-9)
    assert ours.at_50 == pytest.approx(reference[1], abs=1e-9)


def random_split(rng: np.random.Generator) -> Any:
    truth, found = [], []
    for frame in range(12):
        count = int(rng.integers(0, 8))
        low = rng.uniform(0, 200, (count, 2))
        true = np.concatenate([low, low + rng.uniform(5, 80, (count, 2))], axis=1)
        classes = rng.integers(0, 3, count)
        near = np.repeat(true, 2, axis=0) + rng.normal(0, 6, (2 * count, 4))
        low = rng.uniform(0, 200, (130 if frame == 0 else 4, 2))
        noise = np.concatenate([low, low + rng.uniform(5, 80, low.shape)], axis=1)
        xyxy = np.concatenate([near, noise])
        xyxy[:, 2:] = np.maximum(xyxy[:, 2:], xyxy[:, :2] + 1)
        kinds = np.concatenate([np.repeat(classes, 2), rng.integers(0, 3, len(noise))])
        scores = rng.uniform(0, 1, len(xyxy)).round(2)
        truth.append((true.astype(np.float32), classes))
        found.append(Predicted(xyxy.astype(np.float32), scores.astype(np.float32), kinds))
    return truth, found


def coco(truth: Any, found: Any, classes: int) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for frame, ((xyxy, kinds), guess) in enumerate(zip(truth, found, strict=True), 1):
        for box, kind in zip(xyxy, kinds, strict=True):
            x, y, w, h = xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": frame,
                    "category_id": int(kind) + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        for box, kind, score in zip(guess.xyxy, guess.classes, guess.scores, strict=True):
            results.append(
                {"image_id": frame, "category_id": int(kind) + 1, "bbox": xywh(box), "score": float(score)}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": number + 1} for number in range(len(truth))],
            "annotations": annotations,
            "categories": [{"id": number + 1} for number in range(classes)],
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def xywh(box: Any) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]
