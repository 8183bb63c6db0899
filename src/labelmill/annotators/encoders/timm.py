"""Any image backbone of timm, from a file or from its hub."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from labelmill.annotators.devices import Dtype, choose_device, choose_dtype, require
from labelmill.annotators.encoders.backbone import Backbone, Loaded, SightConfig
from labelmill.annotators.encoders.batches import Normaliser
from labelmill.annotators.model_store import local_folder
from labelmill.annotators.state_dicts import load_strictly, read_state_dict
from labelmill.config import FilePath
from labelmill.errors import LineFileError, WeightsError

if TYPE_CHECKING:
    import torch

_WEIGHTS = "model.safetensors"


class TimmConfig(SightConfig):
    """Settings of the `timm` encoder, besides those of `SightConfig`.

    Attributes:
        model: Name of an architecture in timm, with or without the tag of its pretrained weights.
        weights: State dict for it: safetensors, or a PyTorch file of tensors only. Without it, timm's own
            pretrained weights are looked for among the pulled models and in the hub's cache; nothing is
            downloaded.
        model_args: Further arguments of `timm.create_model`, such as `num_classes` and `pad_type`.
        dtype: "float32", "bfloat16", "float16" or "auto". Unlike for the large transformers, "auto" is not
            the default: bfloat16 turns the embeddings of MobileNetV2 by up to 23 degrees (cosine to float32
            0.92 to 0.99 on 192 tool crops).
    """

    kind: Literal["timm"] = "timm"
    model: str = "mobilenetv2_100"
    weights: FilePath | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    dtype: Dtype = "float32"

    def files(self) -> tuple[Path, ...]:
        """The weights: other bytes give other embeddings."""
        return (self.weights or _hub_weights(self.model),)


class Timm(Backbone[TimmConfig]):
    """The pooled features of a timm backbone, before its classifier."""

    Config = TimmConfig

    def load(self) -> Loaded:
        """Load the model; see `Backbone.load`."""
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
        return Loaded(model, partial(_pooled, model), normalise, config.size_px or int(data["input_size"][1]))


def _pooled(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = model.forward_head(model.forward_features(pixels), pre_logits=True)
    return features


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
    """Weights of a timm model that were pulled, or lie in the hub's cache on this machine.

    Raises:
        WeightsError: They were never fetched.
    """
    import timm

    repository = str(timm.get_pretrained_cfg_value(model, "hf_hub_id") or "")
    folder = local_folder(repository, (_WEIGHTS,)) if repository else None
    if folder is None:
        raise WeightsError(
            f"no weights for the timm model {model!r} on this machine",
            expected="`weights: FILE` in the line file, or timm's own",
            do=f"fetch them: labelmill models pull {repository}" if repository else "name a file",
        )
    return folder / _WEIGHTS
