"""Any image backbone of timm, from a file or from its hub."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from labelmill.annotators.devices import Dtype, choose_batch_size, choose_device, choose_dtype, require
from labelmill.annotators.encoders.batches import Normaliser, Pixels, View, embed, to_numpy
from labelmill.annotators.state_dicts import load_strictly, read_state_dict
from labelmill.annotators.types import Embeddings, Image
from labelmill.config import FilePath, MakerConfig
from labelmill.errors import LineFileError, WeightsError

if TYPE_CHECKING:
    import torch

Triple = tuple[float, float, float]


class TimmConfig(MakerConfig):
    """Settings of the `timm` encoder.

    Attributes:
        model: Name of an architecture in timm, with or without the tag of its pretrained weights.
        weights: State dict for it: safetensors, or a PyTorch file of tensors only. Without it, timm's own
            pretrained weights are looked for in the hub's cache on this machine; nothing is downloaded.
        model_args: Further arguments of `timm.create_model`, such as `num_classes` and `pad_type`.
        size_px: Side of the square that a crop is scaled to; timm's own for the model when absent.
        mean: Of each RGB channel in units of the full range; timm's own when absent.
        std: Likewise.
        fit: "squash" stretches a crop to the square, "pad" keeps its aspect ratio, "both" takes the mean of
            the two at twice the cost.
        batch_size: Crops in one forward pass; 8 on a CPU and 128 elsewhere when absent.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32", "bfloat16", "float16" or "auto". Unlike for the large transformers, "auto" is not
            the default: bfloat16 turns the embeddings of MobileNetV2 by up to 23 degrees (cosine to float32
            0.92 to 0.99 on 192 tool crops).
    """

    kind: Literal["timm"] = "timm"
    model: str = "mobilenetv2_100"
    weights: FilePath | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    size_px: int | None = Field(default=None, ge=16, le=4096)
    mean: Triple | None = None
    std: Triple | None = None
    fit: View = "squash"
    batch_size: int | None = Field(default=None, ge=1)
    device: str = "auto"
    dtype: Dtype = "float32"

    not_in_key: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    def files(self) -> tuple[Path, ...]:
        """The weights: other bytes give other embeddings."""
        return (self.weights or _hub_weights(self.model),)


class _Loaded(NamedTuple):
    model: torch.nn.Module
    normalise: Normaliser
    size_px: int
    batch_size: int


class Timm:
    """The pooled features of a timm backbone, before its classifier.

    The model is loaded when it is first needed, so that a run whose shards exist already loads none.
    """

    Config = TimmConfig
    version = 1

    def __init__(self, config: TimmConfig) -> None:
        self.config = config

    @cached_property
    def dim(self) -> int:
        """Length of an embedding: the width of the pooled features."""
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

        model: Any = self._loaded.model
        with torch.inference_mode():
            features = model.forward_features(self._loaded.normalise(pixels))
            return to_numpy(model.forward_head(features, pre_logits=True))

    @cached_property
    def _loaded(self) -> _Loaded:
        require("timm")
        config = self.config
        model = _create(config)
        (weights,) = config.files()
        load_strictly(model, read_state_dict(weights), weights)
        device = choose_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        import torch
        from timm.data import resolve_model_data_config

        data = resolve_model_data_config(model)
        normalise = Normaliser(config.mean or data["mean"], config.std or data["std"], device, dtype)
        model = model.eval().requires_grad_(False).to(device, dtype)
        model = model.to(memory_format=torch.channels_last)
        return _Loaded(
            model,
            normalise,
            config.size_px or int(data["input_size"][1]),
            choose_batch_size(config.batch_size, device),
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings, and load there."""
        return type(self), (self.config,)


def _create(config: TimmConfig) -> torch.nn.Module:
    import timm

    if not timm.is_model(config.model.partition(".")[0]):
        near = difflib.get_close_matches(config.model, timm.list_models(), n=5)
        raise LineFileError(
            f"timm knows no model {config.model!r}",
            do=f"did you mean {', '.join(near)}?" if near else "see timm.list_models()",
        )
    try:
        model: torch.nn.Module = timm.create_model(config.model, pretrained=False, **config.model_args)
    except TypeError as error:
        raise LineFileError(
            f"timm cannot make {config.model!r} with model_args {config.model_args}", got=error
        ) from error
    return model


def _hub_weights(model: str) -> Path:
    """Weights of a timm model in the hub's cache on this machine.

    Raises:
        WeightsError: They were never fetched.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    repository = str(timm.get_pretrained_cfg_value(model, "hf_hub_id") or "")
    found = try_to_load_from_cache(repository, "model.safetensors") if repository else None
    if not isinstance(found, str):
        raise WeightsError(
            f"no weights for the timm model {model!r} on this machine",
            expected="`weights: FILE` in the line file, or the hub's file in the local cache",
            do=f"fetch them: hf download {repository} model.safetensors" if repository else "name a file",
        )
    return Path(found)
