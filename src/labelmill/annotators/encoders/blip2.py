"""BLIP-2's frozen image encoder: a vision transformer and its Q-Former (the ψ of LRIAR, eq. 2).

Li et al., "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language
Models" (ICML 2023), in transformers' port. No language model is loaded, whatever the checkpoint holds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from labelmill.annotators.devices import choose_device, choose_dtype, require
from labelmill.annotators.encoders import pretrained
from labelmill.annotators.encoders.backbone import Backbone, BackboneConfig, Loaded, Triple
from labelmill.annotators.encoders.batches import Normaliser
from labelmill.annotators.model_ref import ModelRef
from labelmill.annotators.model_store import obtain
from labelmill.errors import WeightsError

if TYPE_CHECKING:
    import torch

Features = Literal["pooled", "projected", "cls"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of EVA-CLIP, BLIP-2's vision transformer: LAVIS, `BlipImageBaseProcessor`."""


class Blip2Config(BackboneConfig):
    """Settings of the `blip2` encoder, besides those of `BackboneConfig`.

    BLIP-2's own preprocessing is `fit: squash`. `dtype` is that of the vision transformer; the Q-Former stays
    in float32, as its authors keep it.

    Attributes:
        model: Hub id or local folder of any BLIP-2 checkpoint in transformers' format.
        features: What stands for a crop:
            "pooled", the mean over the Q-Former's 32 answers (768 numbers): what BLIP-2 extracts from the
            picture, averaged, since no single query is told to stand for the whole;
            "projected", the same after the projection into the space shared with texts, each answer scaled
            to length 1 before the mean (256 numbers);
            "cls", the class token of the vision transformer (1,408 numbers), without the Q-Former.
    """

    kind: Literal["blip2"] = "blip2"
    model: ModelRef = "Salesforce/blip2-itm-vit-g"
    features: Features = "pooled"

    not_in_key: ClassVar[frozenset[str]] = BackboneConfig.not_in_key | {"model"}

    def files(self) -> tuple[Path, ...]:
        """The weights, and the settings beside them."""
        return pretrained.files_of(self.model)


class Blip2(Backbone[Blip2Config]):
    """Embeddings from BLIP-2."""

    Config = Blip2Config

    def load(self) -> Loaded:
        """Load the model; see `Backbone.load`."""
        require("transformers")
        import torch
        from transformers import Blip2VisionModelWithProjection

        config = self.config
        folder = obtain(config.model, pretrained.NEEDS)
        model, missing = pretrained.load(Blip2VisionModelWithProjection, folder, dtype=torch.float32)
        _check_whole(folder, missing, config.features)
        said = pretrained.read_preprocessing(folder)
        return ready(model, config, said.mean if said else CLIP_MEAN, said.std if said else CLIP_STD)


def ready(model: Any, config: Blip2Config, mean: Triple, std: Triple) -> Loaded:
    """Put a `Blip2VisionModelWithProjection` on its device, in its number formats."""
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    model.vision_model.to(dtype)
    model.to(device)
    look = partial(image_features, model, features=config.features)
    size_px = int(model.config.vision_config.image_size)
    return Loaded(model, look, Normaliser(mean, std, device, dtype), size_px)


def image_features(model: Any, pixels: torch.Tensor, features: Features) -> torch.Tensor:
    """BLIP-2's account of some pictures.

    Args:
        model: A `Blip2VisionModelWithProjection`, or any with the same parts.
        pixels: Normalised, shape (n, 3, size_px, size_px), in the number format of the vision transformer.
        features: As in `Blip2Config`.

    Returns:
        Shape (n, dim).
    """
    import torch

    patches = model.vision_model(pixel_values=pixels).last_hidden_state
    if features == "cls":
        cls: torch.Tensor = patches[:, 0]
        return cls
    answers = model.qformer(
        query_embeds=model.query_tokens.expand(len(patches), -1, -1),
        encoder_hidden_states=patches.to(model.query_tokens.dtype),
    ).last_hidden_state
    if features == "projected":
        answers = torch.nn.functional.normalize(model.vision_projection(answers), dim=-1)
    pooled: torch.Tensor = answers.mean(dim=1)
    return pooled


def _check_whole(folder: Path, missing: set[str], features: Features) -> None:
    unused = {"pooled": ("vision_projection",), "cls": ("vision_projection", "qformer", "query_tokens")}
    lacking = sorted(name for name in missing if not name.startswith(unused.get(features, ("-",))))
    if lacking and all(name.startswith("vision_projection") for name in lacking):
        raise WeightsError(
            f"the checkpoint {folder} holds no projection",
            expected="an image-text matching checkpoint such as Salesforce/blip2-itm-vit-g",
            do="choose `features: pooled` or `features: cls`",
        )
    if lacking:
        raise WeightsError(
            f"the checkpoint {folder} holds no BLIP-2 image encoder",
            got=f"{len(lacking)} tensors missing, such as {lacking[0]}",
            expected="a BLIP-2 checkpoint in transformers' format",
            do="check `model` in the line file",
        )
