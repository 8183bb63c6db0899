"""Bringing the server's queue to what it should be: look, compare, change what differs, look again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labelmill.annotators.review.client import InterruptedRequestError, RemoteTask, Studio, pages
from labelmill.errors import ReviewError

CHUNK = 1000
"""Tasks a request. Larger ones save little and lose more when the server dies."""

_MAX_ROUNDS = 50

Progress = Callable[[int, int, str], None]
"""Called with steps done, their total, and what is being done."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has to change on the server.

    Attributes:
        new: Tasks to add, the first in the queue first.
        data: Task numbers and their new fields.
        predictions: Task numbers and their new prediction.
        open: Task numbers and the answers that they shall wait for, to be put back into the queue.
        close: Task numbers of withdrawn regions.
        remove: Task numbers of undecided duplicates.
        kept: How many tasks are as they should be.
    """

    new: list[dict[str, Any]] = field(default_factory=list)
    data: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    predictions: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    open: dict[int, int] = field(default_factory=dict)
    close: list[int] = field(default_factory=list)
    remove: list[int] = field(default_factory=list)
    kept: int = 0

    def steps(self) -> int:
        """How many things there are to do."""
        parts = (self.new, self.data, self.predictions, self.open, self.close, self.remove)
        return sum(len(part) for part in parts)


@dataclass(slots=True)
class Pushed:
    """What a push did.

    Attributes:
        new: Tasks added.
        updated: Tasks with other fields or another prediction.
        opened: Tasks put back into the queue.
        closed: Tasks of withdrawn regions.
        removed: Undecided duplicates removed.
        kept: Tasks that were as they should be.
        seconds: How long it took.
    """

    new: int = 0
    updated: int = 0
    opened: int = 0
    closed: int = 0
    removed: int = 0
    kept: int = 0
    seconds: float = 0.0


def compare(
    wanted: Mapping[str, Mapping[str, Any]],
    found: Sequence[RemoteTask],
    *,
    overlap: int,
    decided: Collection[str] = (),
    disputed: Collection[str] = (),
) -> Changes:
    """Say what differs between the queue as it should be and as it is.

    A task that someone answered is never changed, but for being put back into the queue when the answers
    contradict each other; nor is a task of a decided region ever added again.

    Args:
        wanted: Region id to its task (`data` and `predictions`), the first in the queue first.
        found: The tasks on the server.
        overlap: How many people look at each crop.
        decided: Regions with a decision, here or by their group.
        disputed: Regions whose annotators disagree.
    """
    changes = Changes()
    tasks: dict[str, list[RemoteTask]] = {}
    for task in found:
        if region := task.data.get("region_id"):  # others were added by hand, and are none of ours
            tasks.setdefault(str(region), []).append(task)
    kept = 0
    for region, same in tasks.items():
        task, *duplicates = sorted(same, key=lambda t: (-t.annotations, -t.skips, t.id))
        changes.remove.extend(t.id for t in duplicates if not t.annotations and not t.skips)
        target = wanted.get(region)
        if task.annotations:
            if region in disputed and task.done:
                changes.open[task.id] = task.annotations + 1
            elif target is None and region not in decided and not task.done:
                changes.close.append(task.id)
            else:
                kept += 1
        elif target is None:
            if task.done:
                kept += 1
            else:
                changes.close.append(task.id)
        else:
            before = len(changes.open) + len(changes.data) + len(changes.predictions)
            if task.done:
                changes.open[task.id] = overlap
            if task.data.get("fingerprint") != target["data"]["fingerprint"]:
                changes.data[task.id] = target["data"]
                changes.predictions[task.id] = target["predictions"][0]
            elif not task.predictions or _moved(task.score, target["predictions"][0]["score"]):
                changes.predictions[task.id] = target["predictions"][0]
            kept += before == len(changes.open) + len(changes.data) + len(changes.predictions)
    for region, target in wanted.items():
        if region not in tasks and region not in decided:
            changes.new.append(dict(target))
    return Changes(
        changes.new, changes.data, changes.predictions, changes.open, changes.close, changes.remove, kept
    )


def _moved(old: float | None, new: float) -> bool:
    return old is None or abs(old - new) > 5e-4


def push(
    studio: Studio,
    project: int,
    wanted: Mapping[str, Mapping[str, Any]],
    *,
    overlap: int,
    decided: Collection[str] = (),
    disputed: Collection[str] = (),
    found: Sequence[RemoteTask] | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Pushed:
    """Make the server's queue what it should be.

    Each round looks at the server, compares, and changes what differs. A request whose effect is not known
    (the server died under it) ends the round; the next one sees what took effect. So nothing is added
    twice, and a push that was killed is finished by running it again.

    Args:
        studio: The server.
        project: Number of the project.
        wanted: Region id to its task, the first in the queue first.
        overlap: How many people look at each crop.
        decided: Regions with a decision.
        disputed: Regions whose annotators disagree.
        found: The tasks on the server, if they were listed a moment ago.
        progress: Called as work goes on.

    Raises:
        ReviewError: The server refuses, or does not answer within patience.
    """
    started = time.perf_counter()
    done = Pushed()
    before: set[int] | None = None
    for _ in range(_MAX_ROUNDS):
        if found is None:
            found = studio.tasks(project)
        numbers = {task.id for task in found if task.data.get("region_id")}
        before = numbers if before is None else before
        changes = compare(wanted, found, overlap=overlap, decided=decided, disputed=disputed)
        if not changes.steps():
            done.new = len(numbers - before)
            done.kept = changes.kept - done.new
            done.seconds = time.perf_counter() - started
            return done
        found = None
        try:
            _apply(studio, project, changes, done, progress)
        except InterruptedRequestError:
            continue
    raise ReviewError(
        f"the queue of project {project} at {studio.url} does not settle",
        got=f"{_MAX_ROUNDS} interrupted attempts",
        do="see why the server keeps dying, then run again: finished work is kept",
    )


def _apply(studio: Studio, project: int, changes: Changes, done: Pushed, progress: Progress) -> None:
    """Do what `compare` found, what people see first first."""
    total, step = changes.steps(), 0

    def advance(count: int, what: str) -> None:
        nonlocal step
        step += count
        progress(step, total, what)

    for task in changes.remove:
        studio.delete_task(task)
        done.removed += 1
        advance(1, "removing duplicates")
    for chunk in pages(changes.new, CHUNK):
        studio.import_tasks(project, chunk)
        advance(len(chunk), "adding tasks")
    for task, overlap in changes.open.items():
        studio.set_overlap(task, overlap, done=False)
        done.opened += 1
        advance(1, "reopening tasks")
    for task in changes.close:
        studio.set_overlap(task, 0, done=True)
        done.closed += 1
        advance(1, "closing tasks")
    for chunk_ids in pages(list(changes.predictions), CHUNK):
        studio.replace_predictions(project, {number: changes.predictions[number] for number in chunk_ids})
        advance(len(chunk_ids), "updating predictions")
    done.updated += len(changes.predictions)
    for task, data in changes.data.items():
        studio.set_data(task, data)
        advance(1, "updating tasks")
