"""The public models that labelmill's makers know by name, with their sizes and licences.

Any other model of the same architecture works by its hub id or its local folder; these are the ones that
`labelmill models list` shows and whose size is known before the hub is asked.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Known:
    """A public model.

    Attributes:
        model: Hub id.
        kind: The maker that it serves.
        megabytes: What will be downloaded, about (float32 parameters times four bytes).
        licence: SPDX id, as the model's page says.
        about: One line for people.
        files: The files that the maker reads, where a page holds others too; empty: the usual ones.
    """

    model: str
    kind: str
    megabytes: int
    licence: str
    about: str
    files: tuple[str, ...] = ()


KNOWN = (
    Known(
        "IDEA-Research/grounding-dino-tiny",
        "grounding-dino",
        690,
        "Apache-2.0",
        "Grounding DINO, Swin-T: open-vocabulary boxes (default)",
    ),
    Known(
        "IDEA-Research/grounding-dino-base",
        "grounding-dino",
        930,
        "Apache-2.0",
        "Grounding DINO, Swin-B: slower, finds more",
    ),
    Known(
        "ShilongLiu/GroundingDINO",
        "groundingdino-py",
        694,
        "Apache-2.0",
        "the original Swin-T checkpoint, for the original package",
        ("groundingdino_swint_ogc.pth", "GroundingDINO_SwinT_OGC.cfg.py"),
    ),
    Known(
        "google-bert/bert-base-uncased",
        "groundingdino-py",
        1,
        "Apache-2.0",
        "vocabulary and settings of the text side; its weights are inside the checkpoint",
        ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    ),
    Known(
        "Salesforce/blip2-itm-vit-g",
        "blip2",
        4690,
        "MIT",
        "BLIP-2, ViT-g and Q-Former: embeddings of crops (default)",
    ),
)


def known(model: str) -> Known | None:
    """The entry of a hub id, or None."""
    return next((entry for entry in KNOWN if entry.model == model), None)


def size_of(model: str) -> str:
    """What fetching a model takes, for people: "about 690 MB, licence Apache-2.0"."""
    entry = known(model)
    return f"about {entry.megabytes:,} MB, licence {entry.licence}" if entry else "size not known"


def near(model: str) -> str:
    """The question whether a misspelt id means a known one, "did you mean …? "; empty when none is near."""
    ids = {name: entry.model for entry in KNOWN for name in (entry.model, entry.model.partition("/")[2])}
    hits = difflib.get_close_matches(Path(model).name, ids, n=1, cutoff=0.8)
    return f"did you mean {ids[hits[0]]}? " if hits and ids[hits[0]] != model else ""
