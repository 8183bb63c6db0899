"""Runs of the command line in processes of their own, measured, and the pages that report them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
EXAMPLE = ROOT / "examples" / "bottle-line.yaml"

_LINE = """\
name: bottle-line
sources: [{video: '${LABELMILL_DATA}/line/bottle-detection.mp4'}]
templates: {folder: '${LABELMILL_DATA}/line/templates', ng: '${LABELMILL_DATA}/line/templates_ng'}
"""


def data() -> Path:
    """The evaluation data."""
    root = os.environ.get("LABELMILL_DATA")
    if not root:
        sys.exit("set LABELMILL_DATA to the folder of the evaluation data")
    return Path(root).resolve()


def line_file(folder: Path) -> Path:
    """The line of the real footage: the example, or the least line for it."""
    if EXAMPLE.exists():
        return EXAMPLE
    path = folder / "line.yaml"
    path.write_text(_LINE)
    return path


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished process.

    Attributes:
        wall_s: From its start to its end.
        cpu_s: User and system time.
        peak_mib: Largest resident memory at any time.
        document: What it printed on stdout, as JSON.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    document: dict[str, Any]


def start(*words: object, out: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start `labelmill` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "LABELMILL_DATA": str(data())}
    command = [sys.executable, "-m", "labelmill.cli", *map(str, words)]
    return subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)


def measure(*words: object) -> Measured:
    """Run `labelmill` to its end.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        process = start(*words, out=out)
        _, status, usage = os.wait4(process.pid, 0)  # of this child alone, and its memory with it
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"labelmill {' '.join(map(str, words))} ended with {process.returncode}")
        out.seek(0)
        document = json.load(out)
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, document)


def report(name: str, page: str, figures: dict[str, Any]) -> None:
    """Print a page, and keep it and its figures in docs/results."""
    text = f"{page.strip()}\n\nMeasured on {describe()}, by `python -m benchmarks.{name}`.\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    document = {"machine": describe(), **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(text)
