"""`python -m benchmarks.tools_quality`: how well a few templates label tool crops and reject unknown ones.

Crops are the boxes of `$LABELMILL_DATA/tools`, embeddings those of MobileNetV2. Half of the 17 classes are
known, the rest must come out NG; k templates of each known class are drawn from the training images, and the
validation crops are matched and routed by labelmill's own code. Every figure is the mean over 20 draws of
classes and templates.

What the variants are chosen by is the first table: the same within the training images (templates from four
fifths of them, crops from the last). The second table, on the validation images, decides nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe
from labelmill.annotators.config import CropConfig, MatchingConfig
from labelmill.annotators.crops import cut
from labelmill.annotators.embedding_space import Kind
from labelmill.annotators.matching import match
from labelmill.annotators.routing import route
from labelmill.annotators.similarity import unit_rows
from labelmill.annotators.templates import (
    BACKGROUND_OWNER,
    TemplateBank,
    evidence,
    make_bank,
    suggest_lambda,
    suggest_review_floor,
)
from labelmill.annotators.types import Image
from labelmill.files import digest_text
from labelmill.images import read_image

ROOT = Path(__file__).parents[1]
CLASSES, KNOWN = 17, 9
DRAWS = 20
FOLDS = 5
SIZES = (1, 5, 20)
PROBE = {"accuracy": 0.80, "auroc": 0.78}
"""A nearest-neighbour probe on MobileNetV2 with all train crops, on a similar split (issue 3)."""


class Crops(NamedTuple):
    """Embedded crops of one split: embeddings by view, class of each, and the image it came from."""

    views: dict[str, npt.NDArray[np.float32]]
    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.str_]


@dataclass(frozen=True)
class Variant:
    """One way to match; `turned` is "templates" (`templates: turned`) or "crops" (`encoder: turned`)."""

    fit: str
    space: Kind
    neighbours: int
    background: bool = False
    turned: str = ""

    @property
    def name(self) -> str:
        """As the tables show it."""
        nearest = "nearest" if self.neighbours == 1 else f"mean of {self.neighbours}"
        return (
            f"{self.fit}, {self.space}, {nearest}"
            + (", background" if self.background else "")
            + (f", turned {self.turned}" if self.turned else "")
        )

    @property
    def view(self) -> str:
        """Which embeddings of a crop are compared."""
        return self.fit + (" turned" if self.turned == "crops" else "")

    @property
    def passes(self) -> int:
        """How often a crop goes through the network."""
        return (2 if self.fit == "both" else 1) * (4 if self.turned == "crops" else 1)


PAPER = Variant("squash", "raw", 1)
DEFAULT = Variant("squash", "whitened", 3)
UPRIGHT = Variant("both", "discriminant", 3, background=True)
CHOSEN = replace(UPRIGHT, turned="crops")
"""The best of the first table at every k: what a line of many unlike classes at any angle should write."""
VARIANTS = (
    PAPER,
    DEFAULT,
    replace(DEFAULT, turned="templates"),
    replace(DEFAULT, turned="crops"),
    replace(UPRIGHT, background=False),
    replace(UPRIGHT, space="whitened"),
    replace(UPRIGHT, fit="pad"),
    replace(UPRIGHT, fit="pad", turned="templates"),
    replace(UPRIGHT, fit="pad", turned="crops"),
    UPRIGHT,
    replace(UPRIGHT, turned="templates"),
    CHOSEN,
)
TURNS = range(4)


PROBES = (PAPER, replace(PAPER, fit="both"), replace(PAPER, fit="both", neighbours=3))


def main() -> None:
    """Print both tables and write them to docs/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS, help="draws of classes and templates")
    arguments = parser.parse_args()
    started = time.perf_counter()
    data = Path(os.environ["LABELMILL_DATA"]) / "tools"
    train, val = (embedded(data, split) for split in ("train", "val"))
    print(f"crops embedded after {time.perf_counter() - started:.0f} s", file=sys.stderr)
    count = arguments.draws
    cells: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for variant in VARIANTS:
        for k in SIZES:
            cells["train"].append(measure(variant, k, folds(train, k, count)))
            cells["val"].append(measure(variant, k, draws(train, val, k, count)))
    cells["probe"] = [
        measure(variant, 0, draws(train, val, 10**6, count), routed=False) for variant in PROBES
    ]
    alone = {one.name: borders(one, folds(train, 1, count)) for one in (DEFAULT, CHOSEN)}
    text = report(cells, alone, count)
    print(text)
    results = ROOT / "docs" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "tools_quality.md").write_text(text)
    (results / "tools_quality.json").write_text(
        json.dumps({"machine": describe(), **cells, "one_template": alone}, indent=1) + "\n"
    )


class Draw(NamedTuple):
    """Rows of templates, which classes are known, and the crops to label."""

    templates: Crops
    rows: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    crops: Crops
    background: npt.NDArray[np.int64]


def draws(source: Crops, target: Crops, k: int, count: int) -> Iterator[Draw]:
    """Draw classes and templates from one split, to label all of another."""
    for number in range(count):
        rng = np.random.default_rng([number, min(k, 1000)])
        yield draw(rng, source, np.arange(len(source.labels)), target, k)


def folds(source: Crops, k: int, count: int) -> Iterator[Draw]:
    """The same within one split: templates from four fifths of the images, crops from the last fifth."""
    names = np.unique(source.images)
    for number in range(count):
        rng = np.random.default_rng([number, k, 1])
        held = rng.permutation(names)[: len(names) // FOLDS]
        out = np.isin(source.images, held)
        views = {name: rows[out] for name, rows in source.views.items()}
        target = Crops(views, source.labels[out], source.images[out])
        yield draw(rng, source, np.flatnonzero(~out), target, k)


def draw(
    rng: np.random.Generator, source: Crops, allowed: npt.NDArray[np.int64], target: Crops, k: int
) -> Draw:
    known = np.sort(rng.permutation(CLASSES)[:KNOWN])
    rows = [rng.permutation(allowed[source.labels[allowed] == number])[:k] for number in known]
    return Draw(source, np.concatenate(rows), known, target, allowed)


def measure(variant: Variant, k: int, drawn: Iterator[Draw], *, routed: bool = True) -> dict[str, Any]:
    """Match and route every draw.

    Returns:
        Means: `accuracy` (nearest class of the crops of known classes) and `macro` (mean over classes),
        `auroc` (known against unknown by similarity), `accepted`, `review`, `ng` (shares of all crops),
        `lost` (share of the crops of known classes that are NG), `accepted_accuracy` (of the accepted crops,
        those of a known class with its label). And `accuracy` and `auroc` of each draw.
    """
    rows = [score(variant, item, routed) for item in drawn]
    names = rows[0].keys()
    means = {name: mean([row[name] for row in rows]) for name in names}
    each = {f"{name}_draws": [round(row[name], 4) for row in rows] for name in ("accuracy", "auroc")}
    print(
        variant.name, k, {name: round(value, 3) for name, value in means.items()}, file=sys.stderr, flush=True
    )
    return {"variant": variant.name, **asdict(variant), "k": k, **means, **each}


def borders(variant: Variant, drawn: Iterator[Draw]) -> dict[str, tuple[float, float]]:
    """One template a class: what goes to people, by how much less than the wrong matches is NG.

    Returns:
        For the least, the median and the greatest wrong match among the templates as the border: the share of
        all crops that is above it, and the share of the crops of known classes that is not.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for item in drawn:
        bank, _ = bank_of(variant, item)
        _, wrong = evidence(bank)
        similarity = match(item.crops.views[variant.view], bank).similarity
        known = np.isin(item.crops.labels, item.known)
        for name, border in (("least", wrong.min()), ("median", np.median(wrong)), ("greatest", wrong.max())):
            above = similarity >= border
            found.setdefault(name, []).append((float(above.mean()), float((~above)[known].mean())))
    return {name: (mean([a for a, _ in rows]), mean([b for _, b in rows])) for name, rows in found.items()}


def mean(values: list[float]) -> float:
    """The mean of what is a number; NaN where nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def bank_of(variant: Variant, item: Draw) -> tuple[TemplateBank, MatchingConfig]:
    """Templates and background of a draw, as labelmill would hold them."""
    embeddings = item.templates.views[variant.view]
    owners = np.searchsorted(item.known, item.templates.labels[item.rows])
    rows = item.rows
    if variant.background:
        rows = np.concatenate([rows, item.background])
        owners = np.concatenate([owners, np.full(len(item.background), BACKGROUND_OWNER)])
    config = MatchingConfig(space=variant.space, neighbours=variant.neighbours)
    names = tuple(str(number) for number in item.known)
    turns = TURNS[1:] if variant.turned == "templates" else ()
    turned = [item.templates.views[f"{variant.fit} {turn}"][item.rows] for turn in turns]
    return make_bank(names, embeddings[rows], owners.astype(np.int64), config, turned), config


def score(variant: Variant, item: Draw, routed: bool) -> dict[str, float]:
    bank, config = bank_of(variant, item)
    matches = match(item.crops.views[variant.view], bank)
    truth = item.crops.labels
    known = np.isin(truth, item.known)
    right = item.known[matches.nearest] == truth
    found = {
        "accuracy": float(right[known].mean()),
        "macro": float(np.mean([right[truth == number].mean() for number in np.unique(truth[known])])),
        "auroc": auroc(matches.similarity, known),
    }
    if routed:
        routes = route(matches, bank.classes, suggest_lambda(bank), config, suggest_review_floor(bank))
        where = np.array(routes.routes)
        accepted = where == "accepted"
        found |= {name: float((where == name).mean()) for name in ("accepted", "review", "ng")}
        found["lost"] = float((where == "ng")[known].mean())
        found["accepted_accuracy"] = float(right[accepted].mean()) if accepted.any() else float("nan")
    return found


def auroc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> float:
    """Chance that a positive scores higher than a negative; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    ranks = (below + (counts - 1) / 2)[inverse]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - positives * (positives - 1) / 2) / (positives * negatives))


def embedded(data: Path, split: str) -> Crops:
    """Cut and embed the boxes of a split; kept in artifacts/ for the next run."""
    crops, labels, images = [], [], []
    for image, number, name in boxes(data, split):
        crops.append(image)
        labels.append(number)
        images.append(name)
    views = {
        f"{fit} {turn}": unit_rows(embeddings(crops, split, fit, turn))
        for fit in ("squash", "pad")
        for turn in TURNS
    }
    views |= {f"both {turn}": average(views[f"squash {turn}"], views[f"pad {turn}"]) for turn in TURNS}
    for fit in ("squash", "pad", "both"):
        views[fit] = views[f"{fit} 0"]
        views[f"{fit} turned"] = average(*(views[f"{fit} {turn}"] for turn in TURNS))
    return Crops(views, np.array(labels), np.array(images))


def average(*views: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean direction of unit rows, as an encoder takes it."""
    rows: npt.NDArray[np.float32] = np.mean(views, axis=0).astype(np.float32)
    return rows


def embeddings(crops: list[Image], split: str, fit: str, turn: int) -> npt.NDArray[np.float32]:
    from labelmill.annotators.encoders.timm import Timm, TimmConfig

    weights = Path(os.environ["LABELMILL_DATA"]).parent / "weights" / "mobilenet_v2_imagenet.safetensors"
    encoder = Timm(
        TimmConfig.model_validate(
            {
                "weights": weights,
                "model_args": {"pad_type": "same", "num_classes": 1001},
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
                "fit": fit,
            }
        )
    )
    settings = json.dumps(encoder.config.key_fields(), sort_keys=True)
    key = digest_text(str(Timm.version), split, settings, str(len(crops)), hex_digits=12)
    kept = ROOT / "artifacts" / "tools_quality" / f"{split}-{fit}-{turn}-{key}.npy"
    if not kept.exists():
        found = encoder.encode([np.rot90(crop, turn) for crop in crops])
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, found)
    rows: npt.NDArray[np.float32] = np.load(kept)
    return rows


def boxes(data: Path, split: str) -> Iterator[tuple[Image, int, str]]:
    """Crops of a YOLO folder, with class and image name."""
    pictures = {path.stem: path for path in sorted((data / "images" / split).iterdir())}
    for path in sorted((data / "labels" / split).glob("*.txt")):
        rows = np.array([line.split() for line in path.read_text().splitlines() if line.strip()], np.float64)
        if not len(rows):
            continue
        image = read_image(pictures[path.stem])
        if isinstance(image, str):
            raise SystemExit(f"{pictures[path.stem]}: {image}")
        height, width = image.shape[:2]
        centre, half = rows[:, 1:3], rows[:, 3:5] / 2
        xyxy = np.hstack([centre - half, centre + half]) * [width, height, width, height]
        for crop, number in zip(cut(image, xyxy.astype(np.float32), CropConfig()), rows[:, 0], strict=True):
            yield crop.copy(), int(number), path.stem


def verdict(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The chosen variant on val beside the probe's figures."""
    lines = [
        f"## Against a probe's {PROBE['accuracy']:.2f} accuracy and {PROBE['auroc']:.2f} AUROC, on val",
        "",
        "| k | accuracy, known crops | of accepted | AUROC, NG | accepted | review | NG | lost | beats it |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in (cell for cell in cells["val"] if cell["variant"] == CHOSEN.name):
        beats = [cell[name] > least for name, least in PROBE.items()]
        word = "in both" if all(beats) else "in neither" if not any(beats) else "in one"
        shares = " | ".join(f"{cell[name]:.2f}" for name in ("accepted", "review", "ng", "lost"))
        found = (
            f"{with_error(cell['accuracy_draws'])} | {cell['accepted_accuracy']:.3f} | "
            f"{with_error(cell['auroc_draws'])}"
        )
        lines.append(f"| {cell['k']} | {found} | {shares} | {word} |")
    return [*lines, "", *EXPLANATION, ""]


def with_error(values: list[float] | npt.NDArray[np.float64], sign: str = "") -> str:
    """A mean over draws and its standard error."""
    return f"{np.mean(values):{sign}.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def gains(cells: list[dict[str, Any]]) -> list[str]:
    """What turning gives, paired draw by draw."""
    lines = [
        *GAINS,
        "",
        "| variant | passes | " + " | ".join(f"k = {k}" for k in SIZES) + " |",
        "|---|---|" + "---|" * len(SIZES),
    ]
    by_name = {(cell["variant"], cell["k"]): cell for cell in cells}
    for variant in (variant for variant in VARIANTS if variant.turned):
        shown = []
        for k in SIZES:
            pair = [by_name[one.name, k] for one in (variant, replace(variant, turned=""))]
            shown.append(
                " / ".join(
                    with_error(np.subtract(*(cell[name] for cell in pair)), "+")
                    for name in ("accuracy_draws", "auroc_draws")
                )
            )
        lines.append(f"| {variant.name} | {variant.passes} | " + " | ".join(shown) + " |")
    return [*lines, ""]


def doubt(found: dict[str, dict[str, tuple[float, float]]]) -> list[str]:
    """The table of `borders`."""
    lines = [
        *DOUBT,
        "",
        "| variant | least | median | greatest |",
        "|---|---|---|---|",
    ]
    for name, shares in found.items():
        lines.append(f"| {name} | " + " | ".join(f"{a:.2f}, {b:.2f}" for a, b in shares.values()) + " |")
    return [*lines, ""]


EXPLANATION = """\
± is the standard error over the draws, which share images. Lost: crops of known classes that are NG, so that
nobody sees them. The probe had every training crop of a class as a template, from 4 to 873; the last table
says what that gives here. What limits 1 and 5 is the number of templates: accuracy rises with it in every
variant. With one template a class nothing says where right matches lie, so that next to nothing is accepted;
what is as similar to a class as the least of the templates is to its nearest other class goes to people.
`labelmill check` says so.""".splitlines()


GAINS = """\
What turning gives: the difference to the same variant upright, draw by draw, in accuracy / AUROC. `templates:
turned` compares a crop with each template at four quarter turns; `encoder: turned` (turned crops) embeds
crops, templates and background at all four. Passes: how often a crop goes through the network.\
""".splitlines()

DOUBT = """\
One template a class, and what goes to people: the share of all crops that does, and the share of the crops of
known classes that does not and so is NG, where the border is the least, the median or the greatest similarity
of a template to the nearest other class. labelmill takes the least.""".splitlines()


def report(
    cells: dict[str, list[dict[str, Any]]], alone: dict[str, dict[str, tuple[float, float]]], count: int
) -> str:
    """Both tables as Markdown."""
    lines = ["# Matching tool crops", "", describe(), "", (__doc__ or "").partition("\n\n")[2].strip(), ""]
    lines += [
        f"Draws: {count}. Paper: `{PAPER.name}`; default: `{DEFAULT.name}`; best within train, and so",
        f"chosen: `{CHOSEN.name}`.",
        "",
    ]
    lines += verdict(cells)
    for title, name in (("Within train (decides)", "train"), ("On val (decides nothing)", "val")):
        lines += [
            f"## {title}",
            "",
            "Accuracy over crops of known classes / its mean over classes / AUROC of known against NG.",
            "",
            "| variant | " + " | ".join(f"k = {k}" for k in SIZES) + " |",
            "|---|" + "---|" * len(SIZES),
        ]
        for variant in VARIANTS:
            row = [cell for cell in cells[name] if cell["variant"] == variant.name]
            shown = [f"{c['accuracy']:.3f} / {c['macro']:.3f} / {c['auroc']:.3f}" for c in row]
            lines.append(f"| {variant.name} | " + " | ".join(shown) + " |")
        lines += [
            "",
            "As routed, with λ from the templates: right of accepted (share accepted / review / NG; lost).",
            "",
            "| variant | " + " | ".join(f"k = {k}" for k in SIZES) + " |",
            "|---|" + "---|" * len(SIZES),
        ]
        for variant in VARIANTS:
            row = [cell for cell in cells[name] if cell["variant"] == variant.name]
            shown = [
                f"{c['accepted_accuracy']:.3f} ({c['accepted']:.2f} / {c['review']:.2f} / {c['ng']:.2f}; "
                f"{c['lost']:.2f})"
                for c in row
            ]
            lines.append(f"| {variant.name} | " + " | ".join(shown) + " |")
        lines.append("")
        if name == "train":
            lines += gains(cells["train"]) + doubt(alone)
    lines += [
        "## Every train crop of a known class as a template (a nearest-neighbour probe), on val",
        "",
        "| variant | accuracy | mean over classes | AUROC |",
        "|---|---|---|---|",
    ]
    for cell in cells["probe"]:
        lines.append(
            f"| {cell['variant']} | {cell['accuracy']:.3f} | {cell['macro']:.3f} | {cell['auroc']:.3f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
