"""Template crops: the same bench and workers at another time than the sample video's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labelmill.annotators.config import CropConfig
from labelmill.annotators.crops import cut
from labelmill.datasets.sample.bench import BINS, LAMP_XY_PX, MAT_HALF_WH, MAT_XY, PX_PER_CM, RAIL_Y_PX, WH_PX
from labelmill.datasets.sample.generate import CROP_MARGIN, FPS
from labelmill.datasets.sample.scene import HAND_WITH_PART, LABELS, Scene, Truth
from labelmill.datasets.sample.script import Visit, direction, hand_at, write_script
from labelmill.images import Image

TEMPLATES_PER_CLASS = 8
_SPAN_S = 180.0
_CLEAR_OF_CHANGE_S = 0.35  # before or after gripping and releasing: nobody takes those for templates


def _cut(image: Image, xyxy: tuple[float, float, float, float], margin: float = 0.0) -> Image:
    return cut(image, np.array([xyxy], np.float32), CropConfig(margin=margin))[0]


def draw_crops(seed: int) -> Iterator[tuple[str, Image]]:
    """Templates of each class, as varied as the footage is (directions, parts, workers), and NG examples.

    Yields:
        Path below the sample's folder, without a suffix, and the crop.
    """
    scene = Scene(write_script((seed, 2), _SPAN_S), seed=seed, fps=FPS)
    for label in LABELS:
        for number, (image, truth) in enumerate(_spread(scene, label)):
            yield f"templates/{label}/{number + 1}", _cut(image, truth.xyxy, CROP_MARGIN)
    for name, crop in _ng_crops(scene):
        yield f"templates_ng/{name}", crop


@dataclass(frozen=True)
class _Moment:
    """A frame of a visit that would make a template.

    Attributes:
        visit: Index of the visit.
        frame: Index of the frame.
        over_bins: Whether the hand is there.
        part: What the visit handles.
        angle_rad: Direction of the hand.
    """

    visit: int
    frame: int
    over_bins: bool
    part: str
    angle_rad: float


def _spread(scene: Scene, label: str) -> list[tuple[Image, Truth]]:
    """Frames of one label as a careful person would pick them: places, parts and directions in turn."""
    waiting = [
        moment
        for number, visit in enumerate(scene.script.visits)
        for moment in _best_moments(number, visit, holds=label == HAND_WITH_PART)
    ]
    found: list[tuple[Image, Truth]] = []
    taken: list[_Moment] = []
    while waiting and len(found) < TEMPLATES_PER_CLASS:
        chosen = max(waiting, key=lambda moment: _worth(moment, taken))
        waiting.remove(chosen)
        image, truths = scene.frame(chosen.frame)
        truth = next((t for t in truths if t.visit == chosen.visit and t.clear and t.label == label), None)
        if truth is not None:
            found.append((image, truth))
            taken.append(chosen)
    return found


def _worth(moment: _Moment, taken: list[_Moment]) -> tuple[int, int, float]:
    """How much a template adds to those that are taken, for comparing."""
    beside = [other for other in taken if other.over_bins == moment.over_bins]
    same = sum(other.part == moment.part for other in beside)
    turned = min(
        (abs(moment.angle_rad - other.angle_rad) for other in beside),
        default=-abs(moment.angle_rad),  # the most upright one first
    )
    crowd = len(beside) * (2 if moment.over_bins else 1)  # hands are there half as often as elsewhere
    return -crowd, -same, turned


def _best_moments(number: int, visit: Visit, *, holds: bool) -> list[_Moment]:
    """At the bins and elsewhere: the frame with the whole hand in the picture in which it moves least."""
    best: dict[bool, tuple[float, _Moment]] = {}
    for index in range(round(visit.start_s * FPS), round(min(visit.end_s, _SPAN_S) * FPS)):
        state, later = hand_at(visit, index / FPS), hand_at(visit, (index + 1) / FPS)
        if state is None or later is None or state.holds != holds:
            continue
        if any(abs(index / FPS - change) < _CLEAR_OF_CHANGE_S for change in visit.changes_s):
            continue
        ahead = np.array(direction(state.angle_rad)) * PX_PER_CM
        ends = [np.array(state.xy) + ahead * reach_cm for reach_cm in (5.0, -13.0)]
        inside = min(min(x, y, WH_PX[0] - x, WH_PX[1] - y) for x, y in ends)
        speed = float(np.hypot(later.xy[0] - state.xy[0], later.xy[1] - state.xy[1]))
        score = min(float(inside), 20.0) - speed
        over_bins = state.xy[0] < MAT_XY[0] - MAT_HALF_WH[0]
        if inside > 2 and (over_bins not in best or score > best[over_bins][0]):
            best[over_bins] = (score, _Moment(number, index, over_bins, visit.part, state.angle_rad))
    return [moment for _, moment in best.values()]


def _ng_crops(scene: Scene) -> Iterator[tuple[str, Image]]:
    """What moves or changes on the bench and is no hand, and the bench itself."""
    for name in ("cart", "ball", "shadow", "blink"):
        things = [thing for thing in scene.script.distractions if thing.name == name][:2]
        for number, thing in enumerate(things):
            t = 0.35 + 0.3 * number
            index = round((thing.start_s + t * (thing.end_s - thing.start_s)) * FPS)
            image, hands = scene.frame(index)
            across = (t if thing.forward else 1 - t) * (WH_PX[0] + 120) - 60
            if name == "cart":
                box = (across - 56, RAIL_Y_PX - 34, across + 60, RAIL_Y_PX + 36)
            elif name == "ball":
                x = -40 + (t if thing.forward else 1 - t) * (WH_PX[0] + 80)
                box = (x - 26, 222, x + 32, 302)
            elif name == "shadow":
                box = (across - 90, 60, across + 90, 340)
            else:
                box = (LAMP_XY_PX[0] - 34, LAMP_XY_PX[1] - 42, LAMP_XY_PX[0] + 36, LAMP_XY_PX[1] + 44)
            if not any(_meet(box, truth.xyxy) for truth in hands):
                yield f"{name}/{number + 1}", _cut(image, box)
    visits = scene.script.visits
    quiet = next(
        index
        for index in range(4 * FPS, round(_SPAN_S * FPS))
        if not any(visit.start_s <= index / FPS <= visit.end_s for visit in visits)
    )
    image, _ = scene.frame(quiet)
    left, top = MAT_XY[0] - MAT_HALF_WH[0], MAT_XY[1] - MAT_HALF_WH[1]
    empty = [
        *((x - 50, y - 45, x + 50, y + 45) for x, y in (BINS[0].xy, BINS[2].xy, MAT_XY)),
        (MAT_XY[0] - 30, top + 86, MAT_XY[0] + 30, top + 98),  # the mat between two rows
        (left - 60, top + 110, left - 10, top + 160),  # bare laminate
    ]
    for number, box in enumerate(empty):
        yield f"bench/{number + 1}", _cut(image, box)


def _meet(a: tuple[float, float, float, float], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
