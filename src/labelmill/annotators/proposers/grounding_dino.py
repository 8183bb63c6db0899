"""Grounding DINO by transformers' maintained port: boxes for text prompts (LRIAR, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from labelmill.annotators.devices import choose_dtype, require, use_device
from labelmill.annotators.encoders.pretrained import FROM_FOLDER, load, readable
from labelmill.annotators.grounding.proposer import GroundingConfig, GroundingProposer
from labelmill.annotators.model_ref import ModelRef
from labelmill.annotators.model_store import obtain
from labelmill.annotators.prompts import TokenGroup
from labelmill.errors import WeightsError

if TYPE_CHECKING:
    import torch

_NEEDS = ("config.json", "*.safetensors|pytorch_model*.bin", "tokenizer.json|vocab.txt")
_READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


class GroundingDinoConfig(GroundingConfig):
    """Settings of the `grounding-dino` proposer.

    Attributes:
        model: Hub id, or a folder that `save_pretrained` wrote.
    """

    kind: Literal["grounding-dino"] = "grounding-dino"
    model: ModelRef = "IDEA-Research/grounding-dino-tiny"

    def files(self) -> tuple[Path, ...]:
        """The weights, the architecture and the tokenizer.

        Raises:
            WeightsError: The model is not on this machine, and the hub does not give it.
        """
        folder = obtain(self.model, _NEEDS)
        present = [folder / name for name in _READ if (folder / name).is_file()]
        return (*present, *weights_in(folder))


def weights_in(folder: Path) -> list[Path]:
    """The weights' files that transformers reads in a folder: safetensors before pickles."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


class GroundingDino(GroundingProposer):
    """Boxes for text prompts.

    Args:
        config: Settings.

    Raises:
        WeightsError: The model cannot be had, or does not fit.
        LineFileError: A phrase cannot be read, or the device does not exist.
    """

    Config: ClassVar[type[GroundingDinoConfig]] = GroundingDinoConfig
    version = 1

    def __init__(self, config: GroundingDinoConfig) -> None:
        require("torch")
        require("transformers")
        device = use_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        folder = obtain(config.model, _NEEDS)
        super().__init__(config, Port(load_port(folder), load_tokenizer(folder), device, dtype), device)


class Port:
    """The transformers network in inference dress.

    Args:
        model: A `GroundingDinoForObjectDetection` in float32; changed in place.
        tokenizer: Of its text side.
        device: Where it goes.
        dtype: Of its products; coordinates are float32 always.
    """

    def __init__(self, model: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.max_tokens = int(self.model.config.max_text_len)
        self.queries = int(self.model.config.num_queries)
        self._device, self._dtype = device, dtype
        self._ids: list[torch.Tensor] = []

    def learn(self, groups: Sequence[TokenGroup]) -> None:
        """Take the prompts, and make the network ready for them."""
        import torch

        from labelmill.annotators.grounding.frozen import ImageOnce, TextOnce
        from labelmill.annotators.grounding.precision import lower_precision

        core = self.model.model
        self._ids = [torch.tensor([group.token_ids], device=self._device) for group in groups]
        self._text = TextOnce(core.text_backbone, len(groups))
        core.text_backbone = None
        if self._dtype != torch.float32:
            layers = range(len(self.model.bbox_embed))
            heads = [f"{part}bbox_embed.{layer}" for layer in layers for part in ("", "model.decoder.")]
            exact = (*heads, "model.encoder_output_bbox_embed", "model.decoder.reference_points_head")
            lower_precision(self.model, self._dtype, exact)
        core.text_backbone = self._text
        self._image = ImageOnce(core.backbone, lambda pixels: pixels) if len(groups) > 1 else None
        core.backbone = self._image or core.backbone
        _lean_attention(self.model)
        self.model.to(self._device)

    def forward(self, pixels: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Look for one group of phrases; see `Network`."""
        import torch

        self._text.current = group
        ids = self._ids[group].expand(len(pixels), -1)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            found = self.model(pixel_values=pixels, input_ids=ids)
        if self._image is not None and group == len(self._ids) - 1:
            self._image.forget()
        return found.logits, found.pred_boxes


def load_port(folder: Path) -> Any:
    """Load the transformers model in float32, every weight accounted for.

    Raises:
        WeightsError: The folder holds another model, lacks weights, or is a pickle of live objects.
    """
    import torch
    from transformers import GroundingDinoForObjectDetection

    model, missing = load(GroundingDinoForObjectDetection, folder, dtype=torch.float32)
    if missing:
        raise WeightsError(
            f"model folder {folder} does not hold the whole of Grounding DINO",
            got=f"{len(missing)} tensors missing, such as {min(missing)}",
            expected="what save_pretrained writes",
            do="check the folder, or pull the model again",
        )
    return model


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a model's folder.

    Raises:
        WeightsError: Its files are damaged.
    """
    from transformers import AutoTokenizer

    with readable(folder):
        return AutoTokenizer.from_pretrained(folder, **FROM_FOLDER)


def _lean_attention(model: torch.nn.Module) -> None:
    import torch
    from transformers.models.grounding_dino.modeling_grounding_dino import (
        GroundingDinoMultiscaleDeformableAttention,
    )

    from labelmill.annotators.grounding.deformable import sample_sum

    class Lean(torch.nn.Module):
        def forward(self, value: Any, shapes: Any, shapes_list: Any, start: Any, *rest: Any) -> torch.Tensor:
            del shapes, start
            locations, weights, _ = rest
            return sample_sum(value, shapes_list, locations, weights)

    for module in model.modules():
        if isinstance(module, GroundingDinoMultiscaleDeformableAttention):
            module.attn = Lean()
