"""mongod killed while a version is published, and what is proved afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from labelmill.datasets import mongod
from labelmill.datasets.fiftyone_window import Window
from labelmill.datasets.versions.mirror import differences
from labelmill.datasets.versions.publish import Published
from labelmill.datasets.versions.store import VersionStore
from labelmill.datasets.versions.verify import verify
from labelmill.datasets.workspace import Workspace
from labelmill.errors import ServiceError

STAGES = ("tables and splits", "FiftyOne's documents", "commit", "FiftyOne's name", "after the end")


@dataclass(frozen=True)
class Shot:
    """One kill.

    Attributes:
        after_s: From the start of publishing.
        stage: Of `STAGES`, in which the kill fell.
        refused: What publish said; empty where it went through.
        seconds: That publish took.
    """

    after_s: float
    stage: str
    refused: str
    seconds: float


def publish_under_fire(
    workspace: Workspace, publish: Callable[[Workspace, Window], Published], after_s: float
) -> Shot:
    """Publish, and kill the database's process some time after the start, or after the end."""
    window = Window(workspace)
    _ = window.fo  # connected: the kill falls into the publishing
    pid = mongod.running_pid(window.folder)
    if pid is None:
        raise RuntimeError("mongod does not run")
    stage = [0]
    hit: list[int] = []

    def kill() -> None:
        hit.append(stage[0])
        os.kill(pid, signal.SIGKILL)

    def noted(name: str, number: int) -> None:
        inner = getattr(window, name)

        def call(*arguments: object) -> object:
            stage[0] = number
            try:
                return inner(*arguments)
            finally:
                stage[0] = number + 1

        setattr(window, name, call)

    noted("stage", 1)
    noted("reveal", 3)
    timer = threading.Timer(after_s, kill)
    started = time.monotonic()
    timer.start()
    refused = ""
    try:
        with workspace.lock():
            publish(workspace, window)
        stage[0] = 4
    except ServiceError as error:
        refused = error.line
    seconds = time.monotonic() - started
    timer.join()
    return Shot(after_s, STAGES[hit[0]], refused, seconds)


def check_whole(workspace: Workspace, dataset: str = "bench", *, newest: int = 2) -> int:
    """Prove every version, and that FiftyOne shows nothing but versions, whole.

    Args:
        workspace: Where they are.
        dataset: Their name.
        newest: How many of the newest are compared with FiftyOne sample by sample, and their pictures read.

    Returns:
        How many versions there are.
    """
    store = VersionStore(workspace)
    folder = workspace.versions / dataset
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    versions = store.all(dataset)
    assert names == sorted(f"v{version.manifest.number}" for version in versions), names
    window = Window(workspace)
    for version in versions:
        young = version.manifest.number > len(versions) - newest
        assert verify(workspace, version, media=young).faults == []
        if young:
            assert differences(workspace, window.folder, version) in (None, [])
    assert set(window.names()) <= {version.manifest.window_name for version in versions}
    return len(versions)
