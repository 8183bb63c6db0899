"""How fast the review queue fills and empties: `python -m benchmarks.review`.

A Label Studio of its own is started for the measurement. 10,000 tasks as a line makes them (five pictures,
facts, a prediction of label and box) are pushed; the same tasks are also sent one request at a time, a few
hundred of them. Then 100 answers among the 10,000 are pulled.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import describe
from labelmill.annotators.review.client import Studio
from labelmill.annotators.review.config import ReviewConfig
from labelmill.annotators.review.label_config import build, choices
from labelmill.annotators.review.push import push
from labelmill.annotators.review.server import Access, LabelStudioServer
from labelmill.annotators.review.tasks import MODEL_VERSION, Question, prediction, task_data
from labelmill.datasets import tables
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.review.desk import SAMPLING, Desk
from labelmill.datasets.review.state import read_state
from labelmill.datasets.workspace import Workspace
from labelmill.files import digest_text

TASKS = 10_000
ONE_BY_ONE = 300
EARLIER, NEW = 500, 100
CLASSES = tuple(f"class {number}" for number in range(10))
RESULTS = Path(__file__).parents[1] / "docs" / "results"
_WINDOW_S = 65.0
"""A pull reads the last minute again; the earlier answers must lie before it, as they would in real work."""


def make_tasks(count: int) -> dict[str, dict[str, Any]]:
    draw = random.Random(0)
    answers = choices(CLASSES)
    made = {}
    for number in range(count):
        region = digest_text("region", str(number), hex_digits=32)
        picture = digest_text("picture", str(number))
        address = f"/data/local-files/?d=0123456789abcdef/{picture[:2]}/{picture}.jpg"
        question = Question(
            region_id=region, crop=address, frame=address, frame_wh=(1920, 1080), xyxy=(100, 200, 400, 600),
            templates=(address, address), group_sheet=address, nearest=CLASSES[number % 10],
            runner_up=CLASSES[(number + 1) % 10], label=CLASSES[number % 10], similarity=draw.random(),
            margin=draw.random() / 10, threshold=0.8, reason="leads class 1 by 0.012 < margin 0.030",
            members=(), value=draw.random(),
        )  # fmt: skip
        made[region] = {"data": task_data(question), "predictions": [prediction(question, answers)]}
    return made


def one_by_one(access: Access, project: int, tasks: list[dict[str, Any]]) -> float:
    """Tasks a second, when each is a request, and each prediction another."""
    headers = {"Authorization": f"Token {access.token}"}
    with httpx.Client(base_url=access.url, headers=headers, timeout=120) as client:
        started = time.perf_counter()
        for task in tasks:
            made = client.post("/api/tasks/", json={"project": project, "data": task["data"]})
            made.raise_for_status()
            body = {"task": made.json()["id"], "project": project, **task["predictions"][0]}
            client.post("/api/predictions/", json=body).raise_for_status()
        return len(tasks) / (time.perf_counter() - started)


def answer(access: Access, numbers: list[int]) -> None:
    """Give answers, as two annotators' browsers would."""
    headers = {"Authorization": f"Token {access.token}"}
    part = {"id": "l", "from_name": "label", "to_name": "crop", "type": "choices"}
    with httpx.Client(base_url=access.url, headers=headers, timeout=300) as client:

        def one(number: int) -> None:
            result = [{**part, "value": {"choices": [CLASSES[number % 10]]}}]
            body = {"result": result, "lead_time": 2.0}
            client.post(f"/api/tasks/{number}/annotations/", json=body).raise_for_status()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, numbers))


def make_desk(folder: Path, server: LabelStudioServer, regions: list[str]) -> Desk:
    """A workspace with 10,000 regions, and the desk that pulls into it."""
    for name in CLASSES:
        (folder / "templates" / name).mkdir(parents=True)
        (folder / "templates" / name / "a.png").write_bytes(b"")
    (folder / "footage").mkdir()
    config = AnnotationConfig.model_validate(
        {"name": "bench", "sources": [{"images": "footage"}], "templates": {"folder": "templates"}},
        context={"base": folder},
    )
    workspace = Workspace(folder / "ws")
    workspace.tables.mkdir(parents=True)
    columns = {f.name: pa.nulls(len(regions), f.type) for f in tables.REGIONS}
    columns["region_id"] = pa.array(regions)
    pq.write_table(pa.table(columns), workspace.table("regions"))
    return Desk(config, ReviewConfig(), workspace, server=server)


def measure(server: LabelStudioServer, folder: Path) -> dict[str, Any]:
    access = server.up(say=print)
    studio = Studio(access.url, access.token)
    page = build(CLASSES)
    wanted = make_tasks(TASKS)

    def new_project(description: str) -> int:
        settings = {"label_config": page, "sampling": SAMPLING, "description": description}
        return studio.create_project("labelmill bench", **settings).id

    single = one_by_one(access, new_project("one by one"), list(wanted.values())[:ONE_BY_ONE])
    print(f"one request a task: {single:.1f} tasks/s")

    desk = make_desk(folder, server, list(wanted))
    project = new_project(read_state(desk.workspace, "bench").marker)
    importing = Importing(access.url, access.token)
    report = push(importing, project, wanted, overlap=1)
    importing.close()
    assert report.new == TASKS, asdict(report)
    rate = TASKS / importing.seconds
    print(f"import: {rate:.0f} tasks/s; the whole push: {TASKS / report.seconds:.0f} tasks/s")
    again = push(studio, project, wanted, overlap=1)
    assert (again.new, again.kept) == (0, TASKS)
    print(f"pushed again: nothing to do, {again.seconds:.1f} s")
    studio.update_project(project, model_version=MODEL_VERSION)

    numbers = [task.id for task in studio.tasks(project)]
    random.Random(1).shuffle(numbers)
    answer(access, numbers[:EARLIER])
    started = time.perf_counter()
    assert desk.pull()["new_answers"] == EARLIER
    first_s = time.perf_counter() - started
    pulls = []
    for turn in range(3):
        time.sleep(_WINDOW_S)
        answer(access, numbers[EARLIER + turn * NEW : EARLIER + (turn + 1) * NEW])
        started = time.perf_counter()
        report_pull = desk.pull()
        pulls.append(time.perf_counter() - started)
        assert report_pull["new_answers"] == NEW
        print(f"incremental pull of {NEW} answers: {pulls[-1]:.2f} s", flush=True)
    desk.close()
    studio.close()
    return {
        "machine": describe(),
        "tasks": TASKS,
        "import_tasks_per_s": round(rate, 1),
        "push_tasks_per_s": round(TASKS / report.seconds, 1),
        "one_by_one_tasks_per_s": round(single, 1),
        "times_faster": round(rate / single, 1),
        "push_again_s": round(again.seconds, 2),
        "first_pull_of_500_s": round(first_s, 2),
        "incremental_pull_of_100_s": [round(spent, 2) for spent in pulls],
    }


class Importing(Studio):
    """A server whose imports are timed: the requests alone, every one of them."""

    seconds = 0.0

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add tasks."""
        started = time.perf_counter()
        made = super().import_tasks(project, tasks)
        self.seconds += time.perf_counter() - started
        return made


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        server = LabelStudioServer(Path(name) / "label-studio")
        try:
            found = measure(server, Path(name))
        finally:
            server.down()
    pulls = sorted(found["incremental_pull_of_100_s"])
    rows = [
        (
            f"import of {TASKS:,} tasks with predictions",
            f"{found['import_tasks_per_s']:,.0f} tasks/s",
            "≥ 500",
        ),
        ("the whole push: look, import, look again", f"{found['push_tasks_per_s']:,.0f} tasks/s", ""),
        ("one request a task and a prediction", f"{found['one_by_one_tasks_per_s']:,.1f} tasks/s", ""),
        ("import against one request each", f"{found['times_faster']:,.0f} times", ""),
        ("pushed again, nothing changed", f"{found['push_again_s']:.1f} s", ""),
        (f"pull of {NEW} new answers, median of {len(pulls)}", f"{pulls[len(pulls) // 2]:.2f} s", "≤ 2 s"),
    ]
    pulled = ", ".join(f"{spent:.2f}" for spent in pulls)
    text = f"""# The review queue's speed

`python -m benchmarks.review` on {found["machine"]}. Label Studio 1.23.2 with SQLite, on the same machine;
{TASKS:,} tasks in one project, imported 1,000 a request; {EARLIER} had been answered before.

| what | figure | aim |
|---|---|---|
""" + "".join(f"| {what} | {figure} | {aim} |\n" for what, figure, aim in rows)
    text += f"\nThe pulls took {pulled} s. The import is the sum of its requests, the first one included.\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "review.md").write_text(text)
    (RESULTS / "review.json").write_text(json.dumps(found, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
