"""`python -m benchmarks.annotate_share`: how much of `annotate` is the model's own forward pass.

A line with `grounding-dino` in full size (Swin-T and BERT-base, random weights) runs on a generated video of
1280×720, from the file to the final tables; the box threshold is such that about ten regions of a frame are
cropped, embedded and matched. After each pass of the network in it, the same pass is made again on a batch
that was scaled and normalised beforehand: the bare forward, under like conditions, and taken away from the
run's time. In processor time on one thread, which depends least on who else uses the machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.annotators import text_folder
from benchmarks.reports import table, write

WIDTH, HEIGHT = 1280, 720
REGIONS = 10
"""Wanted of a frame; random weights score every query about alike."""


class Seconds(NamedTuple):
    """Of one pass: on the wall clock, and of the processor on this thread."""

    wall: float
    busy: float


def timed(work: Callable[[], Any]) -> tuple[Any, Seconds]:
    """Do it; the result, and what it took."""
    wall, busy = time.perf_counter(), time.thread_time()
    found = work()
    return found, Seconds(time.perf_counter() - wall, time.thread_time() - busy)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        figures = measure(Path(root), chosen.frames, chosen.dtype)
    rows = [
        ("the network alone", *_shown(figures, "bare")),
        ("`annotate`, from the video file to the tables", *_shown(figures, "annotate")),
        ("of which within the network's forward", *_shown(figures, "inside")),
    ]
    text = (
        f"{chosen.frames} frames of {WIDTH}×{HEIGHT}, {chosen.dtype}, {figures['regions']} regions, `hog`, "
        f"one thread, batch of {figures['batch_size']}, random weights.\n\n"
        + table(("", "wall s", "processor s"), rows)
        + f"\n\n`annotate` has {figures['share_cpu']:.1%} of the bare forward's throughput in processor time "
        f"({figures['share_wall']:.1%} on the wall clock); within the one run the forward is "
        f"{figures['share_inside']:.1%} of all processor time. Aim: 95 %."
    )
    write("annotate_share", "The share of the forward pass in `annotate`", text, figures)


def _shown(figures: dict[str, Any], name: str) -> tuple[str, str]:
    return f"{figures[f'{name}_wall_s']:.1f}", f"{figures[f'{name}_cpu_s']:.1f}"


def measure(root: Path, count: int, dtype: str) -> dict[str, Any]:
    """The bare forward, then the whole of `annotate`, with one model in one process."""
    import torch
    from tests.conftest import make_bench, moving_square
    from tests.footage import write_video
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    from labelmill.annotators.types import Frame
    from labelmill.datasets.annotate import annotate
    from labelmill.datasets.workspace import Workspace
    from labelmill.line import load_line
    from labelmill.makers import PROPOSERS

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = text_folder(root / "model")
    GroundingDinoForObjectDetection(GroundingDinoConfig()).save_pretrained(model)
    make_bench(root)
    images = [moving_square(10 + number, (WIDTH, HEIGHT)) for number in range(count)]
    write_video(root / "clip.mp4", images)
    path = root / "line.yaml"
    settings = f"{{kind: grounding-dino, model: {model}, prompts: [hand, bottle], dtype: {dtype}}}"
    path.write_text(path.read_text().replace("{kind: motion}", settings))
    line = load_line(path)
    proposer: Any = PROPOSERS.make(line.proposer)
    frames = [Frame("bare", number, 0.0, image) for number, image in enumerate(images)]
    proposer.config = _threshold(proposer, frames[0])  # and the text is encoded here

    network, size = proposer.network, proposer.batch_size
    batches = [proposer._read(images[start : start + size]) for start in range(0, count, size)]
    forward = network.forward
    inside: list[Seconds] = []
    bare: list[Seconds] = []

    def watched(pixels: torch.Tensor, group: int) -> Any:
        found, seconds = timed(lambda: forward(pixels, group))
        inside.append(seconds)
        bare.append(timed(lambda: forward(batches[len(bare)], group))[1])
        return found

    network.forward = watched
    PROPOSERS.make = lambda config: proposer  # type: ignore[method-assign]  # loaded already
    wall, busy = time.perf_counter(), time.process_time()  # of all threads: those that decode ahead too
    counts = annotate(line, Workspace(root / "workspace"))["counts"]
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    alone, within = (Seconds(*np.sum(passes, axis=0).tolist()) for passes in (bare, inside))
    whole = Seconds(wall - alone.wall, busy - alone.busy)
    return {
        "frames": count,
        "size_wh": [WIDTH, HEIGHT],
        "dtype": dtype,
        "batch_size": size,
        "regions": counts["regions"],
        **{
            f"{name}_{clock}_s": round(value, 3)
            for name, seconds in (("bare", alone), ("annotate", whole), ("inside", within))
            for clock, value in (("wall", seconds.wall), ("cpu", seconds.busy))
        },
        "share_cpu": alone.busy / whole.busy,
        "share_wall": alone.wall / whole.wall,
        "share_inside": within.busy / whole.busy,
    }


def _threshold(proposer: Any, frame: Any) -> Any:
    """The proposer's settings, with thresholds that about `REGIONS` boxes of a frame exceed."""
    settings = proposer.config
    proposer.config = settings.model_copy(update={"box_threshold": 0.0, "text_threshold": 0.0})
    (found,) = proposer.propose(iter([frame]))
    scores = np.sort(found.confidence)[::-1]
    least = float(scores[min(REGIONS, len(scores) - 1)])
    return settings.model_copy(update={"box_threshold": least, "text_threshold": least})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
