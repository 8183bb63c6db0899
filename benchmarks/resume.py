"""What a rerun costs, and whether a killed run comes to the same bytes: `python -m benchmarks.resume`.

First and second runs of the same command alternate in fresh workspaces. Then runs are killed with SIGKILL at
random moments (seeded) and run again; every table, shard and stored crop must have the bytes of an
undisturbed run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.reports import table
from benchmarks.runs import EXAMPLE, measure, report, start

SEED = 20260
RERUNS = 3


def digests(workspace: Path) -> dict[str, str]:
    """SHA-256 of what a run is for: tables, shards and media. The summary holds times, and is left out."""
    return {
        path.relative_to(workspace).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("tables", "shards", "media")
        for path in sorted((workspace / folder).rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


def rerun_cost(line: Path, place: Path, repetitions: int) -> dict[str, Any]:
    """Times of first and second runs, alternating."""
    first, second = [], []
    for number in range(repetitions):
        words = ("annotate", line, "--json", "-w", place / f"w{number}")
        first.append(measure(*words))
        again = [measure(*words) for _ in range(RERUNS)]
        second += again
        print(
            f"first {first[-1].wall_s:.2f} s ({first[-1].cpu_s:.2f} s CPU), again "
            + ", ".join(f"{run.wall_s:.2f} s ({run.cpu_s:.2f})" for run in again),
            flush=True,
        )
    medians = {
        f"{name}_{what}": statistics.median(getattr(run, what) for run in runs)
        for name, runs in (("first", first), ("second", second))
        for what in ("wall_s", "cpu_s")
    }
    return {
        **medians,
        "wall_ratio": medians["second_wall_s"] / medians["first_wall_s"],
        "cpu_ratio": medians["second_cpu_s"] / medians["first_cpu_s"],
        "frames": first[0].document["counts"]["frames"],
        "shards": first[0].document["shards"]["computed"],
        "computed_again": max(run.document["shards"]["computed"] for run in second),
    }


def kills(
    line: Path, place: Path, count: int, usual_s: float, expected: dict[str, str]
) -> list[dict[str, Any]]:
    """Kill a run at a random moment, run it again, and compare."""
    chance = random.Random(SEED)
    trials: list[dict[str, Any]] = []
    while len(trials) < count:
        workspace = place / f"k{len(trials)}"
        after_s = chance.uniform(0.03, 1.0) * usual_s
        process = start("annotate", line, "--json", "-w", workspace)
        started = time.perf_counter()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:  # still at work, as wanted
            process.kill()
        if process.wait() == 0:  # done before its moment came: no kill, so no trial
            shutil.rmtree(workspace)
            usual_s = min(usual_s, time.perf_counter() - started)
            continue
        left = len(list((workspace / "shards").rglob("*.parquet"))) if workspace.exists() else 0
        again = measure("annotate", line, "--json", "-w", workspace)
        found = digests(workspace)
        trial = {
            "killed_after_s": round(after_s, 2),
            "shard_files_left": left,
            "computed_again": again.document["shards"]["computed"],
            "identical": found == expected,
            "differing": sorted(set(found.items()) ^ set(expected.items()))[:4],
        }
        trials.append(trial)
        print(trial, flush=True)
        shutil.rmtree(workspace)
    return trials


def finely_cut(folder: Path) -> Path:
    """The same line with a fourth of the frames, in many small shards, so that kills find some finished."""
    document = yaml.safe_load(EXAMPLE.read_text())
    document["selection"] = {"repeats": False, "stride": 4, "shard_frames": 16}
    document["proposer"] |= {"history_frames": 64, "lookahead_frames": 0, "rest_frames": 16}
    path = folder / "fine.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def table_of(trials: list[dict[str, Any]]) -> str:
    return table(
        ["killed after, s", "shard files it left", "shards the rerun computed", "same bytes"],
        [
            [
                f"{trial['killed_after_s']:.2f}",
                trial["shard_files_left"],
                trial["computed_again"],
                "yes" if trial["identical"] else "NO",
            ]
            for trial in trials
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    runs = arguments.repetitions
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        cost = rerun_cost(EXAMPLE, place, runs)
        expected = digests(place / "w0")
        same = all(digests(place / f"w{number}") == expected for number in range(runs))
        coarse = kills(EXAMPLE, place, arguments.kills, cost["first_wall_s"], expected)
        line = finely_cut(place)
        undisturbed = measure("annotate", line, "--json", "-w", place / "fine")
        fine = kills(line, place, arguments.kills, undisturbed.wall_s, digests(place / "fine"))
    figures = {
        **cost,
        "files": len(expected),
        "undisturbed_runs_identical": same,
        "seed": SEED,
        "kills": coarse,
        "identical": sum(trial["identical"] for trial in coarse),
        "fine_shards": undisturbed.document["shards"]["computed"],
        "fine_kills": fine,
        "fine_identical": sum(trial["identical"] for trial in fine),
        "load_average": os.getloadavg()[2],
    }
    page = f"""# Resuming

`labelmill annotate` on the bottle line's real footage, {cost["frames"]:,} frames in
{cost["shards"]} shards, as whole processes: the interpreter's start and all imports count.
Load of the machine meanwhile, others' work included: {figures["load_average"]:.1f} (15 minutes).

- First run: {cost["first_wall_s"]:.2f} s (CPU {cost["first_cpu_s"]:.2f} s), median of {runs}.
- The same command again: {cost["second_wall_s"]:.2f} s (CPU {cost["second_cpu_s"]:.2f} s), median of
  {runs * RERUNS}, alternating with the first runs; **{cost["computed_again"]} shards computed**.
- Ratio: **{cost["wall_ratio"]:.1%}** of the wall time, {cost["cpu_ratio"]:.1%} of the CPU time;
  aim under 10 %.
- Undisturbed runs in {runs} workspaces come to the same bytes: {"yes" if same else "NO"}.
- Killed with SIGKILL and run again: **{figures["identical"]} of {len(coarse)}** come to the bytes of an
  undisturbed run, all {len(expected)} files of `tables/`, `shards/` and `media/` compared by SHA-256.
- The same with the line cut into {figures["fine_shards"]} small shards:
  **{figures["fine_identical"]} of {len(fine)}**.

## The line as it is

{table_of(coarse)}

## Cut into {figures["fine_shards"]} small shards

{table_of(fine)}
"""
    report("resume", page, figures)


if __name__ == "__main__":
    main()
