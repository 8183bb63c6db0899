"""The verbs `review` and `services`, and pulling on a webhook, against a real Label Studio."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.review_case import Make
from tests.review_people import Annotator

from labelmill.annotators.review.server import LabelStudioServer
from labelmill.cli import main
from labelmill.datasets.review.watch import watch

pytestmark = pytest.mark.server


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    seen = capsys.readouterr()
    code = left.value.code
    return (code if isinstance(code, int) else 1), seen.out, seen.err


def test_services_are_started_once_and_keep_their_secrets(
    label_studio: LabelStudioServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABELMILL_SERVICES", str(label_studio.root.parent))
    access = label_studio.access()
    assert access is not None
    process = (label_studio.root / "process.json").read_text()
    code, out, _ = run(capsys, "services", "up", "label-studio", "--json")
    assert (code, json.loads(out)["label-studio"]["url"]) == (0, access.url)
    assert (label_studio.root / "process.json").read_text() == process  # it ran already
    code, out, _ = run(capsys, "services", "status", "label-studio")
    assert (code, out.split(",")[0]) == (0, f"label-studio: {access.url}")
    assert access.password not in out
    assert (label_studio.root / "access.json").stat().st_mode & 0o777 == 0o600
    assert (label_studio.root / "data").stat().st_mode & 0o077 == 0
    code, _, err = run(capsys, "services", "up", "label-maker")
    assert code == 2
    assert "unknown service 'label-maker'" in err


def test_push_pull_and_status_from_the_command_line(
    make: Make, people: list[Annotator], capsys: pytest.CaptureFixture[str]
) -> None:
    case = make(images=1)
    place = (case.file, "-w", case.workspace.root)
    code, out, err = run(capsys, "review", "status", *place)
    assert (code, out) == (0, "no project yet: run `labelmill review push LINE`\n"), err
    code, out, err = run(capsys, "review", "push", *place, "--json")
    assert (code, json.loads(out)["new"]) == (0, 4), err
    code, out, _ = run(capsys, "review", "push", *place)
    assert (code, out.splitlines()[0][:52]) == (0, "0 new tasks, 0 updated, 0 reopened, 0 closed, 4 as t")
    people[0].answer(case.tasks()[0]["id"], "disc")
    code, out, _ = run(capsys, "review", "pull", *place)
    assert (code, out.splitlines()[0][:35]) == (0, "1 new answers; 1 regions decided, 0")
    code, out, _ = run(capsys, "review", "status", *place, "--json")
    found = json.loads(out)
    assert {k: found[k] for k in ("tasks", "open", "answered", "decided")} == {
        "tasks": 4, "open": 3, "answered": 1, "decided": 1,
    }  # fmt: skip
    code, _, err = run(capsys, "review", "push", case.file, "-w", case.file.parent / "other")
    assert code == 2
    assert "nothing was annotated" in err


def test_without_a_server_the_way_to_one_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make(images=1)
    monkeypatch.setenv("LABELMILL_SERVICES", str(tmp_path / "none"))
    code, _, err = run(capsys, "review", "push", case.file, "-w", case.workspace.root)
    assert code == 2
    assert "no review server" in err
    assert "labelmill services up" in err
    case.set(review="{url: 'http://127.0.0.1:9'}")
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    code, _, err = run(capsys, "review", "push", case.file, "-w", case.workspace.root)
    assert code == 2
    assert "$LABEL_STUDIO_API_KEY is empty" in err


@pytest.mark.parametrize("listen", [0, None])
def test_answers_are_pulled_as_they_come(make: Make, people: list[Annotator], listen: int | None) -> None:
    case = make(images=1)
    case.push()
    reports: list[dict[str, Any]] = []
    first = threading.Event()

    def pulled(report: dict[str, Any]) -> bool:
        reports.append(report)
        first.set()
        return True

    def answer() -> None:
        assert first.wait(60)
        for task in case.tasks():
            people[0].answer(task["id"], "bar")

    person = threading.Thread(target=answer)
    person.start()
    # With a webhook nothing is polled for ten minutes: only the server's word can bring the answers.
    last = watch(
        case.line, case.line.review, case.workspace, every_s=0.5 if listen is None else 600,
        listen=listen, until_done=True, pulled=pulled,
    )  # fmt: skip
    person.join()
    assert reports[0]["decided"] == 0
    assert (last["decided"], last["open"]) == (4, 0)
    assert sum(report["new_answers"] for report in reports) == 4
