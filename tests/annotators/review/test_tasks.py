"""Regions as tasks, annotations as answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from labelmill.annotators.review.tasks import Answer, Question, prediction, read_answer, score, task_data
from labelmill.errors import ReviewError

QUESTION = Question(
    region_id="r1", crop="/c", frame="/f", frame_wh=(200, 100), xyxy=(20.0, 10.0, 120.0, 60.0),
    templates=("/t1", "/t2"), group_sheet="/g", nearest="hand", runner_up="tool", label="hand",
    similarity=0.8125, margin=0.0125, threshold=0.75, reason="close", members=("r2",), value=0.25,
)  # fmt: skip


def test_a_task_shows_what_the_page_needs() -> None:
    data = task_data(QUESTION)
    assert data["facts"] == "similarity 0.812 · margin 0.013 · λ 0.750 · 2 near-identical crops"
    assert (data["caption_1"], data["caption_2"]) == ("Nearest: hand", "Second: tool")
    assert (data["region_id"], data["members"], data["note"]) == ("r1", ["r2"], "close")


def test_a_lone_class_has_no_margin_to_show() -> None:
    data = task_data(replace(QUESTION, runner_up="", margin=math.nan, members=()))
    assert data["facts"] == "similarity 0.812 · λ 0.750"
    assert data["caption_2"] == "No second class"


def test_the_fingerprint_follows_everything_shown_and_not_the_order() -> None:
    same = task_data(replace(QUESTION, value=0.9))["fingerprint"]
    other = task_data(replace(QUESTION, reason="far"))["fingerprint"]
    assert task_data(QUESTION)["fingerprint"] == same
    assert other != same


def test_a_prediction_carries_label_box_and_order() -> None:
    found = prediction(QUESTION, ("hand", "tool", "NG", "not sure"))
    label, box = found["result"]
    assert found["score"] == 0.75
    assert label["value"] == {"choices": ["hand"]}
    sides = {name: box["value"][name] for name in ("x", "y", "width", "height")}
    assert sides == {"x": 10.0, "y": 10.0, "width": 50.0, "height": 50.0}


def test_a_prediction_outside_the_classes_is_refused() -> None:
    with pytest.raises(ReviewError, match="does not fit the labelling page"):
        prediction(QUESTION, ("tool", "NG", "not sure"))


@pytest.mark.parametrize(("value", "place"), [(1.0, 0.0), (0.0, 1.0), (0.25, 0.75), (-3, 1.0), (7, 0.0)])
def test_the_most_valuable_has_the_lowest_score(value: float, place: float) -> None:
    assert score(value) == place


def part(control: str, **value: Any) -> dict[str, Any]:
    return {"from_name": control, "original_width": 200, "original_height": 100, "value": value}


PROPOSED = (20.0, 10.0, 120.0, 60.0)


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ([], Answer(None, None, False)),
        ([part("label", choices=["hand"])], Answer("hand", None, False)),
        ([part("label", choices=[])], Answer(None, None, False)),
        ([part("label", choices=["hand", "tool"])], Answer(None, None, False)),
        ([part("group", choices=["all crops of the group"])], Answer(None, None, True)),
        ([part("group", choices=["other"])], Answer(None, None, False)),
        # left as it was, up to the page's rounding
        ([part("box", x=10.1, y=10.1, width=50, height=50)], Answer(None, None, False)),
        ([part("box", x=20, y=10, width=50, height=50)], Answer(None, (40.0, 10.0, 140.0, 60.0), False)),
        # drawn beyond the frame
        ([part("box", x=-5, y=50, width=20, height=80)], Answer(None, (0.0, 50.0, 30.0, 100.0), False)),
        ([part("box", x=10, y=10, width=0, height=50)], Answer(None, None, False)),
        ([part("box", x="?", y=10, width=10, height=50)], Answer(None, None, False)),
        ([{"from_name": "box", "value": {"x": 1}}], Answer(None, None, False)),
        ([{"from_name": "somebody's own control"}], Answer(None, None, False)),
    ],
)
def test_answers_are_read_whatever_comes(result: list[dict[str, Any]], answer: Answer) -> None:
    assert read_answer(result, PROPOSED) == answer
