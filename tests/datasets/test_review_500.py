"""A whole queue: 500 crops, two annotators at the API, and one at the real page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.review_bench import CLASSES
from tests.review_browser import (
    choose,
    chromium,
    drag_box,
    log_in,
    open_queue,
    screenshot,
    shown_task,
    submit,
    wait_for_other_task,
)
from tests.review_case import Make
from tests.review_people import Annotator

from labelmill.annotators.review.server import LabelStudioServer
from labelmill.datasets.versions.content import version_tables

pytestmark = pytest.mark.server

ARTIFACTS = Path(__file__).parents[2] / "artifacts"


@pytest.mark.timeout(600)
def test_500_crops_are_pushed_decided_pulled_and_routed(
    make: Make, people: list[Annotator], label_studio: LabelStudioServer
) -> None:
    case = make(images=125, review="{group_similarity: 1.01, audit_share: 0}")
    pushed = case.push()
    assert (pushed["new"], pushed["queue"]) == (500, 500)
    truth = case.truth()
    project = case.project()
    tasks = {task["id"]: task for task in case.tasks()}
    said: dict[str, str] = {}

    for number in range(30):  # as the queue hands them out
        person = people[number % 2]
        task = person.next(project)
        assert task is not None
        region = task["data"]["region_id"]
        assert region not in said
        said[region] = truth[region] if number % 10 else "NG"
        person.answer(task["id"], said[region], seconds=1.5)

    access = label_studio.access()
    assert access is not None
    moved, inwards = "", (0, 0)
    with chromium() as page:
        log_in(page, access)
        open_queue(page, access, project)
        for label in (CLASSES[2], "NG", "disc"):
            number = shown_task(page)
            region = tasks[number]["data"]["region_id"]
            assert region not in said
            if not moved:
                moved = region
                value = tasks[number]["predictions"][0]["result"][1]["value"]
                inwards = (24 if value["x"] < 40 else -24, 18 if value["y"] < 40 else -18)
                drag_box(page, (value["x"], value["y"], value["width"], value["height"]), inwards)
                screenshot(page, ARTIFACTS / "review.png")
            choose(page, label)
            assert submit(page)["task"] == number
            said[region] = label
            wait_for_other_task(page, number)
    assert len(said) == 33

    report = case.pull()
    assert (report["new_answers"], report["decided"], report["disputed"]) == (33, 33, 0)
    assert case.standing() == said
    assert Counter(row["annotator"] for row in case.decisions()) == {
        people[0].email: 15, people[1].email: 15, access.login: 3,
    }  # fmt: skip
    boxes = {row["region_id"]: row["xyxy"] for row in case.decisions() if row["xyxy"]}
    assert list(boxes) == [moved]
    regions = pq.read_table(case.workspace.table("regions"))
    proposed = dict(zip(regions["region_id"].to_pylist(), regions["xyxy"].to_pylist(), strict=True))[moved]
    steps = [new - old for new, old in zip(boxes[moved], proposed, strict=True)]
    scale = inwards[0] / steps[0]
    assert steps == pytest.approx([side / scale for side in (*inwards, *inwards)], abs=0.5)

    # Routed: a dataset version holds what people decided, under their label, and nothing that still waits.
    frames = pq.read_table(case.workspace.table("frames"))
    _, rows = version_tables(frames, regions, pq.read_table(case.workspace.table("decisions")))
    assert dict(zip(rows["region_id"].to_pylist(), rows["label"].to_pylist(), strict=True)) == said
    assert set(rows["decided_by"].to_pylist()) == {"person"}

    again = case.push()
    assert (again["new"], again["opened"], again["removed"]) == (0, 0, 0)
    assert len(case.tasks()) == 500
    status = case.status()
    assert (status["open"], status["answered"], status["tasks"]) == (467, 33, 500)
