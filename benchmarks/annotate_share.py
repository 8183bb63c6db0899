"""`python -m benchmarks.annotate_share`: how much of `annotate` is the model's own forward pass.

A line with `grounding-dino` in full size (Swin-T and BERT-base, random weights) runs on a few generated
frames, from the video file to the final tables, and the same frames are given to the same proposer alone.
In processor time on one thread, which neighbours on the machine do not change.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.annotators import RESULTS, text_folder
from benchmarks.machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    chosen = parser.parse_args()

    import torch
    from tests.conftest import make_bench, moving_square
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    from labelmill.annotators.types import Frame
    from labelmill.datasets.annotate import annotate
    from labelmill.datasets.workspace import Workspace
    from labelmill.line import load_line
    from labelmill.makers import PROPOSERS

    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as root:
        model = text_folder(Path(root) / "model")
        GroundingDinoForObjectDetection(GroundingDinoConfig()).save_pretrained(model)
        make_bench(Path(root), frames=chosen.frames)
        path = Path(root) / "line.yaml"
        settings = f"{{kind: grounding-dino, model: {model}, prompts: [hand, bottle], dtype: {chosen.dtype}}}"
        path.write_text(path.read_text().replace("{kind: motion}", settings))
        line = load_line(path)
        proposer = PROPOSERS.make(line.proposer)
        frames = [Frame("bare", n, 0.0, moving_square(n)) for n in range(chosen.frames)]
        list(proposer.propose(iter(frames[:1])))  # the text is encoded here
        started = time.process_time()
        list(proposer.propose(iter(frames)))
        bare_s = time.process_time() - started
        PROPOSERS.make = lambda config: proposer  # type: ignore[method-assign]  # loaded already
        started = time.process_time()
        counts = annotate(line, Workspace(Path(root) / "workspace"))["counts"]
        whole_s = time.process_time() - started
    figures = {
        "frames": chosen.frames,
        "dtype": chosen.dtype,
        "regions": counts["regions"],
        "bare_cpu_s": bare_s,
        "annotate_cpu_s": whole_s,
        "share": bare_s / whole_s,
    }
    print(json.dumps(figures, indent=1))
    RESULTS.mkdir(parents=True, exist_ok=True)
    machine = describe()
    document = {"machine": machine, **figures}
    (RESULTS / "annotate_share.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "annotate_share.md").write_text(
        f"# The share of the forward pass in `annotate`\n\n{machine}\n\n"
        f"`python -m benchmarks.annotate_share`: {chosen.frames} frames, {chosen.dtype}, 1 thread, processor "
        f"time.\n\nThe proposer alone {bare_s:.1f} s, `annotate` from video to tables {whole_s:.1f} s "
        f"({counts['regions']} regions): {bare_s / whole_s:.1%} of the bare forward's throughput.\n"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
