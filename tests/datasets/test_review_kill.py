"""The server killed with SIGKILL under push and pull: counts and decisions end exactly right.

Twice here; `python -m benchmarks.review_kills` does it twenty times.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading

import httpx
import pytest
from tests.review_case import Make, owner_of
from tests.review_kills import process_of, under_fire
from tests.review_people import Annotator

from labelmill.annotators.review import push as push_module
from labelmill.annotators.review.client import Studio
from labelmill.annotators.review.server import LabelStudioServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]


def test_a_server_killed_under_a_push_and_a_pull(
    make: Make, people: list[Annotator], label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "CHUNK", 20)
    case = make(images=25, review="{group_similarity: 1.01, audit_share: 0, patience_s: 600}")
    draw = random.Random(1)
    report, hit = under_fire(label_studio, case.push, draw.uniform(0.5, 1.5))
    assert hit
    tasks = case.tasks()
    assert sorted(task["data"]["region_id"] for task in tasks) == sorted(case.truth())
    assert all(len(task["predictions"]) == 1 for task in tasks)
    assert report["queue"] == 100
    said = {}
    for task in tasks[:20]:
        said[task["data"]["region_id"]] = draw.choice(["bar", "disc", "NG"])
        people[0].answer(task["id"], said[task["data"]["region_id"]])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # As when another program took its port meanwhile: the waiting pull finds it at its new one.
    _, hit = under_fire(label_studio, case.pull, draw.uniform(0.0, 0.1), port=port)
    access = label_studio.access()
    assert access is not None
    assert access.url.endswith(f":{port}")
    for person in people:
        person.client.base_url = httpx.URL(access.url)
    case.pull()
    assert hit
    assert case.standing() == said
    assert len(case.decisions()) == 20
    assert case.push()["new"] == 0


def test_a_project_removed_under_a_push_is_one_line_and_a_rerun_finishes(
    make: Make, label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "CHUNK", 4)
    case = make(images=3)
    removed: list[int] = []

    def remove(done: int, total: int, what: str) -> None:
        if what == "adding tasks" and not removed:
            with owner_of(label_studio) as owner:
                removed.append(owner.delete(f"/api/projects/{case.project()}/").status_code)

    with (
        pytest.raises(Exception, match=r"was removed while it was pushed to; run again"),
        case.desk() as desk,
    ):
        desk.push(progress=remove)
    assert removed == [204]
    assert case.push()["new"] == 12


def test_a_server_that_hangs_under_a_push_gets_each_task_once(
    make: Make, label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "CHUNK", 4)
    case = make(images=3)
    process = process_of(label_studio)
    waking: list[threading.Timer] = []

    def hang(done: int, total: int, what: str) -> None:
        if what == "adding tasks" and not waking:
            os.killpg(process, signal.SIGSTOP)
            waking.append(threading.Timer(4.5, os.killpg, (process, signal.SIGCONT)))
            waking[0].start()

    with case.desk() as desk:
        desk.studio = Studio(
            desk.studio.url, desk.studio._token, patience_s=60, timeout_s=2, say=case.said.append
        )
        assert desk.push(progress=hang)["queue"] == 12
    assert any("does not answer" in line for line in case.said)
    # What the server was asked before it hung, it may do after all: the next push removes what is twice.
    assert case.push()["new"] == 0
    tasks = case.tasks()
    assert sorted(task["data"]["region_id"] for task in tasks) == sorted(case.truth())
    assert all(len(task["predictions"]) == 1 for task in tasks)
