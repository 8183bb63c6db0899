"""BLIP-2's frozen image encoder: a vision transformer and its Q-Former (the ψ of LRIAR, eq. 2).

Li et al., "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language
Models" (ICML 2023), in transformers' port. No language model is loaded, whatever the checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from labelmill.annotators.devices import Dtype, choose_batch_size, choose_device, choose_dtype, require
from labelmill.annotators.encoders import pretrained
from labelmill.annotators.encoders.batches import Normaliser, Pixels, View, embed, to_numpy
from labelmill.annotators.model_store import obtain
from labelmill.annotators.types import Embeddings, Image
from labelmill.config import MakerConfig
from labelmill.errors import WeightsError

if TYPE_CHECKING:
    import torch

Features = Literal["pooled", "projected", "cls"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of EVA-CLIP, BLIP-2's vision transformer: LAVIS, `BlipImageBaseProcessor`."""


class Blip2Config(MakerConfig):
    """Settings of the `blip2` encoder.

    Attributes:
        model: Hub id or local folder of any BLIP-2 checkpoint in transformers' format.
        features: What stands for a crop:
            "pooled", the mean over the Q-Former's 32 answers (768 numbers): what BLIP-2 extracts from the
            picture, averaged, since no single query is told to stand for the whole;
            "projected", the same after the projection into the space shared with texts, each answer scaled
            to length 1 before the mean (256 numbers);
            "cls", the class token of the vision transformer (1,408 numbers), without the Q-Former.
        fit: "squash" stretches a crop to the square, as BLIP-2's own preprocessing does; "pad" keeps its
            aspect ratio; "both" takes the mean of the two at twice the cost.
        batch_size: Crops in one forward pass; 8 on a CPU and 128 elsewhere when absent.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: Of the vision transformer: "auto", "float32", "bfloat16" or "float16". The Q-Former stays in
            float32, as its authors keep it.
    """

    kind: Literal["blip2"] = "blip2"
    model: str = "Salesforce/blip2-itm-vit-g"
    features: Features = "pooled"
    fit: View = "squash"
    batch_size: int | None = Field(default=None, ge=1)
    device: str = "auto"
    dtype: Dtype = "auto"

    not_in_key: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    def files(self) -> tuple[Path, ...]:
        """The weights, and the settings beside them."""
        return pretrained.files_of(self.model)


class Loaded(NamedTuple):
    """A model on its device, and what it wants to see."""

    model: Any
    normalise: Normaliser
    size_px: int
    batch_size: int


class Blip2:
    """Embeddings from BLIP-2; the model is loaded when it is first needed."""

    Config = Blip2Config
    version = 1

    def __init__(self, config: Blip2Config) -> None:
        self.config = config

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        settings = self._loaded.model.config
        width = {
            "pooled": settings.qformer_config.hidden_size,
            "projected": settings.image_text_hidden_size,
            "cls": settings.vision_config.hidden_size,
        }
        return int(width[self.config.features])

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
            return to_numpy(image_features(loaded.model, loaded.normalise(pixels), self.config.features))

    @cached_property
    def _loaded(self) -> Loaded:
        require("transformers")
        from transformers import Blip2VisionModelWithProjection

        config = self.config
        folder = obtain(config.model, pretrained.NEEDS)
        model, missing = pretrained.load(Blip2VisionModelWithProjection, folder)
        _check_whole(folder, missing, config.features)
        said = pretrained.read_preprocessing(folder)
        return ready(model, config, said.mean if said else CLIP_MEAN, said.std if said else CLIP_STD)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings, and load there."""
        return type(self), (self.config,)


def ready(model: Any, config: Blip2Config, mean: pretrained.Triple, std: pretrained.Triple) -> Loaded:
    """Put a `Blip2VisionModelWithProjection` on its device, in its number formats."""
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    model.vision_model.to(dtype)
    model.to(device)
    return Loaded(
        model,
        Normaliser(mean, std, device, dtype),
        int(model.config.vision_config.image_size),
        choose_batch_size(config.batch_size, device),
    )


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
