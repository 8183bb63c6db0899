"""Models that transformers' `save_pretrained` wrote: their weights, settings and pictures' size."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmill.annotators.encoders.backbone import Triple
from labelmill.annotators.model_store import obtain
from labelmill.annotators.state_dicts import conversion_command
from labelmill.errors import WeightsError

NEEDS = ("config.json", "*.safetensors|pytorch_model*.bin")
"""What a model's folder must hold."""

FROM_FOLDER = {"local_files_only": True, "trust_remote_code": False}
"""For every `from_pretrained`: by itself it asks on the terminal whether to run a program that lies there."""

_SETTINGS = ("config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model was trained to see.

    Attributes:
        size_px: Side of the square.
        mean: Of each RGB channel, in units of the full range.
        std: Likewise.
    """

    size_px: int
    mean: Triple
    std: Triple


def files_of(model: str) -> tuple[Path, ...]:
    """Settings and weights of a model, fetched first where need be: without their bytes there is no key.

    Raises:
        WeightsError: The model is not on this machine, and the hub does not give it.
    """
    folder = obtain(model, NEEDS)
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    settings = [folder / name for name in _SETTINGS if (folder / name).is_file()]
    return (*settings, *weights)


def load(maker: Any, folder: Path, **arguments: Any) -> tuple[Any, set[str]]:
    """Load a pretrained model for inference, from its folder only.

    Args:
        maker: A transformers class with `from_pretrained`.
        folder: What `save_pretrained` wrote.
        arguments: Further arguments of `from_pretrained`.

    Returns:
        The model, and the names of its parameters that the folder does not hold (these are random).

    Raises:
        WeightsError: The folder's files are damaged, of another architecture, or an unsafe pickle.
    """
    try:
        with readable(folder), _quiet():
            model, report = maker.from_pretrained(
                folder, **FROM_FOLDER, output_loading_info=True, **arguments
            )
    except pickle.UnpicklingError as error:
        path = next(iter(sorted(folder.glob("*.bin"))), folder / "pytorch_model.bin")
        raise WeightsError(
            f"weights {path} are a pickle of live objects, which could run any program",
            expected="safetensors, or a state dict of tensors only",
            do=f"convert it where you trust it: {conversion_command(path)}",
        ) from error
    return model.eval().requires_grad_(False), set(report["missing_keys"])


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what is raised over a damaged folder into one line.

    Raises:
        WeightsError: A file of the folder cannot be read.
        UnpicklingError: The weights are an unsafe pickle.
    """
    try:
        yield
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # safetensors, tokenizers, JSON and transformers raise a dozen kinds
        raise WeightsError(
            f"model folder {folder} cannot be loaded",
            got=(str(error) or type(error).__name__).splitlines()[0],
            expected="what save_pretrained writes",
            do="fetch it again",
        ) from error


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """Read a model's `preprocessor_config.json`; None where it is absent or says no mean.

    Crops are squashed to the whole square that the model sees, never cut at their edges, since the object
    fills them.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text())
        cropped = said.get("do_center_crop", False) and said.get("crop_size")
        size = said["crop_size"] if cropped else said["size"]
        if isinstance(size, dict):
            size = size.get("height") or size["shortest_edge"]
        mean, std = said["image_mean"], said["image_std"]
        return Preprocessing(int(size), (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    except (ValueError, KeyError, TypeError, IndexError):
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' load report, bars and warnings off the terminal: what matters of them is raised."""
    import warnings

    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # of a file that is refused
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
