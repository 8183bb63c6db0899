"""mongod killed with SIGKILL in mid-publish, twenty times: `python -m benchmarks.version_kills`.

A generated workspace of 400 frames and 2,000 regions is published again and again, each time with other
boxes and labels. The kills are spread evenly over the time that a publish of it takes, one in each
twentieth at a random moment; one that comes after the end is not counted. After each, every version is
proved against its manifest and FiftyOne's samples against the version; then the same content is published
again, and must end as one whole version.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.datasets.versions.kills import STAGES, check_whole, publish_under_fire

from benchmarks.reports import table, write
from benchmarks.versions import edit, make_run, origin
from labelmill.datasets.fiftyone_window import Window
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.mirror import differences
from labelmill.datasets.versions.publish import Published, publish
from labelmill.datasets.versions.store import VersionStore
from labelmill.datasets.workspace import Workspace


def published(workspace: Workspace, window: Window) -> Published:
    """Publish the workspace's tables."""
    return publish(workspace, DatasetConfig(), origin([]), window)


def calm(workspace: Workspace) -> tuple[Published, float]:
    """Publish without a kill; also the seconds it takes, once FiftyOne is connected."""
    window = Window(workspace)
    _ = window.fo
    started = time.perf_counter()
    with workspace.lock():
        result = published(workspace, window)
    return result, time.perf_counter() - started


def kill_round(workspace: Workspace, after_s: float) -> dict[str, Any]:
    """One kill, and all that is proved after it."""
    edit(workspace, 0.05)
    before = len(VersionStore(workspace).all("bench"))
    shot = publish_under_fire(workspace, published, after_s)
    found = check_whole(workspace) - before
    shown = len(Window(workspace).names())
    again, seconds = calm(workspace)
    right = (
        found in (0, 1)
        and check_whole(workspace) == before + 1
        and again.created is (found == 0)
        and len(Window(workspace).names()) == before + 1
        and differences(workspace, Window(workspace).folder, again.version) == []
    )
    return {
        "killed_after_s": round(after_s, 3),
        "stage": shot.stage,
        "publish_said": shot.refused or "published",
        "versions_after": found,
        "shown_after": shown - before,
        "right": right,
        "publish_s": seconds if again.created else shot.seconds,
    }


def run(frames: int, regions: int, kills: int) -> dict[str, Any]:
    """Every round."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="labelmill-bench-") as folder:
        workspace = Workspace(Path(folder))
        make_run(workspace, frames, regions)
        lengths: list[float] = []
        for _ in range(3):
            lengths.append(calm(workspace)[1])
            edit(workspace, 0.05)
        rounds: list[dict[str, Any]] = []
        late: list[dict[str, Any]] = []
        while len(rounds) < kills and len(late) < 3 * kills:
            length_s = statistics.median(lengths[-3:])  # the newest: other work on the machine comes and goes
            found = kill_round(workspace, (len(rounds) + draw.random()) / kills * length_s)
            lengths.append(found["publish_s"])
            (late if found["stage"] == STAGES[-1] else rounds).append(found)
            print(len(rounds), found, flush=True)
        whole = check_whole(workspace, newest=len(VersionStore(workspace).all("bench")))
        Window(workspace).fo.delete_datasets("*")
    return {
        "frames": frames,
        "regions": regions,
        "publish_s": statistics.median(lengths),
        "versions": whole,
        "rounds": rounds,
        "late": late,
    }


def text(found: dict[str, Any]) -> str:
    """The figures for people."""
    rounds = found["rounds"]
    right = sum(row["right"] for row in rounds)
    none = sum(row["versions_after"] == 0 for row in rounds)
    stages = Counter(row["stage"] for row in rounds)
    where = ", ".join(f"{stages[stage]} in {stage}" for stage in STAGES[:-1] if stages[stage])
    late = found["late"]
    spared = f"; {len(late)} more came after the end and are not counted"
    rows = [
        (
            number,
            f"{row['killed_after_s']:.2f}",
            row["stage"],
            "none" if not row["versions_after"] else "one, verified",
            "yes" if row["right"] else "NO",
        )
        for number, row in enumerate(rounds, start=1)
    ]
    return (
        f"{found['regions']:,} regions on {found['frames']:,} frames; a publish takes "
        f"{found['publish_s']:.2f} s without a kill. **{right} of {len(rounds)}** kills ended right: {none} "
        f"left no version, {len(rounds) - none} a verified one; aim: all. Every time, the same content "
        "published again gave one whole version, and FiftyOne showed its samples as the version has them.\n\n"
        f"Where the kills fell: {where}{spared if late else ''}.\n\n"
        + table(("round", "killed after, s", "in", "new version afterwards", "right"), rows)
    )


def main() -> None:
    """Kill, prove, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--regions", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="print, but do not write docs/results")
    given = parser.parse_args()
    found = run(given.frames, given.regions, given.kills)
    if given.dry:
        print(text(found))
        return
    write("version_kills", "mongod killed while a version is published", text(found), found)


if __name__ == "__main__":
    main()
