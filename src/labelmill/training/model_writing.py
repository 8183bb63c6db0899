"""What every training does around its loop: begin in a folder, and leave a whole model there."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmill.annotators.model_folder import INFO, WEIGHTS, ModelInfo, read_model, write_model
from labelmill.config import Config
from labelmill.errors import TrainingError
from labelmill.files import digest_text, write_bytes
from labelmill.training import card
from labelmill.training.checkpoints import LEDGER, Checkpoints, writing

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

METRICS = "metrics.json"


@dataclass(frozen=True, eq=False)
class Written:
    """A finished model.

    Attributes:
        folder: Where it lies.
        info: What it is.
        metrics: Content of its `metrics.json`.
        trained: False where the same training had been finished before.
    """

    folder: Path
    info: ModelInfo
    metrics: dict[str, Any]
    trained: bool = True


def settings_digest(data_digest: str, config: Config, weights_digest: str) -> str:
    """Digest of everything that decides a training's result."""
    return digest_text(data_digest, json.dumps(config.key_fields(), sort_keys=True), weights_digest)


def start_folder(folder: Path, settings: str, *, restart: bool) -> Written | None:
    """Look at what lies in the folder of a model that is about to be trained.

    Returns:
        The finished model of the very same training; None where there is something to train.

    Raises:
        TrainingError: The folder is another model's, or something else.
    """
    if folder.is_file():
        raise TrainingError(f"{folder} is a file", expected="a folder for the model", do="name another --out")
    checkpoints = Checkpoints(folder / "run", settings)
    finished = (folder / INFO).is_file()
    if restart:
        checkpoints.clear()
        (folder / INFO).unlink(missing_ok=True)
        return None
    if finished:
        info = read_model(folder)
        if info.training_digest != settings:
            raise TrainingError(
                f"{folder} holds a model that was trained with other data or settings",
                do="name another --out, or add --restart to replace it",
            )
        logger.info("%s was trained before with the same data and settings", folder)
        return Written(folder, info, read_metrics(folder), trained=False)
    foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / "run").is_dir()
    if foreign:
        raise TrainingError(
            f"{folder} is not empty and holds no training",
            expected="a new or empty folder",
            do="name another --out",
        )
    if (folder / "run" / LEDGER).is_file():
        checkpoints.load()  # says so when it is another training's
    return None


def read_metrics(folder: Path) -> dict[str, Any]:
    """Content of a model's `metrics.json`; empty where it is absent or damaged."""
    try:
        found: dict[str, Any] = json.loads((folder / METRICS).read_text())
    except (OSError, ValueError):
        return {}
    return found


def write_folder(
    folder: Path,
    info: ModelInfo,
    weights: Mapping[str, torch.Tensor],
    metrics: dict[str, Any],
    *,
    origin: str,
    summary: Mapping[str, Any],
    limits: Sequence[str],
    seconds: float,
) -> Written:
    """Write the weights, the figures and the card, and `model.json` last: with it the model exists.

    Raises:
        TrainingError: The disk is full.
    """
    from safetensors.torch import save

    with writing(folder):
        plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        write_bytes(folder / WEIGHTS, save(plain))
        write_bytes(folder / METRICS, json.dumps(metrics, indent=2).encode() + b"\n")
        written = write_model(folder, info)
        plots = sorted(path.relative_to(folder).as_posix() for path in (folder / "plots").glob("*.png"))
        text = card.render(
            written, origin=origin, summary=summary, limits=limits, plots=plots, seconds=seconds
        )
        write_bytes(folder / "README.md", text.encode())
        Checkpoints(folder / "run", info.training_digest).clear()
    return Written(folder, written, metrics)
