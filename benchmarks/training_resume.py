"""Killed ten times in mid-training, against undisturbed, and the seed's noise.

    python -m benchmarks.training_resume

Each training is a process of its own, forked from one that has only imported the libraries. Each kill is
SIGKILL, sent by the training process to itself after a step of its choice; the next process trains the same
into the same folder. Tiny drawn data, so that ten kills take minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 - so are peft and timm: what is forked finds them
import peft  # noqa: F401
import timm  # noqa: F401
from tests.training.data import write_boxes, write_crops

from benchmarks.reports import table, write
from labelmill.annotators.yolo.network import quiet
from labelmill.training.classifiers.train import train_classifier
from labelmill.training.config import ClassifierConfig, DetectorConfig
from labelmill.training.detectors.train import train_detector
from labelmill.training.inputs import read_crops, read_detection
from labelmill.training.progress import Progress

KILLS = 10
SEEDS = (1, 2, 3)


def train(kind: str, data: Path, out: Path, seed: int, kill_after: int | None) -> None:
    """Train; die in the step after `kill_after` more steps, if it is given."""
    left = kill_after

    def report(_: Progress) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left = None if left is None else left - 1

    if kind == "classifier":
        config = ClassifierConfig(
            backbone="test_vit", pretrained=False, image_px=32, batch=8, epochs=14, method="lora",
            patience=20, adapter_dropout=0.1, device="cpu", seed=seed,
        )  # fmt: skip
        train_classifier(read_crops(data), config, out, report=report)
        return
    detector = DetectorConfig(
        image_px=64, epochs=14, batch=8, optimizer="AdamW", learning_rate=2e-3, device="cpu", seed=seed
    )
    train_detector(read_detection(data), detector, out, report=report)


def run(kind: str, data: Path, out: Path, seed: int, kill_after: int | None = None) -> int:
    """Train in a process of its own; its exit code, negative for a signal."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            train(kind, data, out, seed, kill_after)
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(kind, "seed", seed, "killed" if code == -signal.SIGKILL else f"exit {code}", flush=True)
    return code


def outcome(out: Path) -> tuple[str, dict[str, float]]:
    """Digest of the weights, the validation figures, and the last epoch's training loss."""
    digest = json.loads((out / "model.json").read_text())["files"]["model.safetensors"]
    metrics = json.loads((out / "metrics.json").read_text())
    figures = metrics["splits"]["val"] | {"train_loss": metrics["history"]["train_loss"][-1]}
    return digest, {name: value for name, value in figures.items() if isinstance(value, float)}


def main() -> None:
    quiet()
    import ultralytics.models.yolo.detect  # noqa: F401

    rows, document = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        shapes = {"disc": 24, "stripe": 24, "NG": 24}
        crops = write_crops(root / "crops", {"train": shapes, "val": dict.fromkeys(shapes, 16)})
        boxes = write_boxes(root / "boxes", {"train": 16, "val": 8})
        for kind, data, steps in (("classifier", crops, 9), ("detector", boxes, 2)):
            started = time.perf_counter()
            for seed in SEEDS:
                if run(kind, data, root / f"{kind}-{seed}", seed):
                    raise SystemExit(f"the undisturbed {kind} of seed {seed} failed")
            undisturbed = [outcome(root / f"{kind}-{seed}") for seed in SEEDS]
            out = root / f"{kind}-killed"
            codes = [run(kind, data, out, SEEDS[0], kill_after=steps + kill % steps) for kill in range(KILLS)]
            killed = sum(code == -signal.SIGKILL for code in codes)
            last = run(kind, data, out, SEEDS[0])
            if last or killed != KILLS:
                raise SystemExit(f"{kind}: {killed} of {KILLS} killed, last exit {last}")
            resumed = outcome(out)
            noise = {
                name: max(figures[name] for _, figures in undisturbed)
                - min(figures[name] for _, figures in undisturbed)
                for name in resumed[1]
                if all(name in figures for _, figures in undisturbed)
            }
            difference = {name: abs(resumed[1][name] - undisturbed[0][1][name]) for name in noise}
            same = resumed[0] == undisturbed[0][0]
            document[kind] = {
                "kills": killed,
                "weights_equal_to_the_byte": same,
                "differences": difference,
                "seed_noise": noise,
                "seconds": time.perf_counter() - started,
            }
            rows += [
                [kind, killed, "yes" if same else "NO", name]
                + [f"{value:.6f}" for value in (undisturbed[0][1][name], difference[name], noise[name])]
                for name in noise
                if name in ("accuracy", "log_loss", "mAP50", "mAP50-95", "train_loss")
            ]
    head = [
        "training",
        "kills",
        "weights equal to the byte",
        "figure",
        "undisturbed",
        "difference",
        f"range of {len(SEEDS)} seeds",
    ]
    text = (
        f"Each training was killed {KILLS} times with SIGKILL, after some step of an epoch, and run "
        "again; compared with one of the same seed that nothing disturbed.\n\n" + table(head, rows)
    )
    write("training_resume", "Killed in mid-training, and resumed", text, document)


if __name__ == "__main__":
    main()
