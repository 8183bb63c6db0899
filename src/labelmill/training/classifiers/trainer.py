"""The one training loop of every classifier: seeded, resumable to the bit on a CPU, and wary of NaN."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from labelmill.annotators.devices import use_device
from labelmill.errors import TrainingError
from labelmill.files import write_bytes
from labelmill.training.checkpoints import Checkpoints, State, writing
from labelmill.training.classification_metrics import confusion_matrix
from labelmill.training.classifiers.batches import Batch, Crops
from labelmill.training.classifiers.methods import TrainingMethod
from labelmill.training.classifiers.model import Classifier
from labelmill.training.config import ClassifierConfig
from labelmill.training.progress import Progress, Report, silent

logger = logging.getLogger(__name__)

_MOST_WEIGHT = 10.0  # of a rare class against a common one: beyond it, single crops steer the training
_MOST_RECOVERIES = 3
_CLIP_NORM = 1.0


@dataclass(frozen=True)
class Epoch:
    """One line of a training's history.

    Attributes:
        number: From 1.
        train_loss: Mean over the epoch's crops, as trained (weighted, smoothed).
        val_loss: Mean log loss on the validation split.
        val_score: Balanced accuracy there.
        learning_rate: At the end of the epoch.
        seconds: That it took.
    """

    number: int
    train_loss: float
    val_loss: float
    val_score: float
    learning_rate: float
    seconds: float


@dataclass
class _Run:
    """What goes from one epoch to the next, besides the weights."""

    epoch: int = 0
    rate_scale: float = 1.0  # halved at each recovery from a loss that was not finite
    recoveries: int = 0
    best_score: float = -1.0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)


class ClassifierTrainer:
    """Trains a prepared classifier, going on from the last checkpoint where there is one.

    Args:
        classifier: Prepared by its method; changed in place.
        method: What is trained.
        config: Settings.
        train: Training crops.
        val: Validation crops.
        folder: Of the model; checkpoints and history go to its `run/`.
        settings: Digest of everything that decides the result.
        report: Told after every step.
    """

    def __init__(
        self,
        classifier: Classifier,
        method: TrainingMethod,
        config: ClassifierConfig,
        train: Crops,
        val: Crops,
        folder: Path,
        settings: str,
        report: Report = silent,
    ) -> None:
        self.classifier = classifier
        self.config = config
        self.checkpoints = Checkpoints(folder / "run", settings)
        self._method = method
        self._train, self._val = train, val
        self._history_file = folder / "run" / "history.json"
        self._report = report
        self._device = use_device(config.device)
        self._steps_per_epoch = math.ceil(len(train) / config.batch)
        self._class_weights = _class_weights(train.labels, classifier.head.out_features, config).to(
            self._device
        )

    def train(self) -> list[Epoch]:
        """Train to the end, and leave the best weights in the classifier.

        Returns:
            The history, one entry an epoch.

        Raises:
            TrainingError: The loss stays not finite, the disk is full, or the folder is another training's.
        """
        with _deterministic():
            return self._run()

    def _run(self) -> list[Epoch]:
        self.classifier.to(self._device)
        trainable = [weight for weight in self.classifier.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            trainable, lr=self.config.peak_learning_rate, weight_decay=self.config.weight_decay
        )
        scaler = torch.amp.GradScaler(self._device.type, enabled=self._half() is torch.float16)
        initial = self._state(_Run(), optimizer, scaler)
        run = self._restore(self.checkpoints.load(), optimizer, scaler) or _Run()
        while run.epoch < self.config.epochs and run.epoch - run.best_epoch < self.config.patience:
            started = time.perf_counter()
            loss = self._epoch(run, optimizer, scaler)
            if not math.isfinite(loss):
                run = self._recover(run, initial, optimizer, scaler)
                continue
            val_loss, val_score = self._validate()
            run.epoch += 1
            better = (val_score, -val_loss) > (run.best_score, -run.best_loss)
            if better:
                run.best_score, run.best_loss, run.best_epoch = val_score, val_loss, run.epoch
            rate = optimizer.param_groups[0]["lr"]
            run.history.append(
                Epoch(run.epoch, loss, val_loss, val_score, rate, time.perf_counter() - started)
            )
            self._save(run, optimizer, scaler, better=better)
        best = self.checkpoints.best()
        if best is None:
            raise TrainingError(
                "the training found no weights with a finite validation loss",
                do="lower --learning-rate, and check the crops",
            )
        self.classifier.load_state_dict(best, strict=False)
        return run.history

    def _epoch(self, run: _Run, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> float:
        """One pass over the training crops; its mean loss, or NaN as soon as a step's loss is not finite."""
        torch.manual_seed(
            self.config.seed * 1_000_003 + run.epoch
        )  # dropout of this epoch, whatever ran before
        self._method.set_mode(self.classifier)
        total = 0.0
        batches = self._train.shuffled(self.config.batch, self.config.seed, run.epoch, flip=self.config.flip)
        for number, batch in enumerate(batches):
            step = run.epoch * self._steps_per_epoch + number
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate(step) * run.rate_scale
            loss = self._step(batch, optimizer, scaler)
            if not math.isfinite(loss):
                return math.nan
            total += loss * len(batch.labels)
            self._report(Progress(step + 1, self.config.epochs * self._steps_per_epoch, _text(run)))
        return total / len(self._train)

    def _step(self, batch: Batch, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> float:
        with self._autocast():
            logits = self.classifier(batch.images.to(self._device))
        loss = cross_entropy(
            logits.float(),
            batch.labels.to(self._device),
            weight=self._class_weights,
            label_smoothing=self.config.label_smoothing,
        )
        value = loss.item()
        if not math.isfinite(value):
            return value
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.classifier.parameters(), _CLIP_NORM)
        scaler.step(optimizer)
        scaler.update()
        return value

    def _validate(self) -> tuple[float, float]:
        """Mean log loss and balanced accuracy on the validation crops."""
        from labelmill.training.calibration import log_loss

        logits = predict(self.classifier, self._val, self.config.batch, self._device)
        size = logits.shape[1]
        matrix = confusion_matrix(self._val.labels, logits.argmax(axis=1), size)
        present = matrix.sum(axis=1) > 0
        recall = np.diag(matrix)[present] / matrix.sum(axis=1)[present]
        return log_loss(logits, self._val.labels), float(recall.mean())

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        total = self.config.epochs * self._steps_per_epoch
        warm = max(1, round(self.config.warmup * total))
        if step < warm:
            return self.config.peak_learning_rate * (step + 1) / warm
        return (
            self.config.peak_learning_rate
            * 0.5
            * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        )

    def _recover(
        self, run: _Run, initial: State, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> _Run:
        """Go back to the last good epoch with half the learning rate.

        Raises:
            TrainingError: That was tried often enough.
        """
        recoveries, scale = run.recoveries + 1, run.rate_scale / 2
        if recoveries > _MOST_RECOVERIES:
            raise TrainingError(
                f"the loss is not finite in epoch {run.epoch + 1}, also at {scale * 2:g} of the rate",
                got=f"learning rate {self.config.peak_learning_rate:g}",
                do="lower --learning-rate and add --restart",
            )
        logger.warning(
            "the loss is not finite in epoch %d: back to the last good epoch with half the learning rate",
            run.epoch + 1,
        )
        restored = self._restore(self.checkpoints.load() or initial, optimizer, scaler) or _Run()
        restored.recoveries, restored.rate_scale = recoveries, scale
        return restored

    def _state(self, run: _Run, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> State:
        return {
            "weights": {name: value.detach().cpu().clone() for name, value in self._changing().items()},
            "optimizer": _on_cpu(optimizer.state_dict()),
            "scaler": scaler.state_dict(),
            "run": asdict(run),
        }

    def _restore(
        self, state: State | None, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> _Run | None:
        if state is None:
            return None
        self.classifier.load_state_dict(state["weights"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            scaler.load_state_dict(state["scaler"])
        history = [Epoch(**entry) for entry in state["run"]["history"]]
        return _Run(**{**state["run"], "history": history})

    def _save(
        self, run: _Run, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, better: bool
    ) -> None:
        state = self._state(run, optimizer, scaler)
        self.checkpoints.save(run.epoch, state, state["weights"] if better else None)
        with writing(self._history_file.parent):
            lines = json.dumps([asdict(epoch) for epoch in run.history], indent=1)
            write_bytes(self._history_file, lines.encode())

    def _changing(self) -> dict[str, torch.Tensor]:
        """Weights that are trained, and running statistics; a frozen backbone is rebuilt, not saved."""
        frozen = {name for name, weight in self.classifier.named_parameters() if not weight.requires_grad}
        return {name: value for name, value in self.classifier.state_dict().items() if name not in frozen}

    def _half(self) -> torch.dtype | None:
        if not self.config.mixed_precision or self._device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

    def _autocast(self) -> AbstractContextManager[Any]:
        half = self._half()
        return torch.autocast(self._device.type, dtype=half, enabled=half is not None)


def predict(
    classifier: Classifier, crops: Crops, batch: int, device: torch.device
) -> npt.NDArray[np.float32]:
    """Logits of every crop in order, shape (n, classes), in full precision."""
    classifier.eval()
    rows = []
    with torch.inference_mode():
        for images, _ in crops.in_order(batch):
            rows.append(classifier(images.to(device)).float().cpu().numpy())
    return np.concatenate(rows)


def _class_weights(labels: npt.NDArray[np.int64], size: int, config: ClassifierConfig) -> torch.Tensor:
    """Weights by inverse frequency, at most 10 to 1, with mean 1 over the crops."""
    counts = np.bincount(labels, minlength=size)
    if not config.class_weights:
        return torch.ones(size)
    weights = counts.max() / np.maximum(counts, 1)
    weights = np.minimum(weights, _MOST_WEIGHT)
    return torch.from_numpy(weights / np.average(weights, weights=counts)).float()


def _text(run: _Run) -> str:
    if not run.history:
        return "epoch 1"
    last = run.history[-1]
    score = f"val {last.val_score:.3f} (best {run.best_score:.3f})"
    return f"epoch {run.epoch + 1}, loss {last.train_loss:.3f}, {score}"


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_cpu(item) for item in value]
    return value


@contextmanager
def _deterministic() -> Iterator[None]:
    """Ask torch for the same result each time, and put its settings back."""
    before, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        torch.backends.cudnn.benchmark = benchmark
