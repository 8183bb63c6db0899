"""How many decisions each order of the queue needs: `python -m benchmarks.review_order`.

Real crops of hand tools ($LABELMILL_DATA/tools), embedded by the `timm` encoder with MobileNetV2 weights. Ten
templates of each class are drawn from the training images; classes with fewer than 40 crops there have none,
but for ten NG templates, so that their crops are NG in truth. The queue is every crop of the validation
images, matched as a line does it by default. A simulated annotator knows the truth and confirms a group only
when it holds for every crop of it. A crop has its decided label, or the machine's: nothing else is changed by
a decision. The queue is ordered anew after every 25 decisions, as by a push.

The constants of the order were chosen with `--queue train` (templates and queue from the training images).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe
from labelmill.annotators.config import MatchingConfig
from labelmill.annotators.matching import match
from labelmill.annotators.review.grouping import group
from labelmill.annotators.review.priority import Evidence, values
from labelmill.annotators.routing import route
from labelmill.annotators.templates import TemplateBank, make_bank, suggest_lambda
from labelmill.images import Image, read_image

DOCS = Path(__file__).parents[1] / "docs"
TEMPLATES, FEWEST, PUSH = 10, 40, 25
SIMILARITY = 0.95
DRAWS = 5
AIMS = (0.9, 0.95, 0.99)
ORDERS = ("random", "uncertainty", "ours, single crops", "random, grouped", "uncertainty, grouped", "ours")

Rows = npt.NDArray[np.float32]
Strings = npt.NDArray[np.str_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bench:
    """Crops to be labelled.

    Attributes:
        rows: Embeddings in the bank's space.
        truth: Class or NG of each.
        machine: The machine's label of each.
        bank: Templates.
        names: Class or NG of each template.
        threshold: λ.
        uncertainty: The smallest of the distances to the runner-up and to λ, negated.
    """

    rows: Rows
    truth: Strings
    machine: Strings
    bank: TemplateBank
    names: tuple[str, ...]
    threshold: float
    uncertainty: Floats


def load_crops(data: Path, split: str) -> tuple[list[Image], Strings]:
    """Every labelled box of a split of the tools set, cut out, and its class."""
    import yaml

    names = yaml.safe_load((data / "tools" / "data.yaml").read_text())["names"]
    crops: list[Image] = []
    classes: list[str] = []
    for path in sorted((data / "tools" / "images" / split).iterdir()):
        labels = data / "tools" / "labels" / split / f"{path.stem}.txt"
        image = read_image(path)
        if isinstance(image, str) or not labels.exists():
            continue
        height, width = image.shape[:2]
        for line in labels.read_text().splitlines():
            kind, x, y, w, h = (float(word) for word in line.split())
            x1, x2 = max(0, round((x - w / 2) * width)), min(width, round((x + w / 2) * width))
            y1, y2 = max(0, round((y - h / 2) * height)), min(height, round((y + h / 2) * height))
            if x2 - x1 >= 4 and y2 - y1 >= 4:
                crops.append(image[y1:y2, x1:x2])
                classes.append(str(names[int(kind)]))
    return crops, np.array(classes)


def embed(crops: list[Image], weights: Path) -> Rows:
    from labelmill.annotators.encoders.timm import Timm, TimmConfig

    encoder = Timm(
        TimmConfig(
            weights=weights,
            model_args={"num_classes": 1001, "pad_type": "same"},
            size_px=224,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )
    )
    parts = []
    for start in range(0, len(crops), 256):
        parts.append(encoder.encode(crops[start : start + 256]))
        print(f"embedded {min(start + 256, len(crops))} of {len(crops)}", flush=True)
    return np.concatenate(parts).astype(np.float16).astype(np.float32)  # as the shard store keeps them


def draw_templates(classes: Strings, seed: int) -> tuple[tuple[str, ...], list[int], list[int]]:
    """Names of the classes, and crop and class number of each template; -1 for NG."""
    rng = np.random.default_rng(seed)
    known = tuple(name for name in sorted(set(classes.tolist())) if (classes == name).sum() >= FEWEST)
    rows: list[int] = []
    owners: list[int] = []
    for number, name in enumerate(known):
        rows += rng.permutation(np.flatnonzero(classes == name))[:TEMPLATES].tolist()
        owners += [number] * TEMPLATES
    rows += rng.permutation(np.flatnonzero(~np.isin(classes, known)))[:TEMPLATES].tolist()
    return known, rows, owners + [-1] * TEMPLATES


def make_bench(templates: tuple[Rows, Strings], queue: tuple[Rows, Strings] | None, seed: int) -> Bench:
    """Draw templates, and match the queue; the rest of the templates' crops where there is none."""
    known, chosen, owners = draw_templates(templates[1], seed)
    config = MatchingConfig()
    bank = make_bank(known, templates[0][chosen], np.array(owners), config)
    if queue is None:
        rest = np.setdiff1d(np.arange(len(templates[0])), chosen)
        queue = templates[0][rest], templates[1][rest]
    threshold = suggest_lambda(bank)
    matches = match(queue[0], bank)
    routed = route(matches, bank.classes, threshold, config)
    uncertainty = -np.minimum(np.abs(matches.margin), np.abs(matches.similarity - threshold)).astype(
        np.float64
    )
    truth = np.where(np.isin(queue[1], known), queue[1], "NG")
    names = tuple(known[owner] if owner >= 0 else "NG" for owner in owners)
    rows = bank.space.transform(queue[0])
    return Bench(rows, truth, np.array(routed.labels), bank, names, threshold, uncertainty)


def orders(bench: Bench, seed: int) -> dict[str, Callable[[npt.NDArray[np.bool_]], Floats]]:
    """How each order values the crops, given which are decided."""
    drawn = np.random.default_rng(seed).random(len(bench.rows))

    def ours(decided: npt.NDArray[np.bool_]) -> Floats:
        rows = np.concatenate([bench.bank.embeddings, bench.rows[decided]])
        evidence = Evidence(rows, (*bench.names, *bench.truth[decided].tolist()))
        value = np.full(len(bench.rows), -1.0)
        open_ = ~decided
        value[open_] = values(bench.rows[open_], bench.machine[open_].tolist(), evidence, bench.threshold)
        return value

    return {"random": lambda decided: drawn, "uncertainty": lambda decided: bench.uncertainty, "ours": ours}


def simulate(bench: Bench, order: str, seed: int) -> list[tuple[int, float]]:
    """Accuracy of the whole set after so many decisions."""
    kind = order.split(",")[0]
    value_of = orders(bench, seed)[kind]
    grouped = order.endswith("grouped") or order == "ours"
    labels = bench.machine.copy()
    decided = np.zeros(len(labels), dtype=bool)
    value = value_of(decided)
    first = np.argsort(-value, kind="stable").tolist()
    if grouped:
        groups = group(bench.rows, bench.machine.tolist(), first, similarity=SIMILARITY)
    else:
        groups = {row: [] for row in first}
    spent = 0
    curve = [(0, float((labels == bench.truth).mean()))]
    while groups:
        value = value_of(decided)
        queue = sorted(groups, key=lambda row: -value[row])[:PUSH]
        for head in queue:
            members = groups.pop(head)
            spent += 1
            same = [head, *members] if (bench.truth[members] == bench.truth[head]).all() else [head]
            labels[same] = bench.truth[head]
            decided[same] = True
            if len(same) == 1:
                groups.update({member: [] for member in members})
            curve.append((spent, float((labels == bench.truth).mean())))
        if curve[-1][1] >= AIMS[-1]:
            break
    return curve


def needed(curve: list[tuple[int, float]], aim: float) -> int:
    return next((spent for spent, accuracy in curve if accuracy >= aim), curve[-1][0])


def measure(data: Path, weights: Path, split: str) -> dict[str, Any]:
    templates, names = load_crops(data, "train")
    queue = None
    used = np.arange(len(templates))
    if split == "val":
        crops, classes = load_crops(data, "val")
        queue = embed(crops, weights), classes
        used = np.unique([row for seed in range(DRAWS) for row in draw_templates(names, seed)[1]])
    found_rows = embed([templates[row] for row in used], weights)
    rows = np.zeros((len(templates), found_rows.shape[1]), np.float32)
    rows[used] = found_rows
    pool = rows, names
    found: dict[str, Any] = {"machine": describe(), "draws": DRAWS, "orders": {}}
    curves: dict[str, list[list[tuple[int, float]]]] = {order: [] for order in ORDERS}
    starts, thresholds, counts, wrong = [], [], [], []
    for seed in range(DRAWS):
        bench = make_bench(pool, queue, seed)
        starts.append(float((bench.machine == bench.truth).mean()))
        thresholds.append(bench.threshold)
        counts.append(len(bench.rows))
        wrong.append(int((bench.machine != bench.truth).sum()))
        for order in ORDERS:
            curves[order].append(simulate(bench, order, seed))
            print(f"templates {seed}, {order}: {needed(curves[order][-1], 0.99)} decisions", flush=True)
    found |= {"queue": counts, "start_accuracy": starts, "lambda": thresholds, "wrong": wrong}
    for order, runs in curves.items():
        found["orders"][order] = {str(aim): [needed(run, aim) for run in runs] for aim in AIMS}
    if split == "val":
        draw_curves(curves, DOCS / "images" / "review_order.png")
    return found


def draw_curves(curves: dict[str, list[list[tuple[int, float]]]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for order, colour in (("ours", "#e4572e"), ("uncertainty", "#4c6fb1"), ("random", "#8a8a8a")):
        for number, run in enumerate(curves[order]):
            spent, accuracy = zip(*run, strict=True)
            label = order if number == 0 else None
            axes.plot(spent, accuracy, color=colour, linewidth=1.3, alpha=0.8, label=label)
    axes.axhline(0.99, color="#333333", linewidth=0.7, linestyle=":")
    axes.set(xlabel="decisions", ylabel="share of crops with the right label", ylim=(None, 1.005))
    axes.set_title(f"Tool crops, MobileNetV2, {len(curves['ours'])} draws of templates")
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def report(found: dict[str, Any]) -> str:
    def median(numbers: list[float]) -> float:
        return float(np.median(numbers))

    random_needs = median(found["orders"]["random"]["0.99"])
    rows = []
    for order, needs in found["orders"].items():
        at = [median(needs[str(aim)]) for aim in AIMS]
        low, high = min(needs["0.99"]), max(needs["0.99"])
        cells = " | ".join(f"{number:,.0f}" for number in at)
        rows.append(f"| {order} | {cells} | {low:,} to {high:,} | {at[-1] / random_needs:.0%} |\n")
    least = [
        max(0, wrong - count // 100) for wrong, count in zip(found["wrong"], found["queue"], strict=True)
    ]
    return f"""# Decisions that each order of the queue needs

`python -m benchmarks.review_order` on {found["machine"]}.

Real tool crops, MobileNetV2 embeddings, default matching, {TEMPLATES} templates a class and {TEMPLATES} of NG
from the training images, λ chosen by the templates ({median(found["lambda"]):.3f}). All
{found["queue"][0]:,} crops of the validation images are in the queue; the machine labels
{median(found["start_accuracy"]):.1%} of them right. Medians of {found["draws"]} draws of templates; the
constants of the order were chosen on training images.

A decision changes the label of its crop, or of its group when it holds for all of it, and of nothing else:
every wrong label has to be found. With single crops no order can need fewer than {median(least):,.0f}
decisions for 99 % (the wrong labels beyond the 1 %).

| order | for 90 % | for 95 % | for 99 % | range at 99 % | of random |
|---|---|---|---|---|---|
{"".join(rows)}
![Accuracy against decisions](../images/review_order.png)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queue", choices=("val", "train"), default="val")
    parser.add_argument("--data", type=Path, default=os.environ.get("LABELMILL_DATA"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("LABELMILL_DATA is not set, and there is no --data")
    weights = arguments.data.parent / "weights" / "mobilenet_v2_imagenet.safetensors"
    found = measure(arguments.data, weights, arguments.queue)
    if arguments.queue != "val":
        print(report(found))
        return
    (DOCS / "results").mkdir(parents=True, exist_ok=True)
    (DOCS / "results" / "review_order.md").write_text(report(found))
    (DOCS / "results" / "review_order.json").write_text(json.dumps(found, indent=1) + "\n")
    print(report(found))


if __name__ == "__main__":
    main()
