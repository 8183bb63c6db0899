"""Where a detector's training starts: a file, another version's model, the hub, or random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labelmill.annotators.devices import require
from labelmill.annotators.model_folder import WEIGHTS, read_model, trusted_file
from labelmill.annotators.state_dicts import read_state_dict
from labelmill.annotators.yolo.network import start_from
from labelmill.errors import WeightsError
from labelmill.files import digest_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_HUB = "hf://"


def locate(weights: Path | str | None) -> Path | None:
    """The local file of some initial weights, fetched where they are on the hub.

    Raises:
        WeightsError: They are absent, or the hub does not answer.
        TrainingError: A folder is not a detector's.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        return _fetch(weights)
    if weights.is_dir():
        return trusted_file(weights, read_model(weights, "detector"), WEIGHTS)
    if not weights.is_file():
        raise WeightsError(
            f"weights {weights} are absent",
            expected="a .safetensors file or a model folder",
            do="check the path",
        )
    return weights


def digest(weights: Path | None) -> str:
    """What a training starts from, as bytes."""
    return digest_file(weights) if weights is not None else "random"


def initialise(network: torch.nn.Module, weights: Path | None, classes: Sequence[str]) -> str:
    """Fill a network with initial weights; what does not fit keeps its random ones.

    Returns:
        Where they came from, for the model card.

    Raises:
        WeightsError: They are unsafe, damaged, or of another network.
    """
    if weights is None:
        return "random: nothing was pretrained"
    tensors = read_state_dict(weights)
    if weights.name == WEIGHTS and (weights.parent / "model.json").is_file():
        info = read_model(weights.parent, "detector")
        if tuple(info.classes) != tuple(classes):
            tensors = {name: value for name, value in tensors.items() if not _tells_classes(name, network)}
        filled = start_from(network, tensors, weights)
        return f"detector of {info.dataset}, {filled} of {len(network.state_dict())} tensors"
    filled = start_from(network, tensors, weights)
    return f"{weights.name}, {filled} of {len(network.state_dict())} tensors"


def _tells_classes(name: str, network: torch.nn.Module) -> bool:
    """Whether a tensor belongs to the head's classification branch, whose channels are classes."""
    last = len(network.model) - 1  # type: ignore[arg-type]
    return name.startswith(f"model.{last}.cv3.")


def _fetch(address: str) -> Path:
    require("huggingface_hub")
    from huggingface_hub import hf_hub_download

    owner, repository, file = address.removeprefix(_HUB).split("/", 2)
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:  # the hub's errors, the network's, and those of its own checks share no base
        lines = str(error).strip().splitlines()
        raise WeightsError(
            f"weights {address} cannot be fetched",
            got=lines[0] if lines else type(error).__name__,
            do="check the name and the network, or fetch the file and name it",
        ) from error
