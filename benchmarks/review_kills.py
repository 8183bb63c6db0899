"""Label Studio killed under push and pull, twenty times: `python -m benchmarks.review_kills`.

A queue of 400 crops is pushed to a new project, or 40 answers are pulled; each time the server is killed
with SIGKILL at a random moment and started again, until ten kills of each kind fell before the end of the
work. After each, the server's tasks and the decisions table are compared with what they must be.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.review_bench import make_review_line
from tests.review_case import Case, owner_of
from tests.review_kills import under_fire
from tests.review_people import Annotator

from benchmarks.machine import describe
from labelmill.annotators.review import push as push_module
from labelmill.annotators.review.server import LabelStudioServer

ROUNDS = 10
MOST = 25
IMAGES = 100
RESULTS = Path(__file__).parents[1] / "docs" / "results"


def push_round(case: Case, server: LabelStudioServer, after_s: float) -> dict[str, Any]:
    report, hit = under_fire(server, case.push, after_s)
    tasks = case.tasks()
    right = (
        sorted(task["data"]["region_id"] for task in tasks) == sorted(case.truth())
        and all(len(task["predictions"]) == 1 for task in tasks)
        and case.push()["new"] == 0
        and report["queue"] == len(tasks)
    )
    return {
        "what": "push",
        "killed_after_s": round(after_s, 2),
        "hit": hit,
        "tasks": len(tasks),
        "right": right,
    }


def pull_round(
    case: Case,
    server: LabelStudioServer,
    person: Annotator,
    said: dict[str, str],
    draw: random.Random,
    after_s: float,
) -> dict[str, Any]:
    fresh = [task for task in case.tasks() if task["data"]["region_id"] not in said][:40]
    for task in fresh:
        said[task["data"]["region_id"]] = draw.choice(["bar", "disc", "NG"])
        person.answer(task["id"], said[task["data"]["region_id"]])
    _, hit = under_fire(server, case.pull, after_s)
    case.pull()
    right = case.standing() == said and len(case.decisions()) == len(said) and case.push()["new"] == 0
    return {
        "what": "pull",
        "killed_after_s": round(after_s, 2),
        "hit": hit,
        "decisions": len(said),
        "right": right,
    }


def remove_project(case: Case, server: LabelStudioServer) -> None:
    with owner_of(server) as owner:
        owner.delete(f"/api/projects/{case.project()}/").raise_for_status()


def hits(rounds: list[dict[str, Any]], what: str) -> int:
    return sum(r["hit"] for r in rounds if r["what"] == what)


def said_of(holds: bool) -> str:
    return "yes" if holds else "NO"


def main() -> None:
    draw = random.Random(0)
    push_module.CHUNK = 50  # so that a kill falls between and into requests
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["LABELMILL_SERVICES"] = name
        server = LabelStudioServer()
        access = server.up(say=print)
        try:
            review = "{group_similarity: 1.01, audit_share: 0, patience_s: 900}"
            case = Case(make_review_line(Path(name) / "line", IMAGES, review=review), server)
            case.annotate()
            case.push()  # makes the pictures
            remove_project(case, server)
            started = time.perf_counter()
            case.push()
            push_s = time.perf_counter() - started
            started = time.perf_counter()
            case.pull()
            pull_s = time.perf_counter() - started
            while hits(rounds, "push") < ROUNDS and len(rounds) < MOST:
                remove_project(case, server)
                rounds.append(push_round(case, server, draw.uniform(0, push_s)))
                print(rounds[-1], flush=True)
            person = Annotator(access, "ann")
            said: dict[str, str] = {}
            while hits(rounds, "pull") < ROUNDS and len(rounds) < 2 * MOST:
                rounds.append(pull_round(case, server, person, said, draw, draw.uniform(0, pull_s)))
                print(rounds[-1], flush=True)
            person.client.close()
        finally:
            server.down()
    right = sum(r["right"] for r in rounds)
    rows = [
        f"| {number}, {r['what']} | {r['killed_after_s']} | {said_of(r['hit'])} | {said_of(r['right'])} |\n"
        for number, r in enumerate(rounds, start=1)
    ]
    text = f"""# Label Studio killed under push and pull

`python -m benchmarks.review_kills` on {describe()}.

{len(rounds)} times SIGKILL at a random moment of a push of {4 * IMAGES} tasks or of a pull of 40 answers;
{hits(rounds, "push")} fell before the end of a push and {hits(rounds, "pull")} before that of a pull, the
others just after it. {right} of {len(rounds)} ended exactly right: every crop has one task with one
prediction, every answer is one decision with its label, and another push adds nothing.

| round | killed after, s | before the end | right |
|---|---|---|---|
""" + "".join(rows)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "review_kills.md").write_text(text)
    (RESULTS / "review_kills.json").write_text(json.dumps({"rounds": rounds}, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
