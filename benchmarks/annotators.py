"""`python -m benchmarks.annotators`: Grounding DINO images per second, the usual loop against ours.

The whole Swin-T and BERT-base with random weights, at 800×1333: speed does not depend on the weights. The
usual loop is the original package as its readers call it: one image and one phrase at a time. Each cell is
measured in a process of its own, so that its peak memory is its own, and is kept in
`docs/results/annotators.json`, so that a broken run goes on; `--fresh` measures all again. Then the same for
BLIP-2: `python -m benchmarks.annotators_blip2`.

Seconds on the wall clock are those of a machine that may have been busy with other things; seconds of
processor time are not, and the factors are given in both. One thread by default, for the same reason: two
that wait for one another on a busy machine burn the time of both.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PHRASES = ("hand", "work glove", "red bottle", "car", "carpet", "man", "woman", "bag", "spanner", "wrench",
           "blue glove", "bottle")  # fmt: skip
HEIGHT, WIDTH = 800, 1333
DTYPES = ("float32", "bfloat16")
CELLS = [
    *(("loop", dtype, phrases, 1) for phrases in (12, 4, 1) for dtype in DTYPES),
    *(("ours", dtype, phrases, batch) for batch in (1, 4, 16) for phrases in (12, 4, 1) for dtype in DTYPES),
]

Cell = dict[str, Any]


def run(fresh: bool, threads: int, only: list[str]) -> list[Cell]:
    """Measure every cell that has not been measured on this machine."""
    path, machine = RESULTS / "annotators.json", f"{describe()}; {threads} threads"
    kept: list[Cell] = []
    if path.exists() and not fresh:
        found = json.loads(path.read_text())
        kept = found["cells"] if found["machine"] == machine else []
    for cell in CELLS:
        name = "-".join(map(str, cell))
        if any(done["name"] == name for done in kept) or (only and name not in only):
            continue
        command = [
            sys.executable,
            "-m",
            "benchmarks.annotators",
            "--cell",
            *map(str, cell),
            "--threads",
            str(threads),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:  # a batch that does not fit this machine is a result too
            print(f"{name}: {(done.stderr.splitlines() or ['killed'])[-1]}", file=sys.stderr, flush=True)
            continue
        kept.append({"name": name, **json.loads(done.stdout.splitlines()[-1])})
        print(kept[-1], file=sys.stderr, flush=True)
        kept.sort(key=lambda one: ["-".join(map(str, known)) for known in CELLS].index(one["name"]))
        RESULTS.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine, "cells": kept}, indent=1) + "\n")
        (RESULTS / "annotators.md").write_text(report(machine, kept))
    return kept


def report(machine: str, cells: list[Cell]) -> str:
    """The cells as a Markdown page."""
    return (
        f"# Grounding DINO (Swin-T, {HEIGHT}×{WIDTH}, random weights)\n\n{machine}\n\n"
        "`python -m benchmarks.annotators`; the usual loop is the original package, one image and one\n"
        "phrase at a time; factors are against its float32 row of as many phrases.\n\n" + table(cells) + "\n"
    )


def table(cells: list[Cell]) -> str:
    """The cells as a Markdown table."""
    lines = [
        "| | phrases | dtype | images/s | factor | processor s/image | factor | peak memory, GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    loops = {cell["phrases"]: cell for cell in cells if (cell["how"], cell["dtype"]) == ("loop", "float32")}
    for cell in cells:
        name = "usual loop" if cell["how"] == "loop" else f"labelmill, batch {cell['batch']}"
        base = loops.get(cell["phrases"])
        wall = f"{base['wall_s'] / cell['wall_s']:.1f}" if base else ""
        busy = f"{base['cpu_s'] / cell['cpu_s']:.1f}" if base and not cell["cuda"] else ""
        lines.append(
            f"| {name} | {cell['phrases']} | {cell['dtype']} | {1 / cell['wall_s']:.3f} | {wall} | "
            f"{cell['cpu_s']:.1f} | {busy} | {cell['peak_gib']:.1f} |"
        )
    return "\n".join(lines)


def measure(how: str, dtype: str, phrases: int, batch: int, threads: int) -> Cell:
    """Time one cell in this process.

    Returns:
        Seconds for each image, on the wall clock and of the processor, and the peak memory.
    """
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        text = text_folder(Path(folder))
        make = usual_loop if how == "loop" else ours
        work = make(text, dtype, PHRASES[:phrases])
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(batch)]
    cuda = torch.cuda.is_available()
    repeats = 10 if cuda else 1
    if cuda or (how, batch) == ("ours", 1):  # warm: our first pass encodes the text, a GPU's loads kernels
        work(images[:1])
    if cuda:
        torch.cuda.synchronize()
    wall, busy = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work(images)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    count = repeats * len(images)
    return {
        "how": how, "dtype": dtype, "phrases": phrases, "batch": batch, "cuda": cuda,
        "wall_s": wall / count, "cpu_s": busy / count, "peak_gib": peak / 2**30,
    }  # fmt: skip


def text_folder(folder: Path) -> Path:
    """A small vocabulary, and the settings of BERT-base."""
    from tests.annotators.grounding.tiny import write_text_encoder
    from transformers import BertConfig

    write_text_encoder(folder)
    BertConfig().save_pretrained(folder)
    return folder


def usual_loop(text: Path, dtype: str, phrases: tuple[str, ...]) -> Callable[[list[Any]], None]:
    """What a reader of the original's page writes: for each image and each phrase, `predict`."""
    import torch
    from PIL import Image

    from labelmill.annotators.proposers.groundingdino_py_network import (
        build,
        packaged_architecture,
        read_architecture,
    )

    # Built around our replacement of its BERT wrapper, without which it does not start on transformers 5.
    model = build(read_architecture(packaged_architecture()), text)
    import groundingdino.datasets.transforms as transforms
    from groundingdino.util.inference import predict

    transform = transforms.Compose(
        [
            transforms.RandomResize([800], max_size=1333),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)

    def work(images: list[Any]) -> None:
        with torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32"):
            for image in images:
                pixels, _ = transform(Image.fromarray(image), None)
                for phrase in phrases:
                    predict(model, pixels, phrase, box_threshold=0.99, text_threshold=0.25, device=device)

    return work


def ours(text: Path, dtype: str, phrases: tuple[str, ...]) -> Callable[[list[Any]], None]:
    """The `grounding-dino` proposer, from frames to detections."""
    import torch
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    from labelmill.annotators.devices import use_device
    from labelmill.annotators.grounding.proposer import GroundingProposer
    from labelmill.annotators.proposers import grounding_dino
    from labelmill.annotators.types import Frame

    device = use_device("auto")
    model = GroundingDinoForObjectDetection(GroundingDinoConfig()).eval().requires_grad_(False)
    network = grounding_dino.Port(model, grounding_dino.load_tokenizer(text), device, getattr(torch, dtype))
    settings = {"prompts": phrases, "dtype": dtype, "box_threshold": 0.99, "batch_size": 256}
    config = grounding_dino.GroundingDinoConfig.model_validate(settings)
    proposer = GroundingProposer(config, network, device)

    def work(images: list[Any]) -> None:
        frames = [Frame("benchmark", number, 0.0, image) for number, image in enumerate(images)]
        for _ in proposer.propose(iter(frames)):
            pass

    return work


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fresh", action="store_true", help="measure every cell again")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--only", nargs="*", default=[], help="cells such as ours-bfloat16-12-1")
    parser.add_argument("--no-blip2", action="store_true", help="leave BLIP-2 out")
    parser.add_argument(
        "--cell", nargs=4, metavar=("HOW", "DTYPE", "PHRASES", "BATCH"), help=argparse.SUPPRESS
    )
    chosen = parser.parse_args()
    if chosen.cell:
        how, dtype, phrases, batch = chosen.cell
        print(json.dumps(measure(how, dtype, int(phrases), int(batch), chosen.threads)))
        return
    print(table(run(chosen.fresh, chosen.threads, chosen.only)))
    if not chosen.no_blip2:
        from benchmarks import annotators_blip2

        print(annotators_blip2.table(annotators_blip2.run(chosen.fresh)))


if __name__ == "__main__":
    main()
