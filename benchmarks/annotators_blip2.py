"""`python -m benchmarks.annotators_blip2`: BLIP-2 ViT-g crops per second, the usual loop against ours.

The whole ViT-g and Q-Former with random weights: speed does not depend on them. Each cell is measured in a
process of its own, so that its peak memory is its own, and is kept in `docs/results/annotators_blip2.json`;
`--fresh` measures all again.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe

RESULTS = Path(__file__).parents[1] / "docs" / "results"
CELLS = [(how, dtype) for how in ("loop", "4", "1", "16") for dtype in ("float32", "bfloat16")]
CROPS = {"loop": 3, "1": 3, "4": 4, "16": 16}
"""Crops in each cell: enough to time on a CPU, where one takes seconds, without waiting for hours."""
THREADS = 1
"""Of torch on the CPU, as in `benchmarks.annotators`."""

Cell = dict[str, Any]


def run(fresh: bool = False) -> list[Cell]:
    """Measure every cell that has not been measured on this machine.

    Returns:
        Cells with `how` ("loop" or the batch size), `dtype`, `crops_per_s` and `peak_gib`.
    """
    path, machine = RESULTS / "annotators_blip2.json", f"{describe()}; {THREADS} threads"
    kept: list[Cell] = []
    if path.exists() and not fresh:
        found = json.loads(path.read_text())
        kept = found["cells"] if found["machine"] == machine else []
    for how, dtype in CELLS:
        if any((cell["how"], cell["dtype"]) == (how, dtype) for cell in kept):
            continue
        command = [sys.executable, "-m", "benchmarks.annotators_blip2", "--cell", how, dtype]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        cell = json.loads(done.stdout.splitlines()[-1])
        print(cell, file=sys.stderr, flush=True)
        kept.append(cell)
        RESULTS.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine, "cells": kept}, indent=1) + "\n")
        (RESULTS / "annotators_blip2.md").write_text(page(machine, kept))
    return kept


def page(machine: str, cells: list[Cell]) -> str:
    """The results as Markdown."""
    return (
        f"# BLIP-2 (ViT-g and Q-Former, random weights)\n\n{machine}\n\n"
        "`python -m benchmarks.annotators_blip2`; the usual loop is transformers' processor and one forward\n"
        "pass for each crop; factors are against its float32 row. The wall clock is that of a machine that\n"
        "may have been busy with other things.\n\n" + table(cells) + "\n"
    )


def table(cells: list[Cell]) -> str:
    """The cells as Markdown; factors are against the usual loop in float32."""
    base = next(cell for cell in cells if (cell["how"], cell["dtype"]) == ("loop", "float32"))
    lines = [
        "| | dtype | crops/s | factor | processor s/crop | factor | peak memory, GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        name = "usual loop" if cell["how"] == "loop" else f"labelmill, batch {cell['how']}"
        wall, busy = cell["crops_per_s"] / base["crops_per_s"], base["cpu_s"] / cell["cpu_s"]
        lines.append(
            f"| {name} | {cell['dtype']} | {cell['crops_per_s']:.3f} | {wall:.2f} | {cell['cpu_s']:.1f} | "
            f"{busy:.2f} | {cell['peak_gib']:.1f} |"
        )
    return "\n".join(lines)


def measure(how: str, dtype: str) -> Cell:
    """Time one cell in this process."""
    import torch

    torch.set_num_threads(THREADS)
    model = random_model()
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (220, 180, 3), np.uint8) for _ in range(CROPS[how])]
    encode = usual_loop(model, dtype) if how == "loop" else ours(model, dtype, int(how))
    encode(crops[:1])
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.synchronize()
    started, busy = time.perf_counter(), time.process_time()
    encode(crops)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "how": how,
        "dtype": dtype,
        "crops_per_s": len(crops) / seconds,
        "cpu_s": busy / len(crops),
        "peak_gib": peak / 2**30,
    }


def random_model() -> Any:
    """BLIP-2's image encoder in full size, with cheap random weights."""
    import torch
    from transformers import Blip2Config, Blip2VisionModelWithProjection

    with torch.device("meta"):
        model = Blip2VisionModelWithProjection(Blip2Config())
    model = model.to_empty(device="cuda" if torch.cuda.is_available() else "cpu").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
    return model.requires_grad_(False)


def usual_loop(model: Any, dtype: str) -> Callable[[list[Any]], Any]:
    """What a reader of the model's page writes: the processor and one forward pass for each crop."""
    import torch
    from PIL import Image
    from transformers import BlipImageProcessor

    processor = BlipImageProcessor(size={"height": 224, "width": 224})
    form = getattr(torch, dtype)
    model = model.to(form)

    def encode(crops: list[Any]) -> list[Any]:
        embeddings = []
        with torch.no_grad():
            for crop in crops:
                pixels = processor(images=Image.fromarray(crop), return_tensors="pt")["pixel_values"]
                found = model(pixel_values=pixels.to(model.device, form))
                embeddings.append(found.image_embeds.mean(dim=1).float().cpu().numpy())
        return embeddings

    return encode


def ours(model: Any, dtype: str, batch_size: int) -> Callable[[list[Any]], Any]:
    """The `blip2` encoder around the same model."""
    from labelmill.annotators.encoders.blip2 import CLIP_MEAN, CLIP_STD, Blip2, Blip2Config, ready

    config = Blip2Config.model_validate({"dtype": dtype, "batch_size": batch_size, "features": "projected"})
    encoder = Blip2(config)
    encoder._loaded = ready(model, config, CLIP_MEAN, CLIP_STD)
    return encoder.encode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="measure every cell again")
    parser.add_argument("--cell", nargs=2, metavar=("HOW", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(measure(*arguments.cell)))
    else:
        print(table(run(arguments.fresh)))
