"""What every verb shares: options, output and progress."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from labelmill.datasets.workspace import Workspace
    from labelmill.line import Line

LinePath = Annotated[Path, typer.Argument(metavar="LINE", help="A YAML line file.", show_default=False)]
WorkspacePath = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        envvar="LABELMILL_WORKSPACE",
        help="Folder for results; default: workspace/ with the line's name in it.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def load(path: Path) -> Line:
    """Read a line file."""
    from labelmill.line import load_line

    return load_line(path)


def workspace_of(line: Line, path: Path | None) -> Workspace:
    """The workspace that a verb works in."""
    from labelmill.datasets.workspace import Workspace

    return Workspace(path or Path("workspace") / line.name)


def emit(document: dict[str, Any], *, as_json: bool, text: Callable[[], str]) -> None:
    """Print a verb's result: one JSON document, or text for people."""
    typer.echo(json.dumps(document, indent=1) if as_json else text())


def command(*arguments: str | Path) -> str:
    """A labelmill command for a person to copy, quoted for the shell."""
    return shlex.join(["labelmill", *map(str, arguments)])


def note(text: str) -> None:
    """Say something beside the result, on stderr."""
    typer.echo(text, err=True)


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show done, rate and time left on stderr; on no terminal, a line now and then.

    Yields:
        A function of done, total and a word on what is being done.
    """
    if not sys.stderr.isatty():
        yield _Lines(unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
    )
    works = _Works()
    task = TaskID(0)
    with bar:

        def update(done: int, total: int, what: str) -> None:
            nonlocal task
            if works.begins(done, total, what):
                if bar.tasks and bar.tasks[-1].description.endswith(PREPARING):
                    bar.remove_task(task)
                task = bar.add_task(what, total=total, completed=done, rate=unit)
            speed = bar.tasks[-1].speed
            rate = " ".join(filter(None, (unit, _rate(speed) if speed else "")))
            bar.update(task, completed=done, total=total, description=what, rate=rate)

        yield update


PREPARING = " …"
"""Ends the name of what comes before the first frame, such as "loading models …": it has no rate."""


class _Works:
    """Tells one work after the other apart: each has a bar, a rate and a time left of its own."""

    def __init__(self) -> None:
        self._done, self._total, self._what = 0, -1, ""

    def begins(self, done: int, total: int, what: str) -> bool:
        """Whether a report is the first of another work than the report before it."""
        prepared = self._what.endswith(PREPARING) and what != self._what
        another = total != self._total or done < self._done or prepared
        self._done, self._total, self._what = done, total, what
        return another


def _rate(per_s: float) -> str:
    """A rate for people: 0.21/s, 3.4/s, 250/s."""
    digits = 2 if per_s < 1 else 1 if per_s < 10 else 0
    return f"{per_s:,.{digits}f}/s"


class _Lines:
    """Progress for logs: a line at most every five seconds, and one when a work ends."""

    def __init__(self, unit: str) -> None:
        import time

        self._clock = time.monotonic
        self._unit = f" {unit}" if unit else ""
        self._works = _Works()
        self._first = self._told = 0
        self._started = self._last = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        now = self._clock()
        if self._works.begins(done, total, what):
            if what.endswith(PREPARING):
                note(what)
            self._first, self._started, self._last, self._told = done, now, now, -1
            return
        if done == self._told or (now - self._last < 5 and done < total):
            return
        self._last, self._told = now, done
        count, spent_s = done - self._first, max(now - self._started, 1e-9)
        # Models load while the first frames wait: what they say of the rest is not worth telling.
        told = count > 0 and (count >= 0.02 * total or spent_s >= 30)
        rate = f", {_rate(count / spent_s)}" if told else ""
        left = f", {(total - done) * spent_s / count:,.0f} s left" if told and done < total else ""
        note(f"{what}: {done:,} of {total:,}{self._unit}{rate}{left}")
