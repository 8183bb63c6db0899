"""A worker's hand and sleeve, seen from above: bones as capsules, lit as a height field."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from labelmill.datasets.sample.relief import Field, Sprite, capsule, cover, grid, make_sprite, noise, shade

PX_PER_CM = 8.0
GRIP_CM = (-1.9, 11.6)
"""Where finger tips and thumb meet, from the wrist: x to the little finger, y along the fingers."""

_REACH_CM = 66.0  # of the forearm, so that it always leaves the picture
_ARM_CM = 9.0  # of bare arm above the wrist, most of it inside the sleeve
_HALF_WIDTH_CM = 11.5
_TIP_ROOM_CM = 21.0


_Nail = tuple[float, float, float, float]  # x, y, direction (rad), radius


@dataclass(frozen=True)
class Worker:
    """What a hand looks like.

    Attributes:
        skin: RGB, 0 to 255.
        sleeve: RGB of the jacket.
        cuff: RGB of its cuff.
        seed: Of creases and folds.
    """

    skin: tuple[int, int, int]
    sleeve: tuple[int, int, int]
    cuff: tuple[int, int, int]
    seed: int


WORKERS = (
    Worker(skin=(205, 152, 122), sleeve=(44, 62, 96), cuff=(34, 46, 70), seed=11),
    Worker(skin=(186, 128, 98), sleeve=(112, 116, 118), cuff=(226, 132, 44), seed=23),
)


@dataclass(frozen=True)
class Pose:
    """How the fingers are held.

    Attributes:
        grip: 0, an open relaxed hand, to 1, finger tips against the thumb.
        spread: How far the fingers stand apart, about 0.6 to 1.4.
        bend: Extra bend of all fingers in degrees.
    """

    grip: float
    spread: float = 1.0
    bend: float = 0.0


@dataclass(frozen=True)
class _Finger:
    knuckle: tuple[float, float]
    bones_cm: tuple[float, float, float]
    radii_cm: tuple[float, float, float, float]
    side_deg: float  # away from straight ahead, open
    inward_deg: float  # likewise, gripping
    open_deg: tuple[float, float, float]  # bend of each joint, open
    grip_deg: tuple[float, float, float]  # likewise, gripping


_FINGERS = (
    _Finger((-3.10, 8.4), (4.4, 2.6, 2.1), (1.16, 1.02, 0.92, 0.76), -9, 6, (14, 16, 10), (34, 38, 22)),
    _Finger((-1.00, 8.9), (4.8, 3.0, 2.3), (1.18, 1.05, 0.94, 0.78), -2, -6, (10, 14, 10), (36, 40, 24)),
    _Finger((1.10, 8.5), (4.4, 2.8, 2.2), (1.12, 0.99, 0.88, 0.74), 5, -10, (14, 18, 12), (44, 48, 30)),
    _Finger((3.05, 7.5), (3.5, 2.2, 1.9), (1.00, 0.87, 0.78, 0.64), 14, -8, (20, 22, 14), (54, 54, 34)),
)
_THUMB_OPEN = ((-1.8, 2.0, -0.4), (-4.8, 5.2, -0.9), (-6.4, 8.0, -1.2), (-7.1, 10.4, -1.3))
_THUMB_GRIP = ((-1.8, 2.0, -0.4), (-4.6, 5.4, -1.4), (-5.0, 8.6, -2.4), (-3.8, 11.4, -3.0))


def _mix(a: float, b: float, t: float) -> float:
    return a + (b - a) * t


@dataclass
class _Canvas:
    """Collects bones into one height field.

    Attributes:
        xx: Pixel coordinates in centimetres from the wrist.
        yy: Likewise; the fingers point to positive y.
        height: Highest surface so far.
        distance: Signed distance to the outline so far.
        warm: Where the blood shines through (tips and knuckles), 0 to 1.
        crease: Where a joint folds the skin, 0 to 1.
    """

    xx: Field
    yy: Field
    height: Field
    distance: Field
    warm: Field
    crease: Field

    def bone(
        self, start: tuple[float, float, float], end: tuple[float, float, float], radii: tuple[float, float]
    ) -> None:
        reach = max(radii) + 0.6
        rows = slice(
            int(np.searchsorted(self.yy[:, 0], min(start[1], end[1]) - reach)),
            int(np.searchsorted(self.yy[:, 0], max(start[1], end[1]) + reach)),
        )
        distance, height = capsule(self.xx[rows], self.yy[rows], start, end, radii)
        inside = distance < 0.1
        np.maximum(self.height[rows], np.where(inside, height, -9), out=self.height[rows])
        np.minimum(self.distance[rows], distance, out=self.distance[rows])

    def spot(self, target: Field, xy: tuple[float, float], radius: float, strength: float) -> None:
        near = np.exp(-((self.xx - xy[0]) ** 2 + (self.yy - xy[1]) ** 2) / radius**2)
        np.maximum(target, (strength * near).astype(np.float32), out=target)


def _finger(canvas: _Canvas, finger: _Finger, pose: Pose) -> _Nail | None:
    """Draw one finger; return its nail while it can be seen."""
    side = np.radians(_mix(finger.side_deg * pose.spread, finger.inward_deg, pose.grip))
    x, y, z = finger.knuckle[0], finger.knuckle[1], 0.15
    bend = 0.0
    nail = None
    for bone, length in enumerate(finger.bones_cm):
        bend += _mix(finger.open_deg[bone] + pose.bend, finger.grip_deg[bone], pose.grip)
        ahead = length * float(np.cos(np.radians(bend)))
        end = (
            x + ahead * float(np.sin(side)),
            y + ahead * float(np.cos(side)),
            z - length * float(np.sin(np.radians(bend))),
        )
        canvas.bone((x, y, z), end, (finger.radii_cm[bone], finger.radii_cm[bone + 1]))
        canvas.spot(canvas.crease, (x, y), finger.radii_cm[bone] * 0.8, 0.35 if bone == 0 else 0.6)
        if bone == 2:
            canvas.spot(canvas.warm, end[:2], 1.3, 1.0)
            if bend < 75:
                nail = (_mix(x, end[0], 0.72), _mix(y, end[1], 0.72), float(side), finger.radii_cm[3])
        x, y, z = end
    return nail


def draw_hand(worker: Worker, pose: Pose) -> Sprite:
    """A right hand from above, fingers to the bottom of the sprite, thumb to its left.

    Its origin is the point where finger tips and thumb meet (`GRIP_CM` from the wrist); its subject is the
    bare hand up to the cuff.
    """
    colour, both = (layer.copy() for layer in _sleeve(worker))
    top = int((_REACH_CM - _ARM_CM) * PX_PER_CM)
    skin_colour, skin_alpha = _skin(worker, pose)
    sleeve_alpha = both[top:]
    bare = skin_alpha * (1 - sleeve_alpha)
    colour[top:] += (skin_colour - colour[top:]) * (1 - sleeve_alpha)[..., None]
    subject = np.zeros_like(both)
    subject[top:] = bare
    both[top:] = np.maximum(sleeve_alpha, skin_alpha)
    origin = ((_HALF_WIDTH_CM + GRIP_CM[0]) * PX_PER_CM, (_REACH_CM + GRIP_CM[1]) * PX_PER_CM)
    return make_sprite(colour, both, origin, PX_PER_CM, subject=subject)


def _canvas(above_cm: float, below_cm: float) -> tuple[Field, Field]:
    """Pixel coordinates of a sprite that reaches so far from the wrist."""
    width_px, height_px = int(2 * _HALF_WIDTH_CM * PX_PER_CM), int((above_cm + below_cm) * PX_PER_CM)
    return grid(width_px, height_px, (_HALF_WIDTH_CM * PX_PER_CM, above_cm * PX_PER_CM), PX_PER_CM)


def _bones(pose: Pose) -> tuple[_Canvas, list[_Nail]]:
    """The hand's height field, and the nails that can be seen."""
    xx, yy = _canvas(_ARM_CM, _TIP_ROOM_CM)
    hand = _Canvas(xx, yy, *(np.full(xx.shape, value, dtype=np.float32) for value in (-9, 99, 0, 0)))
    for finger, from_x in zip(_FINGERS, (-1.35, -0.5, 0.45, 1.3), strict=True):
        hand.bone((from_x, 0.6, -0.2), (*finger.knuckle, 0.2), (1.75, 1.36))
    hand.bone((0.1, 2.4, 0.0), (0.1, 5.8, 0.0), (2.9, 3.2))
    hand.bone((0.0, -9.0, -0.9), (0.0, 1.2, -0.9), (2.9, 2.6))
    nails = [nail for finger in _FINGERS if (nail := _finger(hand, finger, pose))]
    thumb = [
        (_mix(a[0], b[0], pose.grip), _mix(a[1], b[1], pose.grip), _mix(a[2], b[2], pose.grip))
        for a, b in zip(_THUMB_OPEN, _THUMB_GRIP, strict=True)
    ]
    for start, end, radii in zip(thumb, thumb[1:], ((1.9, 1.4), (1.28, 1.12), (1.1, 0.82)), strict=False):
        hand.bone(start, end, radii)
    (joint_x, joint_y, _), (tip_x, tip_y, _) = thumb[2:]
    hand.spot(hand.warm, (tip_x, tip_y), 1.4, 1.0)
    hand.spot(hand.crease, (joint_x, joint_y), 0.9, 0.6)
    lean = float(np.arctan2(tip_x - joint_x, tip_y - joint_y))
    nails.append((_mix(joint_x, tip_x, 0.78), _mix(joint_y, tip_y, 0.78), lean, 0.8))
    return hand, nails


def _skin(worker: Worker, pose: Pose) -> tuple[Field, Field]:
    """Colours and coverage of the bare hand."""
    rng = np.random.default_rng(worker.seed)
    hand, nails = _bones(pose)
    alpha = cover(hand.distance, PX_PER_CM)
    floor = np.where(hand.height < -8, -3.5, hand.height).astype(np.float32)
    rough = cv2.GaussianBlur(floor, (0, 0), 0.28 * PX_PER_CM)
    wide = cv2.GaussianBlur(floor, (0, 0), 0.9 * PX_PER_CM)
    shape = alpha.shape
    grain = noise(rng, shape, 1.0) * 0.012 + noise(rng, shape, 4.0) * 0.03
    tendons = 0.05 * np.cos(hand.xx * 3.3) * np.exp(-(((hand.yy - 6.5) / 2.6) ** 2))
    light, gleam = shade(rough + grain + tendons.astype(np.float32), PX_PER_CM, ambient=0.42, gloss=0.05)
    depth = np.clip(1 - 0.16 * np.maximum(wide - rough, 0) + 0.02 * rough, 0.5, 1.1)
    tone = np.array(worker.skin, dtype=np.float32) * (1 + 0.05 * noise(rng, shape, 6.0))[..., None]
    tone += hand.warm[..., None] * np.array([6, -16, -14], dtype=np.float32)
    wrinkle = hand.crease * (0.5 + 0.5 * np.sin(hand.yy * 13 + noise(rng, shape, 5.0)))
    tone *= (1 - 0.16 * wrinkle)[..., None]
    for nail in nails:
        x, y, direction, radius = nail
        along = (hand.xx - x) * np.sin(direction) + (hand.yy - y) * np.cos(direction)
        across = (hand.xx - x) * np.cos(direction) - (hand.yy - y) * np.sin(direction)
        plate = np.clip(2.5 - 2.5 * np.hypot(along / (radius * 0.85), across / (radius * 0.62)), 0, 1)
        pale = np.array([232, 186, 170], dtype=np.float32) * (worker.skin[0] / 205)
        tone += (pale - tone) * (0.75 * plate)[..., None].astype(np.float32)
    return (tone * (light * depth)[..., None] + gleam[..., None]).astype(np.float32), alpha


@lru_cache
def _sleeve(worker: Worker) -> tuple[Field, Field]:
    """Colours and coverage of the jacket's sleeve, from the cuff to beyond the picture."""
    rng = np.random.default_rng(worker.seed)
    xx, yy = _canvas(_REACH_CM, _TIP_ROOM_CM)
    folds = noise(rng, xx.shape, 10.0, along_px=26.0)
    edge = noise(rng, xx.shape, 14.0) * 0.16
    distance, height = capsule(xx + edge, yy, (0.0, -_REACH_CM - 6, 0), (0.0, -3.4, 0), (5.6, 3.5))
    cut = (yy + 3.2 + 0.12 * xx * xx * 0.3) + 0.08 * noise(rng, xx.shape, 8.0)
    distance = np.maximum(distance, cut)
    cuff = np.clip((yy + 5.4) * 4, 0, 1)
    seam = np.exp(-(((yy + 5.5) / 0.16) ** 2))
    weave = noise(rng, xx.shape, 0.7) * 0.02
    relief = height * 0.8 + folds * 0.24 * (1 - cuff) + weave - seam * 0.25
    light, _ = shade(cv2.GaussianBlur(relief.astype(np.float32), (0, 0), 1.6), PX_PER_CM, ambient=0.42)
    cloth = np.array(worker.sleeve, dtype=np.float32)
    colour = cloth + (np.array(worker.cuff, dtype=np.float32) - cloth) * cuff[..., None]
    colour = colour * (light * (1 + 0.03 * noise(rng, xx.shape, 1.2)))[..., None]
    return colour.astype(np.float32), cover(distance.astype(np.float32), PX_PER_CM)
