"""Which Prefect task runner works on a line's shards."""

from __future__ import annotations

import os
from typing import Any

from labelmill.errors import MissingDependencyError
from labelmill.line import RunnerConfig


def task_runner(config: RunnerConfig) -> Any:
    """Make the task runner that a line asks for.

    Raises:
        MissingDependencyError: Dask or Ray is asked for and not installed.
    """
    if config.kind == "local":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=config.workers)
    try:
        if config.kind == "dask":
            from prefect_dask import DaskTaskRunner

            if config.address:
                return DaskTaskRunner(address=config.address)
            return DaskTaskRunner(cluster_kwargs={"n_workers": config.workers, "threads_per_worker": 1})
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise MissingDependencyError(
            f"runner {config.kind!r} is not installed", do="pip install 'labelmill[scale]'"
        ) from error
    if config.address:
        return RayTaskRunner(address=config.address)
    return RayTaskRunner(init_kwargs={"num_cpus": config.workers, "include_dashboard": False})
