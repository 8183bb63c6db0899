"""`labelmill run` as a user starts it, with a Prefect server of its own: killed, refused, run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import make_bench
from tests.test_cli import digests, long_line

from labelmill.datasets.annotate import annotate
from labelmill.datasets.workspace import Workspace
from labelmill.line import load_line

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No server to find, and a home that is new to the first test."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = tmp_path_factory.mktemp("prefect")
    return found | {"PYTHONPATH": os.pathsep.join(sys.path), "PREFECT_HOME": str(home)}


def start(environment: dict[str, str], *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "labelmill.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # so that the server of a killed run can be found and ended
    )


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes whose whole group is ended after the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        process.wait(30)


def test_a_flow_run_stopped_at_the_terminal_ends_soon(
    tmp_path: Path, environment: dict[str, str], started: list[subprocess.Popen[str]]
) -> None:
    """Ctrl-C goes to every process of the terminal; the run's own server must outlive it."""
    _, line, *_ = long_line(make_bench(tmp_path / "line"))
    workspace = tmp_path / "w"
    run = start(environment, "run", line, "--json", "--no-publish", "-w", workspace)
    started.append(run)
    until = time.monotonic() + 150
    while not list((workspace / "shards" / "match").glob("[!.]*")):
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "run the same command to go on" in err
    assert not (workspace / "tables" / "summary.json").exists()


def test_a_killed_flow_run_goes_on(
    tmp_path: Path, environment: dict[str, str], started: list[subprocess.Popen[str]]
) -> None:
    folder = make_bench(tmp_path / "line")
    _, line, *_ = long_line(folder)
    workspace = tmp_path / "w"

    annotate(load_line(folder / "line.yaml"), Workspace(tmp_path / "direct"))
    expected = digests(tmp_path / "direct")

    first = start(environment, "run", line, "--json", "--no-publish", "-w", workspace)
    started.append(first)
    until = time.monotonic() + 150
    while len(list((workspace / "shards" / "match").glob("[!.]*"))) < 3:
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGSTOP)  # it holds the lock, and does not finish meanwhile
    second = start(environment, "annotate", line, "--json", "-w", workspace)
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    assert err.startswith(f"labelmill: workspace {workspace} is in use, got process {first.pid} on ")
    assert err.count("\n") == 1
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    assert not (workspace / "tables" / "summary.json").exists()

    again = start(environment, "run", line, "--json", "--no-publish", "-w", workspace)
    started.append(again)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    shards = json.loads(out)["shards"]
    assert shards["reused"] >= 3
    assert shards["reused"] + shards["computed"] == 30
    assert digests(workspace) == expected
