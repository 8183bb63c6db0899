"""A training, recorded in MLflow's own store."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from labelmill.errors import TrainingError
from labelmill.training.tracking import LOCAL, track

pytest.importorskip("mlflow", reason="needs the extra `tracking`")


def model_folder(root: Path) -> Path:
    folder = root / "models" / "parts-v3-detector"
    (folder / "plots").mkdir(parents=True)
    (folder / "README.md").write_text("# card\n")
    (folder / "metrics.json").write_text("{}\n")
    (folder / "plots" / "history.png").write_bytes(b"png")
    return folder


def test_a_local_record_holds_settings_figures_history_and_the_card(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    folder = model_folder(tmp_path)
    for rate in (0.01, 0.02):  # two trainings of one version are two runs of one experiment
        track(
            LOCAL,
            folder,
            experiment="parts@v3",
            settings={"learning_rate": rate, "weights": None},
            figures={"val.mAP50": 0.5, "val.labels": ["left out"]},
            history={"train_loss": [3.0, 2.0]},
        )
    client = MlflowClient(f"sqlite:///{tmp_path / 'models' / 'mlruns.db'}")
    experiment = client.get_experiment_by_name("parts@v3")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["learning_rate"] for run in runs) == ["0.01", "0.02"]
    run = runs[0]
    assert run.data.params["weights"] == "None"
    assert run.data.metrics == {"val.mAP50": 0.5, "train_loss": 2.0}
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0)]
    kept = {path.name for path in (tmp_path / "models" / "mlartifacts").rglob("*") if path.is_file()}
    assert kept == {"README.md", "metrics.json", "history.png"}


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TrainingError, match=r"took no record.*the model in .* is whole"):
        track(f"http://127.0.0.1:{port}", tmp_path, experiment="e", settings={}, figures={}, history={})
