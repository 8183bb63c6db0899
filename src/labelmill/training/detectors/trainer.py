"""ultralytics' training loop with our data, our checkpoints and nothing from the network.

What differs from `ultralytics.YOLO(...).train`:

- the data come from memory, and no cache is written beside them;
- checkpoints are plain tensors with a recorded digest, never pickles of live objects, and keep the weights as
  well as their moving average, so that a resumed training goes on where it was;
- each epoch starts from random numbers of its own, and every batch is a step (ultralytics gathers small ones
  to 64 pictures), so that what was resumed is what would have been;
- no callbacks of experiment trackers, no fonts, no weights for a check of half precision.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import callbacks as ultralytics_callbacks
from ultralytics.utils.torch_utils import ModelEMA, unwrap_model

from labelmill.errors import TrainingError
from labelmill.training.checkpoints import Checkpoints, State
from labelmill.training.config import DetectorConfig
from labelmill.training.detectors.pictures import Pictures
from labelmill.training.inputs import Picture
from labelmill.training.progress import Progress, Report, silent

_MOST_RECOVERIES = 3


class DetectorTrainer(DetectionTrainer):  # type: ignore[misc]  # ultralytics has no types
    """Trains a network, going on from the last checkpoint where there is one.

    Args:
        network: With its initial weights; trained in place.
        splits: "train" and "val".
        classes: Names by index.
        config: Settings.
        folder: Of the model; its `run/` holds checkpoints.
        settings: Digest of everything that decides the result.
        device: As ultralytics names it: "cpu", "0", "mps".
        report: Told after every step.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        splits: Mapping[str, Sequence[Picture]],
        classes: Sequence[str],
        config: DetectorConfig,
        folder: Path,
        settings: str,
        device: str,
        report: Report = silent,
    ) -> None:
        self._splits = splits
        self._classes = classes
        self._config = config
        self._report_step = report
        self.checkpoints = Checkpoints(folder / "run", settings)
        self.history: list[dict[str, float]] = []
        integrations = ultralytics_callbacks.add_integration_callbacks
        ultralytics_callbacks.add_integration_callbacks = lambda _: None
        try:
            super().__init__(overrides=_overrides(config, folder, device))
        finally:
            ultralytics_callbacks.add_integration_callbacks = integrations
        self.model = network
        self.add_callback("on_train_epoch_start", _begin_epoch)
        self.add_callback("on_train_batch_end", _tell)

    def get_dataset(self) -> dict[str, Any]:
        """What ultralytics would read from data.yaml."""
        names = dict(enumerate(self._classes))
        return {"train": "train", "val": "val", "nc": len(names), "names": names, "channels": 3}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Pictures:
        """The pictures of a split, augmented for training."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        training = mode == "train"
        return Pictures(
            self._splits[img_path],
            data=self.data,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=training,
            hyp=copy(self.args),
            rect=not training,
            stride=stride,
            pad=0.0 if training else 0.5,
            prefix=f"{mode}: ",
        )

    def _build_train_pipeline(self) -> None:
        # Every batch is a step: gradients that wait for a nominal batch of 64 would be lost with a kill.
        self.args.nbs = self.batch_size
        super()._build_train_pipeline()

    def save_model(self) -> bool:
        """Save a plain checkpoint instead of a pickle."""
        average = self.ema.ema.state_dict()
        if not all(bool(torch.isfinite(value).all()) for value in average.values()):
            raise TrainingError(
                f"the weights are not finite after epoch {self.epoch + 1}",
                do="lower --learning-rate, and add --restart",
            )
        self.history.append(
            {
                "train_loss": float(sum(float(value) for value in self.tloss.values())),
                "fitness": float(self.fitness),
                **{name: float(value) for name, value in self.metrics.items()},
            }
        )
        state: State = {
            "weights": _plain(unwrap_model(self.model).state_dict()),
            "average": _plain(average),
            "updates": self.ema.updates,
            "optimizer": _plain(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best_fitness": float(self.best_fitness),
            "stopper": [float(self.stopper.best_fitness), int(self.stopper.best_epoch)],
            "chosen": [str(self.args.optimizer), float(self.args.lr0), float(self.args.warmup_bias_lr)],
            "batch": int(self.batch_size),
            "history": self.history,
        }
        best = state["average"] if self.best_fitness == self.fitness else None
        self.checkpoints.save(self.epoch + 1, state, best)
        return True

    def resume_training(self, ckpt: Any) -> None:
        """Go on from our own checkpoint, where there is one."""
        state = self.checkpoints.load()
        if state is not None:
            self._restore(state)
            self.start_epoch = state["epoch"] + 1

    def _do_train(self) -> None:
        state = self.checkpoints.load()
        if state is not None and self._is_over(state):
            self.history = state["history"]
            return
        if state is not None:  # what "auto" chose then; the memory that is free now may be another
            self.args.batch = self.batch_size = state["batch"]
        super()._do_train()

    def _is_over(self, state: State) -> bool:
        waited = state["epoch"] + 1 - state["stopper"][1]
        return bool(state["epoch"] + 1 >= self.epochs or waited >= self.args.patience)

    def _restore(self, state: State) -> None:
        unwrap_model(self.model).load_state_dict(state["weights"])
        self.ema = ModelEMA(self.model)
        self.ema.ema.load_state_dict(state["average"])
        self.ema.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.args.optimizer, self.args.lr0, self.args.warmup_bias_lr = state["chosen"]
        self.best_fitness = state["best_fitness"]
        self.stopper.best_fitness, self.stopper.best_epoch = state["stopper"]
        self.history = list(state["history"])
        self._follow_rates()

    def _follow_rates(self) -> None:
        """Let the schedule start from the optimiser's own rates, which a recovery may have lowered."""
        self.scheduler.base_lrs = [group["initial_lr"] for group in self.optimizer.param_groups]

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Go back to the last good epoch when the loss is not finite.

        Raises:
            TrainingError: There is none, or that was tried often enough.
        """
        finite = self.loss is None or bool(self.loss.isfinite())
        finite = finite and (self.fitness is None or bool(np.isfinite(self.fitness)))
        if finite:
            return False
        self.nan_recovery_attempts += 1
        state = self.checkpoints.load()
        if state is None or self.nan_recovery_attempts > _MOST_RECOVERIES:
            raise TrainingError(
                f"the loss is not finite in epoch {epoch + 1}",
                got=f"optimizer {self.args.optimizer}, learning rate {self.args.lr0:g}",
                do="lower --learning-rate with --optimizer SGD or AdamW, check the boxes, and add --restart",
            )
        self._model_train()
        self._restore(state)
        for group in self.optimizer.param_groups:
            group["initial_lr"] *= 0.5**self.nan_recovery_attempts
        self._follow_rates()
        self.scheduler.last_epoch = epoch - 1
        return True

    def final_eval(self) -> None:
        """Nothing: our own evaluation measures the best weights."""

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Nothing: the history is part of the checkpoint."""

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The moving average of the best epoch.

        Raises:
            TrainingError: No epoch was finished.
        """
        if self.checkpoints.load() is None or (best := self.checkpoints.best()) is None:
            raise TrainingError(
                "the training ended without a finished epoch", do="run the same command again"
            )
        return best


def _overrides(config: DetectorConfig, folder: Path, device: str) -> dict[str, Any]:
    own_rate = {} if config.optimizer == "auto" else {"lr0": config.learning_rate}
    return {
        "model": f"{config.model}.yaml",
        "data": "",
        "task": "detect",
        "epochs": config.epochs,
        "patience": config.patience,
        "batch": -1 if config.batch == "auto" else config.batch,
        "imgsz": config.image_px,
        "freeze": config.freeze or None,
        "optimizer": config.optimizer,
        "warmup_epochs": config.warmup_epochs,
        "mosaic": config.mosaic,
        "close_mosaic": min(10, config.epochs // 4),
        "seed": config.seed,
        "deterministic": True,
        "amp": "bf16" if config.mixed_precision and _has_bfloat16(device) else False,
        "device": device,
        "workers": config.workers,
        "project": str(folder.absolute()),
        "name": "run",
        "exist_ok": True,
        "plots": False,
        "verbose": False,
        "pretrained": False,
        "save": True,
        "val": True,
        **own_rate,
    }


def _has_bfloat16(device: str) -> bool:
    """Half precision without a scaler, and without the check for which ultralytics fetches other weights."""
    return device not in ("cpu", "mps") and torch.cuda.is_bf16_supported()


def _begin_epoch(trainer: DetectorTrainer) -> None:
    """Give the epoch random numbers of its own, whatever was drawn before."""
    seed = (trainer.args.seed * 1_000_003 + trainer.epoch) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    loader = trainer.train_loader
    loader.generator.manual_seed(seed)
    loader.dataset.begin_epoch(np.random.default_rng(seed))
    loader.reset()


def _tell(trainer: DetectorTrainer) -> None:
    steps = len(trainer.train_loader)
    number = getattr(trainer, "_step", -1) + 1 if getattr(trainer, "_told", -1) == trainer.epoch else 0
    trainer._told, trainer._step = trainer.epoch, number
    text = f"epoch {trainer.epoch + 1}"
    if trainer.history:
        text += f", mAP50 {trainer.history[-1].get('metrics/mAP50(B)', math.nan):.3f}"
    trainer._report_step(Progress(trainer.epoch * steps + number + 1, trainer.epochs * steps, text))


def _plain(value: Any) -> Any:
    """Tensors on the CPU, numbers, strings and containers of them: what the restricted reader accepts."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
