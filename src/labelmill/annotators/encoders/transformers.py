"""Any vision backbone of transformers: CLIP, SigLIP, DINOv2, ViT, ConvNeXt, and whatever comes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from labelmill.annotators.devices import Dtype, choose_batch_size, choose_device, choose_dtype, require
from labelmill.annotators.encoders import pretrained
from labelmill.annotators.encoders.batches import Normaliser, Pixels, View, embed, to_numpy
from labelmill.annotators.encoders.pretrained import Preprocessing, Triple
from labelmill.annotators.model_store import obtain
from labelmill.annotators.types import Embeddings, Image
from labelmill.config import MakerConfig
from labelmill.errors import LineFileError, WeightsError

if TYPE_CHECKING:
    import torch

Pooling = Literal["auto", "pooler", "cls", "mean"]


class TransformersConfig(MakerConfig):
    """Settings of the `transformers` encoder.

    Attributes:
        model: Hub id or local folder.
        pooling: "pooler" is the model's own summary (CLIP's and SigLIP's projected features, DINOv2's
            normalised class token), "cls" the first token, "mean" the mean over all places; "auto" is the
            first of these that the checkpoint has.
        size_px: Side of the square that a crop is scaled to; the model's own when absent.
        mean: Of each RGB channel in units of the full range; the model's own when absent.
        std: Likewise.
        fit: "squash" stretches a crop to the square, "pad" keeps its aspect ratio, "both" takes the mean of
            the two at twice the cost.
        batch_size: Crops in one forward pass; 8 on a CPU and 128 elsewhere when absent.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto", "float32", "bfloat16" or "float16".
    """

    kind: Literal["transformers"] = "transformers"
    model: str
    pooling: Pooling = "auto"
    size_px: int | None = Field(default=None, ge=16, le=4096)
    mean: Triple | None = None
    std: Triple | None = None
    fit: View = "squash"
    batch_size: int | None = Field(default=None, ge=1)
    device: str = "auto"
    dtype: Dtype = "auto"

    not_in_key: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    def files(self) -> tuple[Path, ...]:
        """The weights, and the settings beside them."""
        return pretrained.files_of(self.model)


class _Loaded(NamedTuple):
    model: Any
    pooling: Pooling
    normalise: Normaliser
    size_px: int
    batch_size: int


class Transformers:
    """Embeddings from a vision backbone; it is loaded when it is first needed."""

    Config = TransformersConfig
    version = 1

    def __init__(self, config: TransformersConfig) -> None:
        self.config = config

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        import numpy as np

        size = self._loaded.size_px
        return int(self._forward(np.zeros((1, size, size, 3), np.uint8)).shape[1])

    def encode(self, crops: Sequence[Image]) -> Embeddings:
        """Embed crops.

        Returns:
            Float32, shape (len(crops), dim), not normalised.
        """
        return embed(
            crops,
            size_px=self._loaded.size_px,
            fit=self.config.fit,
            batch_size=self._loaded.batch_size,
            forward=self._forward,
            dim=self.dim,
        )

    def _forward(self, pixels: Pixels) -> Embeddings:
        import torch

        loaded = self._loaded
        with torch.inference_mode():
            found = _look(loaded.model, loaded.normalise(pixels), loaded.pooling)
            return to_numpy(_pool(found, loaded.pooling))

    @cached_property
    def _loaded(self) -> _Loaded:
        require("transformers")
        import torch
        from transformers import AutoModel

        config = self.config
        folder = obtain(config.model, pretrained.NEEDS)
        model, missing = pretrained.load(AutoModel, folder, dtype=torch.float32)
        untrained_pooler = _check(model, missing, folder)
        sight = _sight(config, model, folder)
        pooling = config.pooling
        if pooling == "auto":
            pooling = _best_pooling(model, sight.size_px, untrained_pooler)
        elif pooling == "pooler" and untrained_pooler:
            raise WeightsError(
                f"the pooler of {folder} was never trained", do="choose `pooling: cls` or `pooling: mean`"
            )
        if hasattr(model, "text_model"):
            model.text_model = None  # half of the memory of a two-tower model
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        model.to(device, dtype)
        return _Loaded(
            model,
            pooling,
            Normaliser(sight.mean, sight.std, device, dtype),
            sight.size_px,
            choose_batch_size(config.batch_size, device),
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings, and load there."""
        return type(self), (self.config,)


def _look(model: Any, pixels: torch.Tensor, pooling: Pooling) -> Any:
    """The model's output for normalised pictures: of its vision tower where it has two."""
    if pooling == "pooler" and hasattr(model, "get_image_features"):
        return model.get_image_features(pixel_values=pixels)
    return _vision_part(model)(pixel_values=pixels)


def _vision_part(model: Any) -> Any:
    return getattr(model, "vision_model", model)


def _pool(found: Any, pooling: Pooling) -> torch.Tensor:
    """One row a picture, from a model's output."""
    import torch

    if isinstance(found, torch.Tensor):
        return found.flatten(1)
    if pooling == "pooler":
        pooled: torch.Tensor = found.pooler_output.flatten(1)  # convolutional ones keep 1 x 1 places
        return pooled
    places: torch.Tensor = found.last_hidden_state
    if places.ndim == 4:  # (n, channels, height, width)
        return places.mean(dim=(2, 3))
    return places[:, 0] if pooling == "cls" else places.mean(dim=1)


def _check(model: Any, missing: set[str], folder: Path) -> bool:
    """Make sure that nothing which will be used is random; tell whether a pooler is."""
    if not hasattr(model, "get_image_features") and model.main_input_name != "pixel_values":
        raise WeightsError(
            f"model {folder} looks at no pictures",
            got=type(model).__name__,
            expected="a vision backbone",
            do="check `model` in the line file",
        )
    lacking = {name for name in missing if not name.startswith("text_") and "pooler" not in name}
    if lacking:
        raise WeightsError(
            f"model folder {folder} does not hold the whole model",
            got=f"{len(lacking)} tensors missing, such as {min(lacking)}",
            expected="every weight of its config.json",
            do="fetch it again",
        )
    return any("pooler" in name for name in missing)


def _best_pooling(model: Any, size_px: int, untrained_pooler: bool) -> Pooling:
    import torch

    if hasattr(model, "get_image_features"):
        return "pooler"
    with torch.inference_mode():
        found = model(pixel_values=torch.zeros(1, 3, size_px, size_px))
    if not untrained_pooler and getattr(found, "pooler_output", None) is not None:
        return "pooler"
    return "cls" if hasattr(getattr(model, "embeddings", None), "cls_token") else "mean"


def _sight(config: TransformersConfig, model: Any, folder: Path) -> Preprocessing:
    said = pretrained.read_preprocessing(folder)
    settings = getattr(model.config, "vision_config", model.config)
    size = config.size_px or (said.size_px if said else getattr(settings, "image_size", None))
    mean, std = config.mean or (said.mean if said else None), config.std or (said.std if said else None)
    if not isinstance(size, int) or mean is None or std is None:
        raise LineFileError(
            f"model folder {folder} does not say what pictures it expects",
            expected="a preprocessor_config.json with a size, image_mean and image_std",
            do="write `size_px`, `mean` and `std` in the line file",
        )
    return Preprocessing(size, mean, std)
