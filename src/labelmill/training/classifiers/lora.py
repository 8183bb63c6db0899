"""LoRA: low-rank adapters on the attention of a frozen backbone (LRIAR, eq. 6: `h = W0 x + B A x`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from labelmill.annotators.devices import require
from labelmill.errors import TrainingError
from labelmill.files import write_bytes
from labelmill.training.classifiers.model import Classifier
from labelmill.training.classifiers.probe import set_mode
from labelmill.training.config import ClassifierConfig

__all__ = ["merge", "prepare", "save_apart", "set_mode"]

_ATTENTION = (("qkv",), ("q_proj", "v_proj"), ("query", "value"))
"""Names of the query and value projections in timm and in transformers, newer and older."""

HEAD = "head.safetensors"


def prepare(classifier: Classifier, config: ClassifierConfig) -> None:
    """Freeze the backbone and give its attention adapters; B starts at zero, so nothing changes at first.

    Raises:
        TrainingError: No layer has such a name.
    """
    require("peft", "training")
    from peft import LoraConfig, get_peft_model

    linear = {
        name.rpartition(".")[2]
        for name, layer in classifier.encoder.named_modules()
        if isinstance(layer, nn.Linear)
    }
    targets = config.target_modules or next((names for names in _ATTENTION if set(names) <= linear), None)
    if targets is None or not set(targets) & linear:
        raise TrainingError(
            "no layer of the backbone can take adapters",
            got=f"target_modules {', '.join(targets or ()) or 'by default'}",
            expected=f"names among {', '.join(sorted(linear)) or 'none: it has no linear layers'}",
            do="set target_modules, or choose a transformer",
        )
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.adapter_dropout,
        target_modules=list(targets),
    )
    classifier.encoder = get_peft_model(classifier.encoder, settings)
    classifier.head.requires_grad_(True)


def save_apart(classifier: Classifier, folder: Path) -> None:
    """Save the adapters as peft does (`adapter_model.safetensors`), and the head beside them."""
    from safetensors.torch import save

    encoder: Any = classifier.encoder
    folder.mkdir(parents=True, exist_ok=True)
    encoder.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card; ours lies one folder up
    write_bytes(
        folder / HEAD,
        save({name: value.cpu().contiguous() for name, value in classifier.head.state_dict().items()}),
    )


def merge(classifier: Classifier) -> Classifier:
    """Add every `B A` to its `W0`, in place; the adapters are gone afterwards."""
    encoder: Any = classifier.encoder
    with torch.no_grad():
        classifier.encoder = encoder.merge_and_unload()
    return classifier
