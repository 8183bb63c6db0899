"""What a kill, a full disk, or a second publisher leaves behind: a whole version, or none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.datasets.versions.kills import check_whole, publish_under_fire
from tests.datasets.versions.made import MadeRun, made_run

from labelmill.datasets.fiftyone_window import Window
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.publish import Published, publish
from labelmill.datasets.versions.restore import restore
from labelmill.datasets.versions.store import VersionStore
from labelmill.datasets.versions.verify import verify
from labelmill.datasets.workspace import Workspace
from labelmill.errors import WorkspaceFullError, WorkspaceLockedError

pytestmark = [
    pytest.mark.server,
    # FiftyOne's own imports and connection, not ours to mend
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

KILLS = 6
"""Here; `python -m benchmarks.version_kills` does it twenty times."""


def test_mongod_killed_while_publishing(tmp_path: Path) -> None:
    run = made_run(tmp_path, sources=4, frames=60)

    def published(_: Workspace, window: Window) -> Published:
        return publish(run.workspace, DatasetConfig(), run.origin(), window)

    window = Window(run.workspace)
    assert window.fo is not None  # its import is no part of publishing
    started = time.monotonic()
    with run.workspace.lock():
        published(run.workspace, window)
    length_s = time.monotonic() - started
    rng = random.Random(5)
    shots = []
    for number in range(KILLS):  # one in each sixth of the time that publishing takes
        run.add_frame(f"more{number}.mp4", 0)
        run.write()
        shots.append(publish_under_fire(run.workspace, published, (number + rng.random()) / KILLS * length_s))
        check_whole(run.workspace)
    assert all(
        "labelmill" in shot.refused or "run the command again" in shot.refused
        for shot in shots
        if shot.refused
    )
    with run.workspace.lock():
        last = published(run.workspace, Window(run.workspace)).version
    versions = check_whole(run.workspace)
    assert last.frames.num_rows == 240 + KILLS
    with run.workspace.lock():
        for version in VersionStore(run.workspace).all("bench"):
            restore(run.workspace, version, Window(run.workspace), lambda *_: None)
    assert len(Window(run.workspace).names()) == versions


PUBLISH = """
import os, sys, time
from pathlib import Path
from tests.datasets.versions.made import MadeRun
from labelmill.datasets.fiftyone_window import Window
from labelmill.datasets.versions import store
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.publish import publish
from labelmill.datasets.workspace import Workspace
import pyarrow.parquet as pq

run = MadeRun(Workspace(Path(sys.argv[1])))
run.frames = pq.read_table(run.workspace.table("frames")).to_pylist()
run.regions = pq.read_table(run.workspace.table("regions")).to_pylist()
if len(sys.argv) > 2:
    commit = store.VersionStore.commit
    def killed(self, *args):
        if sys.argv[2] == "after":
            commit(self, *args)
        os.kill(os.getpid(), 9)
    store.VersionStore.commit = killed
window = Window(run.workspace)
window.fo
print("ready", flush=True)
with run.workspace.lock():
    print(publish(run.workspace, DatasetConfig(), run.origin(), window).version.manifest.name)
"""


def publish_elsewhere(root: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("FIFTYONE_DATABASE_URI", None)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PUBLISH, str(root), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("moment", "versions"), [("before", 0), ("after", 1)])
def test_a_publisher_killed_at_the_commit(tmp_path: Path, moment: str, versions: int) -> None:
    run = made_run(tmp_path)
    process = publish_elsewhere(tmp_path, moment)
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    store = VersionStore(run.workspace)
    assert len(store.numbers("bench")) == versions
    assert Window(run.workspace).names() == []
    with run.workspace.lock():
        result = publish(run.workspace, DatasetConfig(), run.origin(), Window(run.workspace))
    assert result.created is (versions == 0)
    assert result.version.manifest.name == "bench@v1"
    assert check_whole(run.workspace) == 1
    assert Window(run.workspace).names() == ["bench-v1"]
    assert all(not name.startswith("labelmill-") for name in Window(run.workspace).fo.list_datasets())


def test_two_publishes_at_once(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    process = publish_elsewhere(tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    refused: list[str] = []
    while process.poll() is None:
        try:
            with run.workspace.lock():
                publish(run.workspace, DatasetConfig(), run.origin(), Window(run.workspace))
        except WorkspaceLockedError as error:
            refused.append(error.line)
        time.sleep(0.01)
    _, complaint = process.communicate()
    assert process.returncode == 0 or "is in use" in complaint, complaint
    assert all("is in use" in line for line in refused)
    assert check_whole(run.workspace) == 1
    assert Window(run.workspace).names() == ["bench-v1"]


def test_a_full_disk_in_mid_publish(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        run = made_run(small, sources=1, frames=10)
        filler = small / "filler"
        refused: list[str] = []
        for room_kib in range(4, 200, 12):  # until it fits
            _fill(filler, small, room_kib)
            try:
                with run.workspace.lock():
                    publish(run.workspace, DatasetConfig(), run.origin(), None)
                break
            except WorkspaceFullError as error:
                refused.append(error.line)
            assert VersionStore(Workspace(small)).datasets() == []
        assert refused
        assert all("no space left in" in line for line in refused)
        filler.unlink()
        (version,) = VersionStore(Workspace(small)).all("bench")
        assert verify(Workspace(small), version).faults == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def _fill(filler: Path, disk: Path, room_kib: int) -> None:
    filler.unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(b"\0" * max(0, free - room_kib * 1024))


def test_publishing_the_same_again_shows_it_again(tmp_path: Path) -> None:
    run: MadeRun = made_run(tmp_path)
    window = Window(run.workspace)
    for _ in range(2):
        with run.workspace.lock():
            result = publish(run.workspace, DatasetConfig(), run.origin(), window)
        assert window.names() == ["bench-v1"]
        window.fo.delete_dataset("bench-v1")
    assert result.created is False
