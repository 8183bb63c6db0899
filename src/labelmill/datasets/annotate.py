"""From a line and its footage to the final tables: plan, compute what is missing, join."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelmill import __version__
from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.plan import Plan, Shard, make_plan
from labelmill.datasets.shards import ShardStore
from labelmill.datasets.workspace import Workspace
from labelmill.errors import DamagedShardError
from labelmill.files import disk_errors, write_bytes

if TYPE_CHECKING:
    from labelmill.datasets.bank import Makers

_log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called with sampled frames done, their total, and a word on what is being done."""


def silent(done: int, total: int, what: str) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """An annotation run in the making.

    Attributes:
        config: The line.
        workspace: Where it works; locked by this process.
        plan: What there is to do.
        store: Where shards go.
    """

    config: AnnotationConfig
    workspace: Workspace
    plan: Plan
    store: ShardStore

    def todo(self) -> list[Shard]:
        """The shards with a stage still to be computed."""
        return [shard for shard in self.plan.shards if shard.missing(self.store)]


@contextmanager
def open_run(config: AnnotationConfig, workspace: Workspace) -> Iterator[Run]:
    """Lock a workspace and plan a run in it.

    Raises:
        WorkspaceLockedError: Another run works there.
        LabelmillError: The line, its sources or its templates cannot be used.
    """
    with workspace.lock():
        with Catalogue(workspace.root / "digests.sqlite") as catalogue:
            plan = make_plan(config, catalogue)
        yield Run(config, workspace, plan, ShardStore(workspace.shards))


def annotate(config: AnnotationConfig, workspace: Workspace, progress: Progress = silent) -> dict[str, Any]:
    """Annotate a line's footage: select, propose, encode, match, route, join.

    Whatever an earlier run finished is taken from the shard store; a kill at any moment costs at most the
    shard in work.

    Args:
        config: The line.
        workspace: Where results are kept.
        progress: Called as work goes on.

    Returns:
        The summary, as written to `tables/summary.json`, with this run's `shards` and `wall_s`.

    Raises:
        LabelmillError: The line, its footage, its templates or the disk cannot be used.
    """
    started = time.perf_counter()
    with open_run(config, workspace) as run:
        seconds: dict[str, float] = {}
        total = sum(len(shard) for shard in run.plan.shards)
        todo = run.todo()
        done = total - sum(len(shard) for shard in todo)
        makers = _load(run, todo, lambda: progress(done, total, "loading models …")) if todo else None
        progress(done, total, "annotating")
        if makers is not None:
            from labelmill.datasets.stages import run_shard

            for shard in todo:

                def passed(frames: int, before: int = done) -> None:
                    progress(before + frames, total, "annotating")

                report = run_shard(shard, run.plan, makers, run.store, workspace.media, passed)
                for stage, spent in report.seconds.items():
                    seconds[stage] = seconds.get(stage, 0.0) + spent
                done += len(shard)
                progress(done, total, "annotating")
        summary = finish(run, seconds)
    counts = {"computed": len(todo), "reused": len(run.plan.shards) - len(todo)}
    return {**summary, "shards": counts, "wall_s": round(time.perf_counter() - started, 3)}


def _load(run: Run, todo: list[Shard], say: Callable[[], None]) -> Makers:
    """The models that shards need, loaded before the first frame: its time then tells the others'."""
    from labelmill.datasets.bank import Makers

    config = run.config
    if any(hasattr(part, "device") for part in (config.proposer, config.encoder)):
        say()
    makers = Makers(config)
    missing = {stage for shard in todo for stage in shard.missing(run.store)}
    if "propose" in missing:
        _ = makers.proposer
    if "encode" in missing:
        _ = makers.encoder.dim
    return makers


def finish(run: Run, seconds: dict[str, float]) -> dict[str, Any]:
    """Join the shards into the final tables, unless they stand already.

    Args:
        run: With every shard computed.
        seconds: Spent per stage in this run.

    Returns:
        The summary. Its `seconds` are those of the run that computed the tables.
    """
    path = run.workspace.tables / "summary.json"
    known = read_summary(run.workspace)
    if known is not None and known.get("plan") == run.plan.digest:
        return {**known, "line": run.config.name}
    with disk_errors(run.workspace.root):
        # Gone before the first table is replaced: killed in between, nobody takes the tables for its own.
        path.unlink(missing_ok=True)
    started = time.perf_counter()
    result = _join(run)
    seconds = {**seconds, "join": time.perf_counter() - started}
    summary = {
        "line": run.config.name,
        "plan": run.plan.digest,
        "labelmill": __version__,
        **result,
        "identities": run.plan.identities,
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }
    with disk_errors(run.workspace.root):
        write_bytes(path, (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def _join(run: Run) -> dict[str, Any]:
    """Join the tables; shards that turn out to be damaged are computed anew."""
    from labelmill.datasets.bank import Makers
    from labelmill.datasets.join import join_tables
    from labelmill.datasets.stages import run_shard

    makers = Makers(run.config)
    healed: set[str] = set()
    while True:
        try:
            return join_tables(run.config, run.plan, run.store, run.workspace)
        except DamagedShardError as error:
            if error.what in healed:  # the disk does not keep what is written
                raise
            healed.add(error.what)
            _log.warning("%s; computing it anew", error.what)
            for shard in run.todo():
                run_shard(shard, run.plan, makers, run.store, run.workspace.media)


def read_summary(workspace: Workspace) -> dict[str, Any] | None:
    """The summary of the last run in a workspace whose tables are all there, or None."""
    try:
        summary: dict[str, Any] = json.loads((workspace.tables / "summary.json").read_text())
    except (OSError, ValueError):
        return None
    whole = all(workspace.table(name).exists() for name in ("frames", "regions", "quarantine"))
    return summary if whole else None
