"""Worker processes that die, hang and complain; the worker here doubles numbers."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmill.annotators.encoders import lavis_worker
from labelmill.annotators.workers import Worker, WorkerSpec
from labelmill.errors import ServiceError, WeightsError

SCRIPT = f"""
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("pipe", {lavis_worker.__file__!r})
pipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pipe)
marks = sys.argv[1]

def once(name):
    path = os.path.join(marks, name)
    fresh = not os.path.exists(path)
    open(path, "w").close()
    return fresh

while True:
    try:
        header, array = pipe.read_message(sys.stdin.buffer)
    except EOFError:
        break
    task = header.get("task", "")
    if task == "die" or (task == "die once" and once("died")):
        print("out of memory", file=sys.stderr)
        os._exit(3)
    if task == "hang" or (task == "hang once" and once("hung")):
        time.sleep(60)
    if task == "complain":
        pipe.write_message(sys.stdout.buffer, {{"error": "no such model"}})
    elif task == "babble":
        sys.stdout.buffer.write(b"progress: 10%, and more of that sort")
        sys.stdout.buffer.flush()
    else:
        doubled = None if array is None else array * 2
        pipe.write_message(sys.stdout.buffer, {{"hello": header.get("name")}}, doubled)
"""


def check(reply: dict[str, Any]) -> None:
    if "error" in reply:
        raise WeightsError(reply["error"])


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path)]
    worker = Worker(WorkerSpec("doubling", command, dict(os.environ), {"name": "you"}, 30, 2), check)
    yield worker
    worker.close()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 5), np.uint8),
        np.arange(24, dtype=np.int64).reshape(2, 3, 4)[:, ::2],
        np.random.default_rng(0).integers(0, 100, (40, 64, 64, 3), np.uint8),  # more than a pipe holds
    ],
)
def test_arrays_come_and_go_whole(worker: Worker, array: Any) -> None:
    _, doubled = worker.ask({"task": "double"}, array)
    assert doubled.dtype == array.dtype
    np.testing.assert_array_equal(doubled, array * 2)


def test_one_process_answers_many(worker: Worker) -> None:
    assert worker.start() == {"hello": "you"}
    for number in range(5):
        assert worker.ask({"task": ""}, np.full(3, number))[1].sum() == 6 * number
    assert worker.starts == 1


@pytest.mark.parametrize("task", ["die once", "hang once"])
def test_dead_or_hung_it_is_started_anew_once(worker: Worker, task: str) -> None:
    _, doubled = worker.ask({"task": task}, np.ones(2))
    assert doubled.tolist() == [2, 2]
    assert worker.starts == 2


def test_killed_between_requests_it_is_started_anew(worker: Worker) -> None:
    worker.start()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.ask({"task": ""}, np.ones(1))[1].tolist() == [2]
    assert worker.starts == 2


def test_dead_twice_is_one_clear_error_with_its_last_words(worker: Worker) -> None:
    with pytest.raises(ServiceError, match=r"twice.*exit status 3, last words: out of memory") as caught:
        worker.ask({"task": "die"}, np.ones(1))
    assert "\n" not in str(caught.value)
    assert worker.starts == 2
    assert worker.pid is None
    assert worker.ask({"task": ""}, np.ones(1))[1].tolist() == [2]  # and it serves again


def test_hung_twice_is_one_clear_error_in_time(worker: Worker) -> None:
    started = time.monotonic()
    with pytest.raises(ServiceError, match="failed twice"):
        worker.ask({"task": "hang"}, np.ones(1))
    assert 4 <= time.monotonic() - started < 20


def test_what_it_prints_into_the_pipe_counts_as_failure(worker: Worker) -> None:
    with pytest.raises(ServiceError, match=r"failed twice.*got no message: something printed into the pipe"):
        worker.ask({"task": "babble"}, np.ones(1))


def test_an_answer_that_nobody_waits_for_any_more_is_not_the_next_one(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.start()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("labelmill.annotators.workers.read_message", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.ask({"task": ""}, np.ones(1))
    assert worker.ask({"task": ""}, np.full(1, 7))[1].tolist() == [14]


def test_a_complaint_is_no_failure(worker: Worker) -> None:
    with pytest.raises(WeightsError, match="no such model"):
        worker.ask({"task": "complain"})
    assert worker.starts == 1


def test_it_ends_with_us(worker: Worker) -> None:
    worker.start()
    pid = worker.pid
    assert pid is not None
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
