"""Any vision backbone of transformers: CLIP, SigLIP, DINOv2, ViT, ConvNeXt, and whatever comes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from labelmill.annotators.devices import choose_device, choose_dtype, require
from labelmill.annotators.encoders import pretrained
from labelmill.annotators.encoders.backbone import Backbone, Loaded, SightConfig
from labelmill.annotators.encoders.batches import Normaliser
from labelmill.annotators.encoders.pretrained import Preprocessing
from labelmill.annotators.model_ref import ModelRef
from labelmill.annotators.model_store import obtain
from labelmill.errors import LineFileError, WeightsError

if TYPE_CHECKING:
    import torch

Pooling = Literal["auto", "pooler", "cls", "mean"]


class TransformersConfig(SightConfig):
    """Settings of the `transformers` encoder, besides those of `SightConfig`.

    Attributes:
        model: Hub id or local folder.
        pooling: "pooler" is the model's own summary (CLIP's and SigLIP's projected features, DINOv2's
            normalised class token), "cls" the first token, "mean" the mean over all places; "auto" is the
            first of these that the checkpoint has.
    """

    kind: Literal["transformers"] = "transformers"
    model: ModelRef
    pooling: Pooling = "auto"

    not_in_key: ClassVar[frozenset[str]] = SightConfig.not_in_key | {"model"}

    def files(self) -> tuple[Path, ...]:
        """The weights, and the settings beside them."""
        return pretrained.files_of(self.model)


class Transformers(Backbone[TransformersConfig]):
    """Embeddings from a vision backbone."""

    Config = TransformersConfig

    def load(self) -> Loaded:
        """Load the model; see `Backbone.load`."""
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
        normalise = Normaliser(sight.mean, sight.std, device, dtype)
        return Loaded(model, partial(_look, model, pooling), normalise, sight.size_px)


def _look(model: Any, pooling: Pooling, pixels: torch.Tensor) -> torch.Tensor:
    """One row for each normalised picture: from the vision tower of a model that has two."""
    if pooling == "pooler" and hasattr(model, "get_image_features"):
        return _pool(model.get_image_features(pixel_values=pixels), pooling)
    return _pool(_vision_part(model)(pixel_values=pixels), pooling)


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
