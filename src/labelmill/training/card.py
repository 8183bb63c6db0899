"""The README of a model folder: where the model comes from, what it reaches, and where to doubt it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from labelmill.annotators.model_folder import ModelInfo


def render(
    info: ModelInfo,
    *,
    origin: str,
    summary: Mapping[str, Any],
    limits: Sequence[str],
    plots: Sequence[str],
    seconds: float,
) -> str:
    """Write a model card in Markdown.

    Args:
        info: What the model is; its `files` carry the digests.
        origin: Where the initial weights came from.
        summary: Figures by name, in the order of the table.
        limits: What a user must know, one sentence each.
        plots: Pictures, relative to the folder.
        seconds: The training took.
    """
    lines = [
        f"# {info.kind.capitalize()} {info.architecture} on {info.dataset}",
        "",
        f"Made by labelmill {info.made_by}, in {seconds:.0f} s of training.",
        "",
        "| | |",
        "|---|---|",
        f"| trained on | `{info.dataset}` |",
        f"| digest of its files | `{info.dataset_digest}` |",
        f"| initial weights | {origin} |",
        f"| classes | {', '.join(info.classes)} |",
        f"| input | {info.image_px} px, RGB 0 to 1 |",
    ]
    if info.kind == "classifier":
        rejects = (
            "trained as a class, or absent"
            if info.reject_below is None
            else f"score below {info.reject_below:.4f}"
        )
        lines += [f"| temperature | {info.temperature:.4f} |", f"| NG | {rejects} |"]
    lines += ["", "## Measured", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {_value(value)} |" for name, value in summary.items()]
    lines += ["", "All figures: `metrics.json`.", ""]
    lines += [f"![{name}]({name})" for name in plots]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in limits)]
    lines += ["", "## Settings", "", "```json", json.dumps(info.settings, indent=2), "```"]
    lines += ["", "## Files", "", "| file | SHA-256 |", "|---|---|"]
    lines += [f"| {name} | `{digest}` |" for name, digest in info.files.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
