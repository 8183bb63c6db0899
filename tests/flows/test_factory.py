"""The factory as a Prefect flow: run directly, deployed, and taken over after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest
from tests.conftest import make_bench
from tests.flows.conftest import prefect

from labelmill.datasets.annotate import annotate
from labelmill.datasets.versions.store import VersionStore
from labelmill.datasets.workspace import Workspace
from labelmill.line import load_line

pytestmark = pytest.mark.server


Direct = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    """A bench, annotated without Prefect: its folder, with the results in `direct/`, and the summary."""
    folder = make_bench(tmp_path_factory.mktemp("bench"))
    return folder, annotate(load_line(folder / "line.yaml"), Workspace(folder / "direct"))


@pytest.fixture
def bench(direct: Direct, tmp_path: Path) -> Path:
    """The same bench, with nothing computed."""
    return Path(copytree(direct[0], tmp_path / "bench", ignore=ignore_patterns("direct")))


def same_tables(workspace: Path, other: Path) -> bool:
    names = ("frames", "regions", "quarantine")
    return all(
        (workspace / "tables" / f"{name}.parquet").read_bytes()
        == (other / "tables" / f"{name}.parquet").read_bytes()
        for name in names
    )


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


def test_run_gives_what_annotate_gives(
    bench: Path, direct: Direct, prefect_environment: dict[str, str]
) -> None:
    folder, summary = direct
    words = ("run", str(bench / "line.yaml"), "-w", str(bench / "flow"), "--json", "--no-publish")
    flow = labelmill(prefect_environment, *words)
    assert flow.returncode == 0, flow.stderr
    assert json.loads(flow.stdout)["counts"] == summary["counts"]
    assert same_tables(bench / "flow", folder / "direct")
    again = labelmill(prefect_environment, *words)
    assert json.loads(again.stdout)["shards"]["computed"] == 0


def test_a_users_error_is_one_line(bench: Path, prefect_environment: dict[str, str]) -> None:
    (bench / "clip.mp4").unlink()
    done = labelmill(prefect_environment, "run", str(bench / "line.yaml"), "-w", str(bench / "flow"))
    assert done.returncode == 2
    said = [
        line for line in done.stderr.splitlines() if " | " not in line
    ]  # Prefect's log comes when it likes
    assert said[-1].startswith("labelmill: no file ")


def test_deployed_and_run_by_a_worker(
    bench: Path, deployed: str, prefect_environment: dict[str, str]
) -> None:
    workspace = bench / "deployed"
    prefect(
        prefect_environment,
        *("deployment", "run", deployed, "--watch", "--watch-timeout", "240", "--watch-interval", "1"),
        *("--param", f"line={bench / 'line.yaml'}", "--param", f"workspace={workspace}"),
    )
    summary = json.loads((workspace / "tables" / "summary.json").read_text())
    assert summary["counts"]["frames"] == 40
    assert summary["counts"]["regions"] > 0
    published = VersionStore(Workspace(workspace)).all("bench")
    assert [version.manifest.name for version in published] == ["bench@v1"]


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
    kind: str, bench: Path, direct: Direct, prefect_environment: dict[str, str]
) -> None:
    line = bench / "line.yaml"
    line.write_text(line.read_text() + f"runner: {{kind: {kind}, workers: 2}}\n")
    words = ("run", str(line), "-w", str(bench / "spread"), "--no-publish", "--json")
    spread = labelmill(prefect_environment, *words)
    assert spread.returncode == 0, spread.stderr
    assert json.loads(spread.stdout)["shards"]["computed"] == 3
    assert same_tables(bench / "spread", direct[0] / "direct")
