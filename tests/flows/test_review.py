"""Review within the factory flow: real Prefect server, real Label Studio."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import prefect
from tests.flows.test_factory import flow_runs, labelmill
from tests.review_bench import make_review_line
from tests.review_case import Case
from tests.review_people import Annotator

from labelmill.annotators.review.server import LabelStudioServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


@pytest.fixture
def environment(prefect_environment: dict[str, str], label_studio: LabelStudioServer) -> dict[str, str]:
    return {**prefect_environment, "LABELMILL_SERVICES": str(label_studio.root.parent)}


@pytest.fixture
def case(tmp_path: Path, label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("LABELMILL_SERVICES", str(label_studio.root.parent))
    review = "{group_similarity: 1.01, poll_s: 0.5, audit_share: 0}"
    return Case(make_review_line(tmp_path / "line", 1, review=review), label_studio)


@pytest.fixture
def ann(label_studio: LabelStudioServer) -> Iterator[Annotator]:
    access = label_studio.access()
    assert access is not None
    person = Annotator(access, "flo")
    yield person
    person.client.close()


def answer_all(case: Case, person: Annotator) -> dict[str, str]:
    said = {}
    for task in case.tasks():
        said[task["data"]["region_id"]] = "disc"
        person.answer(task["id"], "disc")
    return said


def until(what: Callable[[], Any], patience_s: float = 240.0) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.5)
    return found


def test_a_line_that_goes_on_publishes_what_is_certain(case: Case, environment: dict[str, str]) -> None:
    case.set(review="{wait: continue}")
    done = labelmill(
        environment, "run", str(case.file), "-w", str(case.workspace.root), "--json", "--no-publish"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["review"]
    assert (report["new"], report["waited"]) == (4, False)


def test_a_run_of_the_command_line_waits_for_the_queue(
    case: Case, environment: dict[str, str], ann: Annotator
) -> None:
    words = ["run", str(case.file), "-w", str(case.workspace.root), "--json", "--no-publish"]
    run = subprocess.Popen(
        [sys.executable, "-m", "labelmill.cli", *words], env=environment, stdout=subprocess.PIPE
    )
    try:
        until(lambda: case.project() and len(case.tasks()) == 4)
        assert run.poll() is None
        said = answer_all(case, ann)
        out, _ = run.communicate(timeout=240)
    finally:
        run.kill()
        run.wait()
    report = json.loads(out)["review"]
    assert (run.returncode, report["open"], report["decided"], report["waited"]) == (0, 0, 4, True)
    assert case.standing() == said


def test_a_deployed_run_is_suspended_and_resumed(
    case: Case, deployed: str, environment: dict[str, str], ann: Annotator
) -> None:
    place = (str(case.file), "-w", str(case.workspace.root))

    def state() -> str:
        (mine,) = [r for r in flow_runs(environment) if r["parameters"].get("line") == str(case.file)]
        name: str = mine["state"]["name"]
        assert name not in ("Failed", "Crashed"), mine["state"]
        return name

    parameters = [f"line={case.file}", f"workspace={case.workspace.root}", "publish=false"]
    words = [word for parameter in parameters for word in ("--param", parameter)]
    services = json.dumps({"LABELMILL_SERVICES": environment["LABELMILL_SERVICES"]})
    prefect(environment, "deployment", "run", deployed, *words, "--job-variable", f"env={services}")
    until(lambda: state() == "Suspended")
    assert len(case.tasks()) == 4
    # Half an answer resumes nothing.
    ann.answer(case.tasks()[0]["id"], "bar")
    pulled = labelmill(environment, "review", "pull", *place, "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert json.loads(pulled.stdout)["resumed"] is False
    assert state() == "Suspended"
    for task in case.tasks()[1:]:
        ann.answer(task["id"], "disc")
    pulled = labelmill(environment, "review", "pull", *place, "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert json.loads(pulled.stdout)["resumed"] is True
    until(lambda: state() == "Completed")
    assert sorted(case.standing().values()) == ["bar", "disc", "disc", "disc"]
    assert not (case.workspace.root / "review" / "suspended.json").exists()
