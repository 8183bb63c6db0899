"""A classifier of crops: a backbone of timm or transformers, pooled, and a linear head.

Normalisation is part of the network, so that PyTorch, ONNX and OpenVINO all take RGB from 0 to 1.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from labelmill.annotators.devices import require
from labelmill.annotators.encoders.pretrained import FROM_FOLDER
from labelmill.annotators.state_dicts import read_state_dict
from labelmill.config import nearest
from labelmill.errors import TrainingError, WeightsError
from labelmill.training.config import ClassifierConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

SHORT_NAMES = {
    "vit-ti16": "vit_tiny_patch16_224",
    "vit-s16": "vit_small_patch16_224",
    "vit-b16": "vit_base_patch16_224",
    "vit-l16": "vit_large_patch16_224",  # the paper's
}
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Architecture:
    """Everything that rebuilds a backbone without its origin.

    Attributes:
        name: A timm model's name, or transformers' model type.
        arguments: `source` ("timm" or "transformers"), `image_px`, `mean`, `std`, and for transformers its
            whole `config`.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def image_px(self) -> int:
        """Side of the input."""
        return int(self.arguments["image_px"])


class Classifier(nn.Module):
    """Pictures (n, 3, side, side), RGB 0 to 1, to logits (n, classes).

    Args:
        encoder: Normalised pictures to features (n, dim).
        dim: Length of the features.
        classes: How many.
        mean: Of each channel.
        std: Likewise.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, encoder: nn.Module, dim: int, classes: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(dim, classes)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of each class."""
        logits: torch.Tensor = self.head(self.encoder((images - self.mean) / self.std))
        return logits


class Pooled(nn.Module):
    """A vision model of transformers, reduced to one feature vector a picture.

    Args:
        model: As `AutoModel` builds it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The pooled output where the model has one, its first token (CLS) otherwise."""
        output = self.model(pixel_values=images)
        pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
        return pooled.flatten(1) if pooled is not None else output.last_hidden_state[:, 0]


def plan(config: ClassifierConfig) -> Architecture:
    """Decide the architecture that the settings ask for.

    Raises:
        TrainingError: timm knows no such model, or the folder is not transformers'.
    """
    if config.method == "resnet18":
        return _plan_timm("resnet18", config.image_px)
    folder = Path(config.backbone)
    if folder.is_dir() or folder.is_absolute():
        return _plan_transformers(folder, config.image_px)
    return _plan_timm(SHORT_NAMES.get(config.backbone, config.backbone), config.image_px)


def build(architecture: Architecture, classes: int) -> Classifier:
    """The network with random weights, drawn from torch's own generator."""
    arguments = architecture.arguments
    mean, std = tuple(arguments["mean"]), tuple(arguments["std"])
    if arguments["source"] == "timm":
        encoder = _timm(architecture.name, architecture.image_px)
        return Classifier(encoder, int(encoder.num_features), classes, mean, std)
    require("transformers")
    from transformers import AutoConfig, AutoModel

    settings = dict(arguments["config"])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    try:  # a ViT's pooler is a layer for language-like pretraining that most checkpoints leave out
        model = AutoModel.from_config(config, add_pooling_layer=False)
    except TypeError:
        model = AutoModel.from_config(config)
    with torch.no_grad():
        encoder = Pooled(model).eval()
        dim = encoder(torch.zeros(1, 3, architecture.image_px, architecture.image_px)).shape[1]
    return Classifier(encoder, int(dim), classes, mean, std)


def fill(classifier: Classifier, architecture: Architecture, config: ClassifierConfig) -> str:
    """Give the backbone its initial weights; the head keeps its random ones.

    Returns:
        Where they came from, for the model card.

    Raises:
        WeightsError: They are absent, unsafe, or of another network.
    """
    if not config.pretrained:
        return f"random (seed {config.seed}): nothing was pretrained"
    if architecture.arguments["source"] == "transformers":
        folder = Path(config.backbone)
        tensors = {
            f"model.{name}": value for name, value in _read_folder(folder, architecture.image_px).items()
        }
        _load_encoder(classifier.encoder, tensors, folder)
        return folder.name
    path = config.weights or _cached(architecture.name)
    _load_encoder(classifier.encoder, _strip(read_state_dict(path)), path)
    return path.name


def _plan_timm(name: str, image_px: int | None) -> Architecture:
    require("timm")
    import timm

    if not timm.is_model(name):
        hint = nearest(name, [*SHORT_NAMES, *timm.list_models("*vit*"), *timm.list_models("resnet*")])
        raise TrainingError(
            f"timm knows no model {name!r}",
            expected="a timm name, one of the short names, or a local folder",
            do=hint.partition("known:")[0].strip(" ,;") or f"short names: {', '.join(SHORT_NAMES)}",
        )
    card = timm.get_pretrained_cfg(name)
    size = image_px or int(card.input_size[1])
    return Architecture(
        name, {"source": "timm", "image_px": size, "mean": list(card.mean), "std": list(card.std)}
    )


def _timm(name: str, image_px: int) -> Any:
    import timm

    try:
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=image_px)
    except TypeError:  # convolutional networks take every size, and no such argument
        return timm.create_model(name, pretrained=False, num_classes=0)


def _plan_transformers(folder: Path, image_px: int | None) -> Architecture:
    require("transformers")
    try:
        settings = json.loads((folder / "config.json").read_text())
        settings["model_type"]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{folder} is not a model folder of transformers",
            got=str(error).splitlines()[0],
            expected="config.json and model.safetensors, as save_pretrained writes them",
        ) from error
    own_size = settings.get("image_size", 224)
    size = int(image_px or (own_size[0] if isinstance(own_size, list) else own_size))
    mean = std = _HALF
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.is_file():
        found = json.loads(preprocessor.read_text())
        mean, std = tuple(found.get("image_mean", _HALF)), tuple(found.get("image_std", _HALF))
    settings["image_size"] = size
    arguments = {
        "source": "transformers",
        "image_px": size,
        "mean": list(mean),
        "std": list(std),
        "config": settings,
    }
    return Architecture(str(settings["model_type"]), arguments)


def _read_folder(folder: Path, image_px: int) -> dict[str, torch.Tensor]:
    """Tensors of a transformers folder by the names of its modules, which may differ from the file's."""
    from transformers import AutoModel

    settings = json.loads((folder / "config.json").read_text())
    own_px = settings.get("image_size", image_px)
    if own_px not in (image_px, [image_px, image_px]):
        raise TrainingError(
            f"{folder} was made for pictures of {own_px} px",
            got=image_px,
            do="leave --image-px out, or use timm",
        )
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} holds no safetensors", expected="model.safetensors", do="save it with save_pretrained"
        )
    try:
        model = AutoModel.from_pretrained(str(folder), use_safetensors=True, **FROM_FOLDER)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"the weights in {folder} cannot be read", got=str(error).splitlines()[0], do="fetch them again"
        ) from error
    tensors: dict[str, torch.Tensor] = model.state_dict()
    return tensors


def _strip(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the head that a pretrained checkpoint brings for its own classes."""
    return {
        name: value
        for name, value in tensors.items()
        if name.split(".")[0] not in ("head", "fc", "classifier")
    }


def _load_encoder(encoder: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    own = encoder.state_dict()
    fitting = {}
    for name, value in tensors.items():
        if name in own and own[name].shape != value.shape and name.endswith("pos_embed"):
            value = _resample(value, own[name].shape[1])
        if name in own and own[name].shape == value.shape:
            fitting[name] = value.float()
    missing = [name for name in own if name not in fitting]
    if missing:
        raise WeightsError(
            f"weights {path} do not fit the backbone",
            got=f"{len(missing)} of {len(own)} tensors missing, first {missing[0]}",
            do="check the backbone's name",
        )
    encoder.load_state_dict(fitting, strict=False)


def _resample(position: torch.Tensor, wanted: int) -> torch.Tensor:
    """Position embeddings for another image size, interpolated over their square grid."""
    from timm.layers import resample_abs_pos_embed

    prefix = position.shape[1] - int(position.shape[1] ** 0.5) ** 2
    side = round((wanted - prefix) ** 0.5)
    resampled: torch.Tensor = resample_abs_pos_embed(position, (side, side), num_prefix_tokens=prefix)
    return resampled


def _cached(name: str) -> Path:
    import timm
    from huggingface_hub import try_to_load_from_cache

    repository = str(timm.get_pretrained_cfg_value(name, "hf_hub_id") or "")
    found = try_to_load_from_cache(repository, "model.safetensors") if repository else None
    if not isinstance(found, str):
        fetch = f"fetch them (hf download {repository} model.safetensors), " if repository else ""
        raise WeightsError(
            f"no weights for the backbone {name!r} on this machine",
            expected="a file, or the hub's in the local cache",
            do=f"{fetch}name a file with --weights, or start from random weights with --no-pretrained",
        )
    return Path(found)
