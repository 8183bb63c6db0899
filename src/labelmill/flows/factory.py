"""The whole factory as one Prefect flow: annotate in shards, then publish a dataset version.

Only wiring and retries: every stage is a plain function of another room. Deployed by `prefect.yaml`.
"""

from __future__ import annotations

import os

# Read by Prefect when it is imported: nothing leaves the machine, and nothing is asked.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# A server of its own took 18 s to start on a quiet machine; Prefect gives up after 20.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

import time
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, cast
from uuid import UUID

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed

from labelmill.datasets.annotate import Run, finish, open_run
from labelmill.datasets.bank import Makers, load_bank
from labelmill.datasets.plan import Plan, Shard
from labelmill.datasets.shards import ShardStore
from labelmill.datasets.stages import ShardReport, run_shard
from labelmill.datasets.workspace import Workspace
from labelmill.errors import LabelmillError
from labelmill.flows import review
from labelmill.flows.reaper import reap_dead_runs
from labelmill.flows.runners import task_runner
from labelmill.line import Line, load_line
from labelmill.training.config import TrainingConfig


def _worth_another_try(_task: object, _run: object, state: Any) -> bool:
    """Whether a failed shard may fare better: not when the user has something to mend."""
    try:
        state.result()
    except LabelmillError:
        return False
    except Exception:
        return True
    return False


class Job:
    """What a worker needs for one shard, wherever it runs.

    A plain class on purpose: Prefect walks through tuples and dataclasses in search of futures, and a shard
    has hundreds of frames.

    Args:
        shard: The shard.
        plan: The plan without its shards.
        line: The line.
        root: The workspace.
    """

    def __init__(self, shard: Shard, plan: Plan, line: Line, root: Path) -> None:
        self.shard = shard
        self.plan = plan
        self.line = line
        self.root = root


_held: list[tuple[str, Makers]] = []
_holding = Lock()


def _makers(line: Line) -> Makers:
    """One set of models a process, kept between the shards of a line."""
    with _holding:
        wanted = line.model_dump_json()
        if not _held or _held[0][0] != wanted:
            _held[:] = [(wanted, Makers(line))]
        return _held[0][1]


@task(
    name="annotate-shard",
    task_run_name="shard-{number}",
    retry_delay_seconds=[1, 10, 60],
    retry_condition_fn=_worth_another_try,
    persist_result=False,
    cache_policy=NO_CACHE,
)
def annotate_shard(number: int, job: Job) -> ShardReport:
    """Compute what is missing of one shard; its results are in the shard store.

    Args:
        number: The shard's, which names the task run.
        job: What to compute, and with what.
    """
    del number
    workspace = Workspace(job.root)
    store = ShardStore(workspace.shards)
    return run_shard(job.shard, job.plan, _makers(job.line), store, workspace.media)


@task(name="publish", persist_result=False, cache_policy=NO_CACHE)
def publish_version(path: Path, line: Line, workspace: Workspace) -> str:
    """Publish what the last run found; the name of the version that holds it."""
    from labelmill.datasets.fiftyone_window import Window
    from labelmill.datasets.versions.origin import open_origin
    from labelmill.datasets.versions.publish import publish

    with open_origin(line, workspace, path.read_bytes(), runtime.flow_run.id) as origin:
        published = publish(workspace, line.dataset, origin, Window(workspace), message="labelmill run")
    for warning in published.warnings:
        get_run_logger().warning("%s: %s", published.version.manifest.name, warning)
    return published.version.manifest.name


@task(name="train-models", task_run_name="train-{version}", cache_policy=NO_CACHE, persist_result=False)
def train_models(workspace: str, version: str, config: TrainingConfig) -> dict[str, Any]:
    """Train what the line asks for; a run that was interrupted goes on from its last checkpoint."""
    from labelmill.training.from_version import train_version

    return train_version(Workspace(Path(workspace)), version, config)


def _annotate(work: Run, line: Line) -> dict[str, Any]:
    """Run every shard that is not done, a task each, and join the tables."""
    logger = get_run_logger()
    started = time.perf_counter()
    todo = work.todo()
    total = len(work.plan.shards)
    seconds: dict[str, float] = {}
    logger.info("%d of %d shards to compute", len(todo), total)
    if todo:
        # Embedded here once, so that the tasks find them.
        load_bank(work.plan, Makers(work.config), work.store)
        description = f"{line.name}: shards annotated"
        done = total - len(todo)
        progress = cast(UUID, create_progress_artifact(100 * done / total, description=description))
        slim = replace(work.plan, shards=(), problems=())
        submit = annotate_shard.with_options(retries=line.runner.retries).submit
        futures = [submit(shard.number, Job(shard, slim, line, work.workspace.root)) for shard in todo]
        for count, future in enumerate(as_completed(futures), start=1):
            report = future.result()
            for stage, spent in report.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
            left_s = (len(todo) - count) * (time.perf_counter() - started) / count
            logger.info("%d of %d shards, %.0f s left", done + count, total, left_s)
            update_progress_artifact(progress, 100 * (done + count) / total)
    summary = finish(work, seconds)
    create_table_artifact(
        table=[{"class": name, **counts} for name, counts in summary["by_class"].items()],
        description=f"{line.name}: regions by class and route, λ {summary['lambda']:.3f}",
    )
    shards = {"computed": len(todo), "reused": total - len(todo)}
    return {**summary, "shards": shards, "wall_s": round(time.perf_counter() - started, 3)}


@flow(name="labelmill-factory", flow_run_name="{line}", validate_parameters=False)
def run(line: str, workspace: str | None = None, publish: bool = True) -> dict[str, Any]:
    """Run a whole line: annotate its footage, let people settle what is ambiguous, publish.

    People take part when the line file has a `review` section.

    Args:
        line: Path of the line file.
        workspace: Folder for results; `workspace/<line's name>` without it.
        publish: Whether a dataset version is published.

    Returns:
        The summary of the run.

    Raises:
        LabelmillError: The line, its footage or the disk cannot be used.
    """
    config = load_line(Path(line))
    place = Workspace(Path(workspace) if workspace else Path("workspace") / config.name)
    with open_run(config, place) as work:
        reap_dead_runs(place.root)
        name = f"annotate-{config.name}"
        stage = flow(name="labelmill-annotate", flow_run_name=name, task_runner=task_runner(config.runner))
        summary: dict[str, Any] = stage(lambda: _annotate(work, config))()
    if review.wanted(config):
        summary["review"] = review.settle(config, place)
    if publish:
        summary["version"] = publish_version(Path(line), config, place)
        if config.training.detector is not None or config.training.classifier is not None:
            summary["models"] = train_models(str(place.root), summary["version"], config.training)
    return {**summary, "workspace": str(place.root)}
