"""A region as a task of the labelling page, and an annotation of that page as an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labelmill.annotators.review.label_config import (
    BOX,
    BOX_LABEL,
    GROUP,
    GROUP_YES,
    LABEL,
    check_prediction,
)
from labelmill.files import digest_text

MODEL_VERSION = "labelmill"
"""Name of our predictions; the project shows and orders by this version only."""

_MOVED_PX = 1.0
"""A box counts as corrected when a side moved by more: the page's own rounding stays below it."""

Box = tuple[float, float, float, float]
"""Corners x1, y1, x2, y2 in pixels of the frame."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked about one region.

    Attributes:
        region_id: The region, or the first of its group.
        crop: Address of the crop.
        frame: Address of the whole frame.
        frame_wh: Width and height of the frame, pixels.
        xyxy: The box, pixels of the frame.
        templates: Addresses of the best template of the nearest class and of the runner-up.
        group_sheet: Address of the picture of the group.
        nearest: The class of the highest similarity.
        runner_up: The second class, or "".
        label: The machine's label: a class or NG.
        similarity: To the nearest class, -1 to 1.
        margin: Similarity less that of the runner-up; NaN without one.
        threshold: λ.
        reason: Why it is asked, for people.
        members: The other regions of the group.
        value: How much the answer is worth, 0 to 1; the queue shows the highest first.
        note: Something to know beforehand, such as that annotators disagreed.
    """

    region_id: str
    crop: str
    frame: str
    frame_wh: tuple[int, int]
    xyxy: Box
    templates: tuple[str, str]
    group_sheet: str
    nearest: str
    runner_up: str
    label: str
    similarity: float
    margin: float
    threshold: float
    reason: str
    members: tuple[str, ...]
    value: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one annotation says.

    Attributes:
        label: A choice of the page; None when nothing was chosen.
        xyxy: The box as drawn, pixels; None without one, or where it is the proposed box.
        group: Whether it holds for every crop of the group.
    """

    label: str | None
    xyxy: Box | None
    group: bool


def task_data(question: Question) -> dict[str, Any]:
    """The fields of a task. `fingerprint` is a digest of all others, so that changes are seen."""
    margin = "" if math.isnan(question.margin) else f" · margin {question.margin:.3f}"
    data = {
        "region_id": question.region_id,
        "members": list(question.members),
        "crop": question.crop,
        "frame": question.frame,
        "frame_wh": list(question.frame_wh),
        "xyxy": [round(side, 3) for side in question.xyxy],
        "template_1": question.templates[0],
        "template_2": question.templates[1],
        "group_sheet": question.group_sheet,
        "caption_1": f"Nearest: {question.nearest}",
        "caption_2": f"Second: {question.runner_up}" if question.runner_up else "No second class",
        "facts": f"similarity {question.similarity:.3f}{margin} · λ {question.threshold:.3f}"
        + (f" · {len(question.members) + 1} near-identical crops" if question.members else ""),
        "note": " — ".join(part for part in (question.reason, question.note) if part) or " ",
    }
    data["fingerprint"] = digest_text(json.dumps(data, sort_keys=True), hex_digits=16)
    return data


def prediction(question: Question, answers: Sequence[str]) -> dict[str, Any]:
    """The machine's suggestion, with the order of the queue as its score.

    The queue shows the lowest score first, so the score is 1 - value, rounded so that a small change of
    the value changes nothing on the server.

    Raises:
        ReviewError: It does not fit the page.
    """
    width, height = question.frame_wh
    x1, y1 = _clip(question.xyxy[0], width), _clip(question.xyxy[1], height)
    x2, y2 = _clip(question.xyxy[2], width), _clip(question.xyxy[3], height)
    suggestion = {
        "model_version": MODEL_VERSION,
        "score": score(question.value),
        "result": [
            {
                "id": "label",
                "from_name": LABEL,
                "to_name": "crop",
                "type": "choices",
                "value": {"choices": [question.label]},
            },
            {
                "id": "box",
                "from_name": BOX,
                "to_name": "frame",
                "type": "rectanglelabels",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "x": 100 * x1 / width,
                    "y": 100 * y1 / height,
                    "width": 100 * (x2 - x1) / width,
                    "height": 100 * (y2 - y1) / height,
                    "rotation": 0,
                    "rectanglelabels": [BOX_LABEL],
                },
            },
        ],
    }
    check_prediction(suggestion, answers)
    return suggestion


def _clip(position: float, size: int) -> float:
    return min(max(float(position), 0.0), float(size))


def score(value: float) -> float:
    """The prediction score that puts a value at its place in the queue: the lowest is shown first."""
    return round(1.0 - min(max(value, 0.0), 1.0), 3)


def read_answer(result: Sequence[Mapping[str, Any]], proposed: Sequence[float]) -> Answer:
    """What an annotation says, whatever order its parts come in.

    Args:
        result: The annotation's result, as Label Studio gives it.
        proposed: The region's box, to tell a correction from a box left as it was.
    """
    label: str | None = None
    box: Box | None = None
    group = False
    for part in result:
        value = part.get("value") or {}
        if part.get("from_name") == LABEL and len(value.get("choices") or []) == 1:
            label = str(value["choices"][0])
        elif part.get("from_name") == GROUP:
            group = GROUP_YES in (value.get("choices") or [])
        elif part.get("from_name") == BOX:
            box = _read_box(part, value)
    if box and all(abs(new - old) <= _MOVED_PX for new, old in zip(box, proposed, strict=True)):
        box = None
    return Answer(label, box, group)


def _read_box(part: Mapping[str, Any], value: Mapping[str, Any]) -> Box | None:
    try:
        width, height = float(part["original_width"]), float(part["original_height"])
        x1, y1 = float(value["x"]) * width / 100, float(value["y"]) * height / 100
        x2, y2 = x1 + float(value["width"]) * width / 100, y1 + float(value["height"]) * height / 100
    except (KeyError, TypeError, ValueError):
        return None
    x1, x2 = max(x1, 0.0), min(x2, width)
    y1, y2 = max(y1, 0.0), min(y2, height)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def read_time(text: str | datetime) -> datetime:
    """A server's time, with its zone."""
    return text if isinstance(text, datetime) else datetime.fromisoformat(text)
