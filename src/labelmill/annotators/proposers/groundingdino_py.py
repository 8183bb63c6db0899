"""Grounding DINO by its original package, with the authors' checkpoints: boxes for text prompts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from labelmill.annotators.devices import choose_dtype, require, use_device
from labelmill.annotators.grounding.proposer import GroundingConfig, GroundingProposer
from labelmill.annotators.model_ref import ModelRef
from labelmill.annotators.model_store import obtain
from labelmill.config import FilePath
from labelmill.errors import WeightsError

_TEXT_NEEDS = ("config.json", "tokenizer.json|vocab.txt")
_TEXT_READ = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
)
_CHECKPOINTS = ("*.safetensors", "*.pth")


class GroundingDinoPyConfig(GroundingConfig):
    """Settings of the `groundingdino-py` proposer.

    Attributes:
        model: Hub id, a folder with one checkpoint (`.pth` or `.safetensors`), or the checkpoint itself.
        architecture: The configuration that came with the checkpoint, a Python file of plain assignments. By
            default the one beside the checkpoint, else the package's own for Swin-T.
        text_encoder: Vocabulary and settings of BERT: hub id or folder. Its weights are in the checkpoint.
    """

    kind: Literal["groundingdino-py"] = "groundingdino-py"
    model: ModelRef = "ShilongLiu/GroundingDINO"
    architecture: FilePath | None = None
    text_encoder: ModelRef = "google-bert/bert-base-uncased"
    not_in_key: ClassVar[frozenset[str]] = GroundingConfig.not_in_key | {"text_encoder"}

    def files(self) -> tuple[Path, ...]:
        """The checkpoint, its architecture, and the text encoder's vocabulary and settings.

        Raises:
            WeightsError: One is not on this machine, and the hub does not give it.
        """
        text = obtain(self.text_encoder, _TEXT_NEEDS)
        checkpoint = self.checkpoint()
        vocabulary = [text / name for name in _TEXT_READ if (text / name).is_file()]
        return (checkpoint, self.architecture_beside(checkpoint), *vocabulary)

    def checkpoint(self) -> Path:
        """The checkpoint's file.

        Raises:
            WeightsError: There is none, or there are several.
        """
        if Path(self.model).is_file():
            return Path(self.model)
        folder = obtain(self.model, ("|".join(_CHECKPOINTS),))
        found = [path for pattern in _CHECKPOINTS for path in sorted(folder.glob(pattern))]
        if len(found) > 1:
            raise WeightsError(
                f"model folder {folder} holds {len(found)} checkpoints",
                do=f"name one of them in the line file (model: {found[0]})",
            )
        return found[0]

    def architecture_beside(self, checkpoint: Path) -> Path:
        """The architecture's file.

        Raises:
            WeightsError: Several lie beside the checkpoint.
        """
        if self.architecture is not None:
            return self.architecture
        found = sorted(checkpoint.parent.glob("*.py"))
        if len(found) > 1:
            raise WeightsError(
                f"{len(found)} architectures lie beside {checkpoint}", do="name one with `architecture:`"
            )
        if found:
            return found[0]
        require("groundingdino")
        from labelmill.annotators.proposers.groundingdino_py_network import packaged_architecture

        return packaged_architecture()


class GroundingDinoPy(GroundingProposer):
    """Boxes for text prompts.

    Args:
        config: Settings.

    Raises:
        WeightsError: The checkpoint cannot be had, or does not fit its architecture.
        LineFileError: A phrase cannot be read, or the device does not exist.
    """

    Config: ClassVar[type[GroundingDinoPyConfig]] = GroundingDinoPyConfig
    version = 1

    def __init__(self, config: GroundingDinoPyConfig) -> None:
        require("torch")
        require("transformers")
        require("groundingdino")
        from labelmill.annotators.proposers.groundingdino_py_network import Original

        device = use_device(config.device)
        dtype = choose_dtype(config.dtype, device)
        checkpoint = config.checkpoint()
        text = obtain(config.text_encoder, _TEXT_NEEDS)
        network = Original(checkpoint, config.architecture_beside(checkpoint), text, device, dtype)
        super().__init__(config, network, device)
