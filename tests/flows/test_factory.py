"""The factory as a Prefect flow: run directly, deployed, and taken over after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import ROOT, stop

pytestmark = pytest.mark.server


def prefect(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def labelmill(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labelmill.cli", *arguments], env=environment, capture_output=True, text=True
    )


def flow_runs(environment: dict[str, str]) -> list[dict[str, Any]]:
    import urllib.request

    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{environment['PREFECT_API_URL']}/flow_runs/filter",
        data=b'{"sort": "START_TIME_DESC"}',
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        runs: list[dict[str, Any]] = json.load(answer)
        return runs


def test_run_gives_what_annotate_gives(bench: Path, prefect_environment: dict[str, str]) -> None:
    line = str(bench / "line.yaml")
    direct = labelmill(prefect_environment, "annotate", line, "-w", str(bench / "direct"), "--json")
    assert direct.returncode == 0, direct.stderr
    flow = labelmill(prefect_environment, "run", line, "-w", str(bench / "flow"), "--json", "--no-publish")
    assert flow.returncode == 0, flow.stderr
    assert json.loads(flow.stdout)["counts"] == json.loads(direct.stdout)["counts"]
    for name in ("frames", "regions", "quarantine"):
        table = f"tables/{name}.parquet"
        assert (bench / "flow" / table).read_bytes() == (bench / "direct" / table).read_bytes()
    again = labelmill(prefect_environment, "run", line, "-w", str(bench / "flow"), "--json", "--no-publish")
    assert json.loads(again.stdout)["shards"]["computed"] == 0


def test_a_users_error_is_one_line(bench: Path, prefect_environment: dict[str, str]) -> None:
    (bench / "clip.mp4").unlink()
    done = labelmill(prefect_environment, "run", str(bench / "line.yaml"), "-w", str(bench / "flow"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("labelmill: no file ")


def test_deployed_and_run_by_a_worker(bench: Path, prefect_environment: dict[str, str]) -> None:
    prefect(prefect_environment, "work-pool", "create", "labelmill", "--type", "process", "--overwrite")
    prefect(prefect_environment, "--no-prompt", "deploy", "--all")
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "labelmill", "--type", "process"],
        env=prefect_environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        workspace = bench / "deployed"
        prefect(
            prefect_environment,
            *("deployment", "run", "labelmill-factory/factory", "--watch", "--watch-timeout", "240"),
            *("--param", f"line={bench / 'line.yaml'}", "--param", f"workspace={workspace}"),
        )
    finally:
        stop(worker)
    summary = json.loads((workspace / "tables" / "summary.json").read_text())
    assert summary["counts"]["frames"] == 40
    assert summary["counts"]["regions"] > 0
    published = labelmill(prefect_environment, "versions", "-w", str(workspace), "--json")
    assert [version["version"] for version in json.loads(published.stdout)["versions"]] == ["bench@v1"]


def test_a_killed_run_is_taken_over_and_closed(bench: Path, prefect_environment: dict[str, str]) -> None:
    workspace = bench / "killed"
    arguments = ["run", str(bench / "line.yaml"), "-w", str(workspace), "--no-publish"]
    victim = subprocess.Popen(
        [sys.executable, "-m", "labelmill.cli", *arguments],
        env=prefect_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(workspace.glob("shards/select/*.parquet")):
        assert time.monotonic() < deadline
        assert victim.poll() is None
        time.sleep(0.01)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    done = labelmill(prefect_environment, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    mine = [run for run in flow_runs(prefect_environment) if run["name"].startswith(str(bench))]
    assert {run["state"]["type"] for run in mine} <= {"COMPLETED", "CRASHED"}


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_other_runners_give_the_same_tables(
    kind: str, bench: Path, prefect_environment: dict[str, str]
) -> None:
    line = bench / "line.yaml"
    direct = labelmill(prefect_environment, "annotate", str(line), "-w", str(bench / "direct"))
    assert direct.returncode == 0, direct.stderr
    line.write_text(line.read_text() + f"runner: {{kind: {kind}, workers: 2}}\n")
    words = ("run", str(line), "-w", str(bench / "spread"), "--no-publish", "--json")
    spread = labelmill(prefect_environment, *words)
    assert spread.returncode == 0, spread.stderr
    assert json.loads(spread.stdout)["shards"]["computed"] == 3
    for name in ("frames", "regions", "quarantine"):
        table = f"tables/{name}.parquet"
        assert (bench / "spread" / table).read_bytes() == (bench / "direct" / table).read_bytes()
