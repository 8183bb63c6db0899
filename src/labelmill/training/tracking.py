"""MLflow, when asked for: one run a training, with its settings, figures and card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelmill.annotators.devices import require
from labelmill.errors import TrainingError

LOCAL = "local"


def track(
    address: str,
    folder: Path,
    *,
    experiment: str,
    settings: Mapping[str, Any],
    figures: Mapping[str, Any],
    history: Mapping[str, list[float]],
) -> None:
    """Record a finished training.

    Args:
        address: Of an MLflow server; "local" is a file store `mlruns.db` beside the model folder.
        folder: The model's; its card, metrics and plots become artefacts.
        experiment: Its name there.
        settings: Of the training.
        figures: Numbers by name; others are left out.
        history: A value an epoch, by name.

    Raises:
        MissingDependencyError: MLflow is not installed.
        TrainingError: The server does not answer.
    """
    require("mlflow", "tracking")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    local = address == LOCAL
    store = f"sqlite:///{folder.parent / 'mlruns.db'}" if local else address
    try:
        client = MlflowClient(store)
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            identity = found.experiment_id
        else:
            place = (folder.parent / "mlartifacts").as_uri() if local else None
            identity = client.create_experiment(experiment, artifact_location=place)
        run = client.create_run(identity, run_name=folder.name).info.run_id
        parameters = [Param(name, str(value)[:500]) for name, value in settings.items()]
        measured = [
            Metric(name, float(value), 0, 0)
            for name, value in figures.items()
            if isinstance(value, int | float)
        ]
        measured += [
            Metric(name, float(value), 0, step)
            for name, values in history.items()
            for step, value in enumerate(values, 1)
        ]
        client.log_batch(run, metrics=measured, params=parameters)
        for path in [
            folder / "README.md",
            folder / "metrics.json",
            *sorted((folder / "plots").glob("*.png")),
        ]:
            if path.is_file():
                client.log_artifact(run, str(path))
        client.set_terminated(run)
    except (MlflowException, OSError) as error:
        raise TrainingError(
            f"MLflow at {address} took no record",
            got=str(error).splitlines()[0],
            do=f"the model in {folder} is whole; check the address, or leave --mlflow out",
        ) from error
