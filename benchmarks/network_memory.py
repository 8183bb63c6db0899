"""What memory costs a network on the CPU: `python -m benchmarks.network_memory`.

A network asks for large blocks of memory at every layer. Three ways to serve it, each in a process of its own
and on one thread: as glibc does by itself; with every large block returned to the system when it is freed, as
`annotate` has it for pictures; and reused, as labelmill has it wherever a network runs on the CPU. Random
weights and pictures: speed depends on neither.

Then `annotate` with a network, on footage once and four times as long, for what reusing does to the peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.reports import table, write
from benchmarks.runs import ROOT, data, measure
from benchmarks.scaling import repeated
from labelmill.memory import return_large_blocks, reuse_large_blocks

WAYS: dict[str, Callable[[], None]] = {
    "glibc": lambda: None,
    "returned": return_large_blocks,
    "reused": reuse_large_blocks,
}
TIMES = (1, 4)

Work = Callable[[], object]


def grounding_dino(dtype: str, batch: int) -> tuple[Work, int]:
    from benchmarks.annotators import HEIGHT, PHRASES, WIDTH, ours, text_folder

    with tempfile.TemporaryDirectory() as folder:
        propose = ours(text_folder(Path(folder)), dtype, PHRASES)
    images = [pictures(1, HEIGHT, WIDTH)[0] for _ in range(batch)]
    return lambda: propose(images), batch


def mobilenet() -> tuple[Work, int]:
    import timm
    from safetensors.torch import save_file

    from labelmill.annotators.encoders.timm import Timm, TimmConfig

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        save_file(timm.create_model("mobilenetv2_100").state_dict(), weights)
        encoder = Timm(TimmConfig.model_validate({"weights": weights, "dtype": "float32"}))
        _ = encoder.dim  # loaded while its file is there
    crops = pictures(256, 200, 160)
    return lambda: encoder.encode(crops), len(crops)


def vit_training() -> tuple[Work, int]:
    import timm
    import torch

    network, pixels = timm.create_model("vit_tiny_patch16_224"), torch.randn(16, 3, 224, 224)
    optimiser = torch.optim.AdamW(network.parameters())

    def work() -> None:
        for _ in range(4):
            network(pixels).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()

    return work, 4 * len(pixels)


CASES: dict[str, Callable[[], tuple[Work, int]]] = {
    "`grounding-dino`, 12 phrases, float32, batch 1": lambda: grounding_dino("float32", 1),
    "`grounding-dino`, 12 phrases, bfloat16, batch 1": lambda: grounding_dino("bfloat16", 1),
    "`grounding-dino`, 12 phrases, bfloat16, batch 4": lambda: grounding_dino("bfloat16", 4),
    "`timm`, MobileNetV2, batch 8": mobilenet,
    "ViT-tiny, a training step of 16": vit_training,
}


def pictures(count: int, height_px: int, width_px: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height_px, width_px, 3), np.uint8) for _ in range(count)]


def cell(case: str, way: str) -> dict[str, float]:
    """Time one case in this process; per image."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    with patch("labelmill.annotators.devices.reuse_large_blocks"):  # which loading any network calls
        work, count = CASES[case]()
    WAYS[way]()
    work()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": wall / count,
        "user_s": (after.ru_utime - before.ru_utime) / count,
        "system_s": (after.ru_stime - before.ru_stime) / count,
        "peak_gib": after.ru_maxrss / 2**20,
    }


def lengths() -> list[dict[str, float]]:
    """Annotate footage of both lengths with `timm`."""
    line = ROOT / "examples" / "bottle-line-timm.yaml"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for times in TIMES:
            video = repeated(data() / "line" / "bottle-detection.mp4", Path(folder) / f"{times}.mp4", times)
            found = measure("annotate", line, "--source", video, "--json", "-w", Path(folder) / "w")
            shutil.rmtree(Path(folder) / "w")
            regions = found.document["counts"]["regions"]
            rows.append(
                {"times": times, "regions": regions, "cpu_s": found.cpu_s, "peak_mib": found.peak_mib}
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.cell:
        print(json.dumps(cell(*chosen.cell)))
        return
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for case in CASES:
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.network_memory", "--cell", case, way]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            cells.setdefault(case, {})[way] = json.loads(done.stdout.splitlines()[-1])
            print(case, way, cells[case][way], file=sys.stderr, flush=True)
    write(
        "network_memory",
        "Memory of networks on the CPU",
        page(cells, rows := lengths()),
        {"cells": cells, "annotate": rows},
    )


def page(cells: dict[str, dict[str, dict[str, float]]], rows: list[dict[str, float]]) -> str:
    """Both tables as Markdown."""

    def busy(found: dict[str, float]) -> float:
        return found["user_s"] + found["system_s"]

    speeds = table(
        ("", "large blocks", "processor ms an image", "of it the system's", "against reused", "peak, GiB"),
        [
            (
                case, way, f"{busy(found) * 1000:.1f}", f"{found['system_s'] * 1000:.1f}",
                f"{busy(found) / busy(ways['reused']):.2f}", f"{found['peak_gib']:.2f}",
            )
            for case, ways in cells.items()
            for way, found in ways.items()
        ],
    )  # fmt: skip
    peaks = table(
        ("footage", "regions", "processor s", "peak memory, MiB"),
        [
            (f"{row['times']} x", row["regions"], f"{row['cpu_s']:.1f}", f"{row['peak_mib']:.0f}")
            for row in rows
        ],
    )
    said = (__doc__ or "").partition("\n\n")[2].strip()
    ratio = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    return (
        f"{said}\n\n{speeds}\n\n`annotate`, `examples/bottle-line-timm.yaml`:\n\n{peaks}\n\n"
        f"Peak: **{ratio:.3f}** of that on the footage once."
    )


if __name__ == "__main__":
    main()
