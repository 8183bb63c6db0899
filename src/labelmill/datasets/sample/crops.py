"""Template crops: the same bench and workers at another time than the sample video's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from labelmill.annotators.config import CropConfig
from labelmill.annotators.crops import cut
from labelmill.datasets.sample.bench import BINS, LAMP_XY_PX, MAT_HALF_WH, MAT_XY, PX_PER_CM, RAIL_Y_PX, WH_PX
from labelmill.datasets.sample.generate import CROP_MARGIN, FPS
from labelmill.datasets.sample.scene import HAND_WITH_PART, LABELS, Scene, Truth
from labelmill.datasets.sample.script import Visit, direction, hand_at, write_script
from labelmill.images import Image

TEMPLATES_PER_CLASS = 5
_SPAN_S = 180.0


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


def _spread(scene: Scene, label: str) -> list[tuple[Image, Truth]]:
    """Frames of one label, each from another visit: every kind of part in turn, directions far apart."""
    waiting = [
        (number, visit.part, *moment)
        for number, visit in enumerate(scene.script.visits)
        if (moment := _best_moment(visit, holds=label == HAND_WITH_PART))
    ]
    found: list[tuple[Image, Truth]] = []
    taken: list[tuple[str, float]] = []
    while waiting and len(found) < TEMPLATES_PER_CLASS:
        chosen = max(waiting, key=lambda moment: _worth(moment[1], moment[3], taken))
        waiting.remove(chosen)
        number, part, index, angle = chosen
        image, truths = scene.frame(index)
        truth = next((t for t in truths if t.visit == number and t.clear and t.label == label), None)
        if truth is not None:
            found.append((image, truth))
            taken.append((part, angle))
    return found


def _worth(part: str, angle: float, taken: list[tuple[str, float]]) -> tuple[int, float]:
    """How much a template of a part and direction adds to those that are taken, for comparing."""
    others = [abs(angle - other) for kind, other in taken if kind == part]
    return -len(others), min(others, default=-abs(angle))  # the most upright one first


def _best_moment(visit: Visit, *, holds: bool) -> tuple[int, float] | None:
    """The frame of a visit in which the whole hand is in the picture and moves least; and its direction."""
    best: tuple[float, int, float] | None = None
    for index in range(round(visit.start_s * FPS), round(min(visit.end_s, _SPAN_S) * FPS)):
        state, later = hand_at(visit, index / FPS), hand_at(visit, (index + 1) / FPS)
        if state is None or later is None or state.holds != holds:
            continue
        if any(abs(index / FPS - change) < 0.2 for change in visit.changes_s):
            continue
        ahead = direction(state.angle_rad)
        ends = [np.array(state.xy) + np.array(ahead) * reach * PX_PER_CM for reach in (5.0, -15.0)]
        inside = min(min(x, y, WH_PX[0] - x, WH_PX[1] - y) for x, y in ends)
        speed = float(np.hypot(later.xy[0] - state.xy[0], later.xy[1] - state.xy[1]))
        score = min(float(inside), 20.0) - speed
        if inside > 6 and (best is None or score > best[0]):
            best = (score, index, state.angle_rad)
    return best[1:] if best else None


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
