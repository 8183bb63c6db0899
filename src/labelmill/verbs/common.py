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
        help="Folder for results; default: ./workspace/<line's name>.",
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[rate]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=None, rate="")

        now = ""

        def update(done: int, total: int, what: str) -> None:
            nonlocal now
            if what != now:
                bar.reset(task, total=total)
                now = what
            speed = bar.tasks[task].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            bar.update(task, completed=done, total=total, description=what, rate=rate)

        yield update


class _Lines:
    """Progress for logs: a line when a tenth more is done, and at most one in five seconds."""

    def __init__(self, unit: str) -> None:
        import time

        self._clock = time.monotonic
        self._unit = unit
        self._started = self._last = self._clock()
        self._first: int | None = None
        self._what = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        now = self._clock()
        if self._first is None or what != self._what:  # each part of the work has its own rate
            self._first, self._what, self._started = done, what, now
            return
        if now - self._last < 5 and done < total:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = f", {(total - done) / rate:,.0f} s left" if rate > 0 and done < total else ""
        note(f"{what}: {f'{done} of {total} {self._unit}'.rstrip()}, {rate:,.1f}/s{left}")
