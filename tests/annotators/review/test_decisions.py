"""From answers to decisions that count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labelmill.annotators.review import ledger
from labelmill.annotators.review.client import RemoteTask
from labelmill.annotators.review.consensus import alpha, settle
from labelmill.annotators.review.decisions import Verdicts, decide
from labelmill.errors import ReviewError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ANSWERS = ("a", "b", "NG", "not sure")


def row(number: int, person: str, label: str | None, region: str = "r", **changes: Any) -> ledger.Row:
    at = NOON + timedelta(minutes=number)
    return {
        "origin": "s#1", "annotation": number, "task": 1, "region_id": region, "members": [], "label": label,
        "xyxy": None, "group": False, "skipped": False, "retracted": False, "annotator": person,
        "created_at": at, "updated_at": at, "seconds": 4.0, "result": "[]",
    } | changes  # fmt: skip


def standing(verdicts: Verdicts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for decision in verdicts.table.to_pylist():
        if not decision["superseded"]:
            found.setdefault(decision["region_id"], []).append(decision["label"])
    return found


@pytest.mark.parametrize(
    ("votes", "answer", "agreement"),
    [
        ({}, None, None),
        ({"x": "a"}, "a", None),
        ({"x": "a", "y": "a"}, "a", 1.0),
        ({"x": "a", "y": "b"}, None, 0.5),
        ({"x": "a", "y": "b", "z": "a"}, "a", 2 / 3),
        ({"x": "a", "y": "not sure"}, "a", None),
        ({"x": "not sure", "y": "not sure"}, "not sure", None),
        ({"x": "a", "y": "b", "z": "NG"}, None, 1 / 3),
        ({"w": "a", "x": "a", "y": "b", "z": "b"}, None, 0.5),
    ],
)
def test_settling(votes: dict[str, str], answer: str | None, agreement: float | None) -> None:
    assert settle(votes) == (answer, agreement)


def test_alpha_of_the_textbook() -> None:
    # Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, gaps.
    sheet = {
        "A": "1 2 3 3 2 1 4 1 2 . . .", "B": "1 2 3 3 2 2 4 1 2 5 . 3",
        "C": ". 3 3 3 2 3 4 2 2 5 1 .", "D": "1 2 3 3 2 4 4 1 2 5 1 .",
    }  # fmt: skip
    votes: list[dict[str, str]] = [{} for _ in range(12)]
    for person, said in sheet.items():
        for unit, answer in enumerate(said.split()):
            if answer != ".":
                votes[unit][person] = answer
    assert alpha(votes) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("votes", [[], [{"x": "a"}], [{"x": "a", "y": "a"}], [{"x": "a", "y": "not sure"}]])
def test_alpha_is_not_defined_without_two_who_could_disagree(votes: list[dict[str, str]]) -> None:
    assert alpha(votes) is None


def test_one_answer_is_one_decision_with_everything() -> None:
    verdicts = decide([row(1, "ann", "a", xyxy=[1.0, 2.0, 3.0, 4.0])], ANSWERS)
    (decision,) = verdicts.table.to_pylist()
    assert len(decision.pop("decision_id")) == 32
    assert decision == {
        "region_id": "r", "label": "a", "xyxy": [1.0, 2.0, 3.0, 4.0], "annotator": "ann",
        "decided_at": NOON + timedelta(minutes=1), "seconds": 4.0, "source": "label-studio",
        "agreement": None, "superseded": False,
    }  # fmt: skip
    assert (verdicts.labels, verdicts.decided) == ({"r": "a"}, {"r"})


def test_a_later_word_of_the_same_person_replaces_the_earlier() -> None:
    first = row(1, "ann", "a")
    again = first | {"label": "b", "updated_at": NOON + timedelta(hours=1)}
    verdicts = decide([first, again, row(2, "ann", "NG", updated_at=NOON + timedelta(hours=2))], ANSWERS)
    assert standing(verdicts) == {"r": ["NG"]}
    assert [d["superseded"] for d in verdicts.table.to_pylist()] == [True, True, False]


def test_a_dispute_counts_for_nothing_until_settled() -> None:
    torn = [row(1, "ann", "a"), row(2, "bob", "b")]
    verdicts = decide(torn, ANSWERS)
    assert (standing(verdicts), verdicts.disputed, verdicts.decided) == ({}, {"r"}, set())
    verdicts = decide([*torn, row(3, "cid", "b")], ANSWERS)
    assert (standing(verdicts), verdicts.disputed) == ({"r": ["b", "b"]}, set())
    assert {d["agreement"] for d in verdicts.table.to_pylist()} == {2 / 3}


def test_a_groups_answer_holds_for_its_members_and_divides_its_time() -> None:
    verdicts = decide([row(1, "ann", "a", members=["s", "t"], group=True, xyxy=[0, 0, 1, 1])], ANSWERS)
    assert verdicts.labels == {"r": "a", "s": "a", "t": "a"}
    rows = verdicts.table.to_pylist()
    assert sum(d["seconds"] for d in rows) == pytest.approx(4.0)
    assert [d["region_id"] for d in rows if d["xyxy"]] == ["r"]
    assert len({d["decision_id"] for d in rows}) == 3


def test_what_was_said_of_a_crop_itself_goes_before_its_group() -> None:
    said = [row(1, "ann", "a", members=["s"], group=True), row(2, "bob", "b", region="s")]
    assert decide(said, ANSWERS).labels == {"r": "a", "s": "b"}
    assert decide(said[::-1], ANSWERS).labels == {"r": "a", "s": "b"}


def test_an_answer_for_one_crop_refuses_the_group() -> None:
    verdicts = decide([row(1, "ann", "a", members=["s", "t"])], ANSWERS)
    assert (verdicts.labels, verdicts.refused) == ({"r": "a"}, {"s", "t"})


def test_nothing_said_decides_nothing() -> None:
    said = [
        row(1, "ann", None),
        row(2, "bob", None, region="s", skipped=True),
        row(3, "cid", "z", region="t"),
    ]
    verdicts = decide(said, ANSWERS)
    assert (verdicts.empty, verdicts.skipped, verdicts.unknown) == ({"r", "t"}, {"s"}, {"z": 1})
    assert standing(verdicts) == {}
    assert [d["label"] for d in verdicts.table.to_pylist()] == ["z"]  # kept, in case it becomes a class
    assert decide(said, (*ANSWERS, "z")).labels == {"t": "z"}


def test_retracted_answers_keep_their_row_and_count_no_more() -> None:
    first = row(1, "ann", "a")
    verdicts = decide([first, first | {"retracted": True}], ANSWERS)
    assert (standing(verdicts), verdicts.table.num_rows) == ({}, 1)
    back = decide([first, first | {"retracted": True}, first], ANSWERS)
    assert standing(back) == {"r": ["a"]}


def test_decisions_on_withdrawn_regions_wait_for_their_return() -> None:
    said = [row(1, "ann", "a"), row(2, "ann", "b", region="s")]
    assert standing(decide(said, ANSWERS, {"s"})) == {"s": ["b"]}
    assert standing(decide(said, ANSWERS, {"r", "s"})) == {"r": ["a"], "s": ["b"]}


def task(number: int, *answers: dict[str, Any], **data: Any) -> RemoteTask:
    fields = {"region_id": f"r{number}", "members": [], "xyxy": [0, 0, 9, 9]} | data
    return RemoteTask(number, fields, len(answers), 0, 1, None, 1, False, None, answers)


def annotation(number: int, label: str, minute: int = 0, person: int = 7) -> dict[str, Any]:
    at = (NOON + timedelta(minutes=minute)).isoformat()
    part = {"from_name": "label", "value": {"choices": [label]}}
    return {
        "id": number,
        "result": [part],
        "created_at": at,
        "updated_at": at,
        "completed_by": person,
        "lead_time": 1.5,
    }


def test_the_ledger_takes_each_change_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.parquet"
    assert ledger.read(path) == []
    rows = ledger.new_rows([], [task(1, annotation(5, "a"))], "s#1", {7: "ann"})
    ledger.write(path, rows)
    assert ledger.read(path) == rows
    assert ledger.new_rows(rows, [task(1, annotation(5, "a"))], "s#1", {7: "ann"}) == []
    changed = ledger.new_rows(rows, [task(1, annotation(5, "b", minute=1))], "s#1", {})
    assert [(r["label"], r["annotator"]) for r in changed] == [("b", "user 7")]
    removed = ledger.new_rows([*rows, *changed], [task(1)], "s#1", {})
    assert [(r["label"], r["retracted"]) for r in removed] == [("b", True)]
    assert ledger.new_rows([*rows, *changed, *removed], [task(1)], "s#1", {}) == []


def test_equal_numbers_of_another_project_are_another_answer() -> None:
    rows = ledger.new_rows([], [task(1, annotation(5, "a"))], "s#1@monday", {})
    again = ledger.new_rows(rows, [task(1, annotation(5, "b"))], "s#1@tuesday", {})
    assert [r["label"] for r in again] == ["b"]
    verdicts = decide([*rows, *again], ANSWERS)
    assert verdicts.table.num_rows == 2


def test_tasks_added_by_hand_are_none_of_ours() -> None:
    assert ledger.new_rows([], [task(1, annotation(5, "a"), region_id=None)], "s#1", {}) == []


def test_a_review_error_is_one_line() -> None:
    assert "\n" not in str(ReviewError("a", got="b\nc", do="d"))
