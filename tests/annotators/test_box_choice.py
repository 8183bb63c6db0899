from __future__ import annotations

import numpy as np
import pytest

from labelmill.annotators.box_choice import choose, suppress, to_xyxy
from labelmill.annotators.prompts import Prompt

PROMPTS = tuple(
    Prompt.model_validate({"phrase": phrase, "class": name})
    for phrase, name in (("hand", "hand"), ("work glove", "hand"), ("bottle", "bottle"))
)


def run(
    boxes: list[list[float]],
    scores: list[list[float]],
    *,
    box_threshold: float = 0.3,
    text_threshold: float = 0.25,
    nms_iou: float | None = 0.7,
) -> list[tuple[list[float], float, str, str]]:
    found = choose(
        np.array(boxes, dtype=np.float32),
        np.array(scores, dtype=np.float32),
        PROMPTS,
        (200, 100),
        box_threshold=box_threshold,
        text_threshold=text_threshold,
        nms_iou=nms_iou,
    )
    assert found.xyxy.dtype == np.float32
    assert found.confidence is not None
    return [
        (box, round(float(score), 3), str(name), str(text))
        for box, score, name, text in zip(
            found.xyxy.tolist(), found.confidence, found.data["phrase"], found.data["text"], strict=True
        )
    ]


LEFT, RIGHT = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]
LEFT_XYXY, RIGHT_XYXY = [0.0, 0.0, 100.0, 100.0], [100.0, 0.0, 200.0, 100.0]


def test_phrases_of_one_class_answer_with_the_class() -> None:
    assert run([LEFT, RIGHT], [[0.1, 0.4, 0.2], [0.0, 0.1, 0.9]]) == [
        (RIGHT_XYXY, 0.9, "bottle", "bottle"),
        (LEFT_XYXY, 0.4, "hand", "work glove"),
    ]


def test_one_object_keeps_one_class() -> None:
    assert run([LEFT], [[0.5, 0.4, 0.6]]) == [(LEFT_XYXY, 0.6, "bottle", "bottle")]


def test_without_suppression_every_phrase_above_the_text_threshold_answers() -> None:
    found = run([LEFT], [[0.5, 0.26, 0.25]], nms_iou=None)
    assert [(score, text) for _, score, _, text in found] == [(0.5, "hand"), (0.26, "work glove")]


@pytest.mark.parametrize(
    ("box_threshold", "text_threshold", "expected"),
    [(0.3, 0.25, 1), (0.5, 0.25, 0), (0.3, 0.55, 0), (0.0, 0.0, 1)],
)
def test_both_thresholds_must_be_passed(box_threshold: float, text_threshold: float, expected: int) -> None:
    found = run([LEFT], [[0.5, 0.0, 0.0]], box_threshold=box_threshold, text_threshold=text_threshold)
    assert len(found) == expected


def test_boxes_are_cut_at_the_edge_and_slivers_dropped() -> None:
    outside, sliver, beyond = [0.0, 0.5, 0.5, 3.0], [0.5, 0.5, 0.001, 0.5], [1.5, 0.5, 0.5, 0.5]
    found = run([outside, sliver, beyond], [[0.9, 0, 0]] * 3)
    assert found == [([0.0, 0.0, 50.0, 100.0], 0.9, "hand", "hand")]


def test_no_candidate_gives_empty_detections() -> None:
    found = choose(
        np.zeros((0, 4), np.float32),
        np.zeros((0, 3), np.float32),
        PROMPTS,
        (10, 10),
        box_threshold=0.3,
        text_threshold=0.25,
        nms_iou=0.5,
    )
    assert len(found) == 0
    assert found.data["phrase"].tolist() == []


def test_equal_scores_keep_the_earlier_query() -> None:
    assert run([LEFT, [0.25, 0.5, 0.49, 1.0]], [[0.5, 0, 0], [0.5, 0, 0]])[0][0] == LEFT_XYXY


def test_suppression_is_greedy_and_by_overlap() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [20, 0, 30, 10]], dtype=np.float32)
    assert suppress(boxes, 0.7).tolist() == [
        0,
        2,
        3,
    ]  # 0.8 goes; 0.4 stays, though 0.5 with the one that went
    assert suppress(boxes, 0.8).tolist() == [0, 1, 2, 3]
    assert suppress(boxes[:0], 0.5).tolist() == []


def test_relative_boxes_become_pixels() -> None:
    assert to_xyxy(np.array([[0.5, 0.25, 0.5, 0.5]], np.float32), (640, 360)).tolist() == [[160, 0, 480, 180]]
