"""From a pulled version to a detector's model folder."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from labelmill import __version__
from labelmill.annotators.devices import use_device
from labelmill.annotators.model_folder import ModelInfo
from labelmill.annotators.yolo.detector import Detector, torch_graph
from labelmill.annotators.yolo.network import build, fused
from labelmill.errors import TrainingError
from labelmill.training import plots
from labelmill.training.checkpoints import writing
from labelmill.training.config import DetectorConfig
from labelmill.training.detectors.evaluate import WORKING_THRESHOLD, DetectionMetrics, measure, predict
from labelmill.training.detectors.weights import digest, initialise, locate
from labelmill.training.inputs import DetectionData
from labelmill.training.model_writing import Written, settings_digest, start_folder, write_folder
from labelmill.training.progress import Report, silent

logger = logging.getLogger(__name__)

_FEW = 20  # validation boxes of a class below which its figures say little


def train_detector(
    data: DetectionData,
    config: DetectorConfig,
    folder: Path,
    *,
    restart: bool = False,
    report: Report = silent,
) -> Written:
    """Train a detector, or go on with one that was interrupted.

    Args:
        data: A version, pulled as a YOLO folder.
        config: Settings.
        folder: Of the model.
        restart: Drop the training or model that lies there.
        report: Told after every step.

    Returns:
        What was written; read from disk when the very same training was finished before.

    Raises:
        TrainingError: A split is empty or without boxes, the folder is another model's, or the training
            itself fails.
        WeightsError: The initial weights are absent, unsafe, or of another network.
    """
    _check(data)
    weights = locate(config.weights)
    settings = settings_digest(data.digest, config, digest(weights))
    done = start_folder(folder, settings, restart=restart)
    if done is not None:
        return done
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(config.seed)
        network = build(config.model, len(data.classes))
        origin = initialise(network, weights, data.classes)
        history, best, seconds = _fit(network, data, config, folder, settings, report)
    network = build(config.model, len(data.classes))
    network.load_state_dict(best)
    info = ModelInfo(
        kind="detector",
        architecture=config.model,
        classes=data.classes,
        image_px=config.image_px,
        dataset=data.version,
        dataset_digest=data.digest,
        settings=config.model_dump(mode="json"),
        training_digest=settings,
        made_by=__version__,
    )
    measured = _measure(info, network, data, config)
    _draw(folder, info, history, measured)
    return write_folder(
        folder,
        info,
        best,
        _metrics(measured, history, seconds),
        origin=origin,
        summary=_summary(measured, history),
        limits=list(_limits(data, measured, origin)),
        seconds=seconds,
    )


def _fit(
    network: torch.nn.Module,
    data: DetectionData,
    config: DetectorConfig,
    folder: Path,
    settings: str,
    report: Report,
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], float]:
    from labelmill.training.detectors.trainer import DetectorTrainer

    device = use_device(config.device)
    name = device.type if device.type != "cuda" else str(device.index or 0)
    splits = {split: data.split(split) for split in ("train", "val")}
    started = time.perf_counter()
    with writing(folder):
        trainer = DetectorTrainer(network, splits, data.classes, config, folder, settings, name, report)
        trainer.train()
        best = trainer.best_weights()
    seconds = time.perf_counter() - started
    with suppress(OSError):  # ultralytics' own files: nobody's result
        (folder / "run" / "args.yaml").unlink(missing_ok=True)
        shutil.rmtree(folder / "run" / "weights", ignore_errors=True)
    return trainer.history, best, seconds


def _check(data: DetectionData) -> None:
    """Refuse what cannot be trained, and warn of what cannot be trusted.

    Raises:
        TrainingError: A split is empty, or the training split has no box.
    """
    train, val = data.split("train"), data.split("val")
    if not any(len(picture.xyxy) for picture in train):
        raise TrainingError(
            f"the training split of {data.root} has {len(train)} pictures and no box",
            do="publish a version with accepted regions",
        )
    for number, name in enumerate(data.classes):
        boxes, measured = (sum(int((p.classes == number).sum()) for p in split) for split in (train, val))
        if boxes <= 1:
            logger.warning("class %r has %d training boxes: expect it to be missed", name, boxes)
        if boxes and not measured:
            logger.warning("class %r has no validation box: its recall is unmeasured", name)


def _measure(
    info: ModelInfo, network: torch.nn.Module, data: DetectionData, config: DetectorConfig
) -> dict[str, DetectionMetrics]:
    detector = Detector(info, torch_graph(fused(network), config.device))
    return {
        name: measure(pictures, predict(detector, pictures), data.classes, WORKING_THRESHOLD)
        for name, pictures in data.splits.items()
        if name != "train" and pictures
    }


def _metrics(
    measured: dict[str, DetectionMetrics], history: list[dict[str, float]], seconds: float
) -> dict[str, Any]:
    return {
        "splits": {name: metrics.as_dict() for name, metrics in measured.items()},
        "epochs": len(history),
        "seconds": seconds,
        "history": {
            "train_loss": [epoch["train_loss"] for epoch in history],
            "fitness": [epoch["fitness"] for epoch in history],
        },
    }


def _summary(measured: dict[str, DetectionMetrics], history: list[dict[str, float]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, metrics in measured.items():
        rows[f"{name}: mAP50"] = metrics.as_dict()["mAP50"]
        rows[f"{name}: mAP50-95"] = metrics.as_dict()["mAP50-95"]
        for iou, figures in metrics.as_dict()["at_iou"].items():
            rows[f"{name}: recall at IoU {iou}, score {metrics.threshold}"] = figures["recall"]
            rows[f"{name}: precision at IoU {iou}, score {metrics.threshold}"] = figures["precision"]
    rows["epochs"] = len(history)
    return rows


def _limits(data: DetectionData, measured: dict[str, DetectionMetrics], origin: str) -> Iterator[str]:
    if origin.startswith("random"):
        yield "Nothing was pretrained: what it knows it learned from this version alone."
    if "test" not in measured:
        yield (
            "There is no test split: the epoch was chosen on the validation split that the figures are from, "
            "so they flatter a little."
        )
    counts = [
        sum(int((p.classes == number).sum()) for p in data.splits["val"])
        for number in range(len(data.classes))
    ]
    few = [name for name, count in zip(data.classes, counts, strict=True) if count < _FEW]
    if few:
        yield f"Fewer than {_FEW} validation boxes, so figures that jump: {', '.join(few)}."


def _draw(
    folder: Path, info: ModelInfo, history: list[dict[str, float]], measured: dict[str, DetectionMetrics]
) -> None:
    with writing(folder):
        for name, metrics in measured.items():
            curves = {
                label: (curve.recall, curve.precision)
                for label, curve in zip(metrics.ranking.classes, metrics.ranking.curves, strict=True)
                if len(curve.recall)
            }
            plots.precision_recall(
                folder / "plots" / f"precision-recall-{name}.png", curves, f"{info.dataset}, {name}, IoU 0.5"
            )
        plots.history(
            folder / "plots" / "history.png",
            {
                "training loss": [epoch["train_loss"] for epoch in history],
                "mAP50, validation": [epoch.get("metrics/mAP50(B)", float("nan")) for epoch in history],
            },
            info.dataset,
        )
