"""`labelmill demo --foundation`: the demo's line with foundation models, and what that costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from labelmill.verbs.common import note

PROPOSER = {"kind": "grounding-dino", "prompts": ["hand", {"phrase": "gloved hand", "class": "hand"}]}
ENCODER = {"kind": "blip2"}
SHARD_FRAMES = 32
"""What a kill can cost: on a CPU, frames of the usual 512 take hours."""


def with_foundation(path: Path) -> Path:
    """Write a line beside another, with Grounding DINO and BLIP-2 in it, and say what will be fetched.

    Args:
        path: A line file.

    Returns:
        The new line file, `foundation-line.yaml`.
    """
    import yaml

    from labelmill.files import write_bytes
    from labelmill.line import load_line

    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document |= {"proposer": PROPOSER, "encoder": ENCODER}
    selection = document.get("selection") or {}
    document["selection"] = {
        **selection,
        "shard_frames": min(selection.get("shard_frames", 512), SHARD_FRAMES),
    }
    target = path.with_name("foundation-line.yaml")
    write_bytes(target, yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode())
    line: Any = load_line(target)
    for text in announce([line.proposer.model, line.encoder.model]):
        note(text)
    note("loading both, and trying them on a frame …")
    note(cost(line))
    return target


def announce(models: list[str]) -> list[str]:
    """Say which models are here and which will be fetched, with their sizes."""
    from labelmill.annotators.encoders.pretrained import NEEDS
    from labelmill.annotators.known_models import size_of
    from labelmill.annotators.model_store import folder_of, local_folder

    texts = []
    for model in models:
        if local_folder(model, NEEDS) is not None:
            texts.append(f"{model}: on this machine")
        else:
            texts.append(f"{model}: will be downloaded once to {folder_of(model)}, {size_of(model)}")
    return texts


def cost(line: Any) -> str:
    """Load a line's models, look at one frame with one crop, and say what 1,000 of them take here."""
    import numpy as np

    from labelmill.annotators.types import Frame
    from labelmill.makers import ENCODERS, PROPOSERS

    proposer, encoder = PROPOSERS.make(line.proposer), ENCODERS.make(line.encoder)
    frame = Frame("cost", 0, 0.0, np.full((360, 640, 3), 127, dtype=np.uint8))
    crop = frame.image[:120, :120]
    spent = 0.0
    for _ in range(2):  # the first pass loads, and encodes the text
        started = time.perf_counter()
        list(proposer.propose(iter([frame])))
        encoder.encode([crop])
        spent = time.perf_counter() - started
    minutes = spent * 1000 / 60
    return f"1,000 frames with a region each take about {minutes:,.0f} minutes on this machine"
