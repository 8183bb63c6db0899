"""From a pulled version to a classifier's model folder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from labelmill import __version__
from labelmill.annotators.devices import use_device
from labelmill.annotators.model_folder import WEIGHTS, ModelInfo, read_model, trusted_file
from labelmill.annotators.state_dicts import read_state_dict
from labelmill.datasets.tables import NG
from labelmill.errors import TrainingError
from labelmill.files import digest_file
from labelmill.training import plots
from labelmill.training.calibration import choose_rejection, fit_temperature, softmax
from labelmill.training.checkpoints import writing
from labelmill.training.classification_metrics import ClassificationMetrics
from labelmill.training.classifiers.batches import Crops
from labelmill.training.classifiers.evaluate import cross_fitted_calibration, measure_logits
from labelmill.training.classifiers.methods import TrainingMethod, load_method
from labelmill.training.classifiers.model import Architecture, Classifier, build, fill, plan
from labelmill.training.classifiers.trainer import ClassifierTrainer, Epoch, predict
from labelmill.training.config import ClassifierConfig
from labelmill.training.inputs import Crop, CropData
from labelmill.training.model_writing import Written, settings_digest, start_folder, write_folder
from labelmill.training.progress import Report, silent

logger = logging.getLogger(__name__)

_MERGE_TOLERANCE = 1e-5
"""Most that merged logits differ from unmerged ones, as a share of the largest logit (at least 1)."""

_FEW = 10  # validation crops of a class below which its own figures say little


@dataclass(frozen=True, eq=False)
class _Trained:
    """A classifier after its loop, adapters merged."""

    classifier: Classifier
    history: list[Epoch]
    origin: str
    trainable: int
    seconds: float
    merge_difference: float


def train_classifier(
    data: CropData,
    config: ClassifierConfig,
    folder: Path,
    *,
    restart: bool = False,
    report: Report = silent,
) -> Written:
    """Train a classifier, or go on with one that was interrupted.

    Args:
        data: A version, pulled as an image folder.
        config: Settings.
        folder: Of the model.
        restart: Drop the training or model that lies there.
        report: Told after every step.

    Returns:
        What was written; read from disk when the very same training was finished before.

    Raises:
        TrainingError: A split is empty, fewer than two classes have crops, the folder is another model's, or
            the training itself fails.
        WeightsError: The initial weights are absent or unsafe.
    """
    classes = _classes(data, config)
    for warning in data.warnings:
        logger.warning("%s", warning)
    settings = settings_digest(data.digest, config, _weights_digest(config))
    done = start_folder(folder, settings, restart=restart)
    if done is not None:
        return done
    architecture = plan(config)
    splits = {
        name: Crops(_known(crops, classes), classes, architecture.image_px, config.workers)
        for name, crops in data.splits.items()
        if _known(crops, classes)
    }
    trained = _fit(architecture, classes, splits, config, folder, settings, report)
    device = use_device(config.device)
    trained.classifier.to(device)
    logits = {
        name: predict(trained.classifier, crops, config.batch, device)
        for name, crops in splits.items()
        if name != "train"
    }
    info = ModelInfo(
        kind="classifier",
        architecture=architecture.name,
        arguments=architecture.arguments,
        classes=classes,
        image_px=architecture.image_px,
        dataset=data.version,
        dataset_digest=data.digest,
        settings=config.model_dump(mode="json"),
        training_digest=settings,
        temperature=fit_temperature(logits["val"], splits["val"].labels),
        made_by=__version__,
    )
    truth = {name: [classes[index] for index in splits[name].labels] for name in logits}
    if config.ng == "reject":
        strangers = _ng_logits(trained.classifier, data, architecture, config, device)
        for name, rows in strangers.items():
            logits[name] = np.concatenate([logits[name], rows]) if name in logits else rows
            truth[name] = [*truth.get(name, []), *[NG] * len(rows)]
        info = info.model_copy(update={"reject_below": _threshold(info, logits["val"], truth["val"], config)})
    measured = {name: measure_logits(info, rows, truth[name]) for name, rows in logits.items()}
    calibration = cross_fitted_calibration(
        logits["val"][: len(splits["val"])], splits["val"].labels, config.seed
    )
    _draw(folder, info, trained.history, measured, logits, truth)
    return write_folder(
        folder,
        info,
        trained.classifier.state_dict(),
        _metrics(trained, measured, calibration),
        origin=trained.origin,
        summary=_summary(trained, measured, calibration),
        limits=list(_limits(data, config, measured, trained.origin)),
        seconds=trained.seconds,
    )


def _fit(
    architecture: Architecture,
    classes: tuple[str, ...],
    splits: dict[str, Crops],
    config: ClassifierConfig,
    folder: Path,
    settings: str,
    report: Report,
) -> _Trained:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(config.seed)
        classifier = build(architecture, len(classes))
        origin = _initial(classifier, architecture, classes, config)
        method = load_method(config.method)
        method.prepare(classifier, config)
        trainable = sum(weight.numel() for weight in classifier.parameters() if weight.requires_grad)
        trainer = ClassifierTrainer(
            classifier, method, config, splits["train"], splits["val"], folder, settings, report
        )
        history = trainer.train()
    classifier.cpu().eval()
    with writing(folder):
        method.save_apart(classifier, folder / "adapter")
    classifier, difference = _merge(classifier, method, splits["val"])
    seconds = sum(epoch.seconds for epoch in history)
    return _Trained(classifier, history, origin, trainable, seconds, difference)


def _merge(classifier: Classifier, method: TrainingMethod, crops: Crops) -> tuple[Classifier, float]:
    """Merge adapters, and hold the result against the unmerged network on a few crops."""
    images = next(crops.in_order(8)).images
    with torch.inference_mode():
        before = classifier(images)
    merged = method.merge(classifier)
    with torch.inference_mode():
        after = merged(images)
    difference = float((before - after).abs().max() / before.abs().max().clamp(min=1))
    if not difference <= _MERGE_TOLERANCE:
        raise RuntimeError(f"merged logits differ from unmerged ones by {difference:.2e}")
    return merged, difference


def _classes(data: CropData, config: ClassifierConfig) -> tuple[str, ...]:
    """Classes that the head tells apart.

    Raises:
        TrainingError: A split is empty, or fewer than two classes have crops.
    """
    trained = Counter(crop.label for crop in data.split("train"))
    data.split("val")
    classes = tuple(name for name in data.classes if name != NG or config.ng == "class")
    present = [name for name in classes if trained[name]]
    if len(present) < 2:
        raise TrainingError(
            f"the training split of {data.root} has crops of {len(present)} classes",
            got=", ".join(present) or "none",
            expected="at least two",
            do="review more crops and publish a version, or train NG as a class",
        )
    if not _known(data.split("val"), classes):
        raise TrainingError(
            f"split 'val' of {data.root} holds NG crops only", do="review more and publish anew"
        )
    return classes


def _known(crops: tuple[Crop, ...], classes: tuple[str, ...]) -> list[Crop]:
    return [crop for crop in crops if crop.label in classes]


def _weights_digest(config: ClassifierConfig) -> str:
    """What a training starts from: a path says nothing, bytes do."""
    if config.start is not None:
        return read_model(config.start, "classifier").files.get(WEIGHTS, "")
    if not config.pretrained:
        return "random"
    folder = Path(config.backbone)
    paths = [config.weights] if config.weights else [folder / "model.safetensors"]
    return "".join(digest_file(path) for path in paths if path is not None and path.is_file())


def _initial(
    classifier: Classifier, architecture: Architecture, classes: tuple[str, ...], config: ClassifierConfig
) -> str:
    """Give the network its initial weights; from another version's model, classes keep theirs by name."""
    if config.start is None:
        return fill(classifier, architecture, config)
    info = read_model(config.start, "classifier")
    if info.architecture != architecture.name or info.image_px != architecture.image_px:
        raise TrainingError(
            f"model {config.start} cannot be the start",
            got=f"{info.architecture} at {info.image_px} px",
            expected=f"{architecture.name} at {architecture.image_px} px",
            do="name its backbone and image size, or start from pretrained weights",
        )
    tensors = read_state_dict(trusted_file(config.start, info, WEIGHTS))
    own = classifier.state_dict()
    for kind in ("weight", "bias"):
        head, old = own[f"head.{kind}"].clone(), tensors.pop(f"head.{kind}")
        for row, name in enumerate(classes):
            if name in info.classes:
                head[row] = old[info.classes.index(name)]
        tensors[f"head.{kind}"] = head
    classifier.load_state_dict(tensors)
    return f"classifier of {info.dataset}"


def _ng_logits(
    classifier: Classifier,
    data: CropData,
    architecture: Architecture,
    config: ClassifierConfig,
    device: torch.device,
) -> dict[str, npt.NDArray[np.float32]]:
    """Logits of the NG crops that were kept out of training, by split."""
    found = {}
    for name, crops in data.splits.items():
        strangers = [Crop(crop.path, NG) for crop in crops if crop.label == NG]
        if name != "train" and strangers:
            batches = Crops(strangers, (NG,), architecture.image_px, config.workers)
            found[name] = predict(classifier, batches, config.batch, device)
    return found


def _threshold(
    info: ModelInfo, logits: npt.NDArray[np.float32], truth: list[str], config: ClassifierConfig
) -> float:
    probabilities = softmax(logits, info.temperature)
    given = [info.classes[index] for index in probabilities.argmax(axis=1)]
    right = np.array([name == true for name, true in zip(given, truth, strict=True)])
    return choose_rejection(probabilities.max(axis=1), right, config.accept_accuracy)


def _metrics(
    trained: _Trained, measured: dict[str, ClassificationMetrics], calibration: tuple[float, float]
) -> dict[str, Any]:
    return {
        "splits": {name: metrics.as_dict() for name, metrics in measured.items()},
        "calibration": {"error_before": calibration[0], "error_after_cross_fitted": calibration[1]},
        "trainable_parameters": trained.trainable,
        "parameters": sum(weight.numel() for weight in trained.classifier.parameters()),
        "merge_difference": trained.merge_difference,
        "seconds": trained.seconds,
        "epochs": len(trained.history),
        "history": {
            "train_loss": [epoch.train_loss for epoch in trained.history],
            "val_loss": [epoch.val_loss for epoch in trained.history],
            "val_score": [epoch.val_score for epoch in trained.history],
        },
    }


def _summary(
    trained: _Trained, measured: dict[str, ClassificationMetrics], calibration: tuple[float, float]
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, metrics in measured.items():
        rows[f"{name}: crops"] = metrics.count
        rows[f"{name}: accuracy"] = metrics.accuracy
        rows[f"{name}: balanced accuracy"] = metrics.balanced_accuracy
        rows[f"{name}: macro F1"] = metrics.macro_f1
    rows["val: calibration error before temperature"] = calibration[0]
    rows["val: calibration error after it, cross-fitted"] = calibration[1]
    rows["trainable parameters"] = trained.trainable
    return rows


def _limits(
    data: CropData, config: ClassifierConfig, measured: dict[str, ClassificationMetrics], origin: str
) -> Iterator[str]:
    yield from data.warnings
    if origin.startswith("random"):
        yield (
            "The backbone was not pretrained: what it can tell apart it learned from this version alone. "
            "With LoRA and the linear probe it stays random, far below what a pretrained one reaches."
        )
    if "test" not in measured:
        yield (
            "There is no test split: the epoch, the temperature and the threshold were chosen on the "
            "validation split that the figures are from, so they flatter a little."
        )
    few = [
        name
        for name, count in zip(measured["val"].labels, measured["val"].confusion.sum(axis=1), strict=True)
        if 0 < count < _FEW
    ]
    if few:
        yield f"Fewer than {_FEW} validation crops, so figures that jump: {', '.join(few)}."
    if config.flip:
        yield "Training crops were mirrored at random: left and right are not told apart."


def _draw(
    folder: Path,
    info: ModelInfo,
    history: list[Epoch],
    measured: dict[str, ClassificationMetrics],
    logits: dict[str, npt.NDArray[np.float32]],
    truth: dict[str, list[str]],
) -> None:
    with writing(folder):
        for name, metrics in measured.items():
            plots.confusion(folder / "plots" / f"confusion-{name}.png", metrics, f"{info.dataset}, {name}")
            probabilities = softmax(logits[name], info.temperature)
            best = probabilities.argmax(axis=1)
            right = np.array(
                [info.classes[i] == true for i, true in zip(best, truth[name], strict=True)], bool
            )
            plots.reliability(
                folder / "plots" / f"reliability-{name}.png",
                probabilities.max(axis=1),
                right,
                f"{info.dataset}, {name}",
            )
        curves = {
            "training loss": [epoch.train_loss for epoch in history],
            "validation loss": [epoch.val_loss for epoch in history],
            "balanced accuracy": [epoch.val_score for epoch in history],
        }
        plots.history(folder / "plots" / "history.png", curves, info.dataset)
