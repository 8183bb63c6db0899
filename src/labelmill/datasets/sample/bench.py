"""The bench without anybody at it: surface, mat, bins, tools, rail and signal lamp."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from labelmill.datasets.sample.parts import draw_part
from labelmill.datasets.sample.relief import (
    Field,
    Placement,
    cast_shadow,
    cover,
    grid,
    lay,
    noise,
    rounded_box,
    shade,
)
from labelmill.images import Image

WH_PX = (640, 360)
PX_PER_CM = 5.6
RAIL_Y_PX = 318.0
LAMP_XY_PX = (594.0, 44.0)

_SCALE = 2  # drawn larger and reduced, against jagged edges
_ROOM_PX = 16.0  # around a shape, for its shadow


@dataclass(frozen=True)
class Bin:
    """A tray of parts of one kind, in pixels of the frame."""

    kind: str
    xy: tuple[float, float]
    half_wh: tuple[float, float]


BINS = (
    Bin("bolt", (86.0, 100.0), (58.0, 46.0)),
    Bin("flange", (216.0, 100.0), (58.0, 46.0)),
    Bin("box", (86.0, 208.0), (58.0, 46.0)),
)
MAT_XY, MAT_HALF_WH = (434.0, 150.0), (122.0, 92.0)
SLOTS = tuple((x, y) for y in (104.0, 190.0) for x in (358.0, 434.0, 510.0))
"""Places on the mat where parts are laid down, pixels of the frame."""


@dataclass(frozen=True, eq=False)
class _Shape:
    """A shape on the enlarged bench.

    Attributes:
        area: Rows and columns that it and its shadow can touch.
        distance_px: Signed distance to its outline within `area`, pixels of the frame.
    """

    area: tuple[slice, slice]
    distance_px: Field

    def grown(self, by_px: float) -> _Shape:
        """The same shape with its outline moved outwards."""
        return _Shape(self.area, self.distance_px - np.float32(by_px))

    def outline(self, half_width_px: float) -> _Shape:
        """The line along its edge."""
        return _Shape(self.area, np.abs(self.distance_px) - np.float32(half_width_px))


class _Painter:
    """Paints solid shapes onto the enlarged bench."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 101])
        self.width, self.height = WH_PX[0] * _SCALE, WH_PX[1] * _SCALE
        self.xx, self.yy = grid(self.width, self.height, (0, 0), _SCALE)
        self.colour = np.zeros((self.height, self.width, 3), dtype=np.float32)

    def noise(self, sigma_px: float, along_px: float | None = None) -> Field:
        return noise(self.rng, (self.height, self.width), sigma_px, along_px=along_px)

    def box(
        self, xy: tuple[float, float], half_wh: tuple[float, float], corner: float, turn: float = 0.0
    ) -> _Shape:
        cos, sin = float(np.cos(turn)), float(np.sin(turn))
        reach_x = abs(half_wh[0] * cos) + abs(half_wh[1] * sin) + _ROOM_PX
        reach_y = abs(half_wh[0] * sin) + abs(half_wh[1] * cos) + _ROOM_PX
        area = (
            slice(max(0, int((xy[1] - reach_y) * _SCALE)), max(0, int((xy[1] + reach_y) * _SCALE))),
            slice(max(0, int((xy[0] - reach_x) * _SCALE)), max(0, int((xy[0] + reach_x) * _SCALE))),
        )
        x, y = self.xx[area] - np.float32(xy[0]), self.yy[area] - np.float32(xy[1])
        return _Shape(area, rounded_box(x * cos + y * sin, y * cos - x * sin, half_wh, corner))

    def disc(self, xy: tuple[float, float], radius_px: float) -> _Shape:
        return self.box(xy, (radius_px, radius_px), radius_px)

    def paint(self, rgb: tuple[float, float, float] | Field, shape: _Shape, strength: float = 1.0) -> None:
        alpha = cover(shape.distance_px, _SCALE)[..., None] * np.float32(strength)
        under = self.colour[shape.area]
        under += (np.asarray(rgb, dtype=np.float32) - under) * alpha

    def solid(self, rgb: tuple[int, int, int], shape: _Shape, *, edge_px: float, gloss: float = 0.1) -> None:
        """A body with a rounded edge, lit from the upper left, with its shadow."""
        distance = shape.distance_px
        shifted = np.array([[1, 0, 4 * _SCALE], [0, 1, 5 * _SCALE]], dtype=np.float32)
        moved = cv2.warpAffine(distance, shifted, distance.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        soft = np.clip(1 - np.maximum(moved, 0) / 9, 0, 1) ** 2
        self.colour[shape.area] *= (1 - 0.42 * soft)[..., None]
        height = np.clip(-distance, 0, edge_px).astype(np.float32) * 0.8
        light, gleam = shade(cv2.GaussianBlur(height, (0, 0), 1.5), _SCALE, ambient=0.5, gloss=gloss)
        lit = np.array(rgb, dtype=np.float32) * light[..., None] + gleam[..., None]
        self.paint(lit.astype(np.float32), shape)


@lru_cache(maxsize=2)
def draw_bench(seed: int) -> Image:
    """The bench with filled bins and an empty mat; wear and grain follow the seed.

    Returns:
        RGB, shape (360, 640, 3), read-only.
    """
    painter = _Painter(seed)
    _surface(painter)
    _rail(painter)
    _mat(painter)
    for tray in BINS:
        _bin(painter, tray)
    _tools(painter)
    _lamp_post(painter)
    small = cv2.resize(np.clip(painter.colour, 0, 255), WH_PX, interpolation=cv2.INTER_AREA)
    frame = np.ascontiguousarray(small.astype(np.uint8))
    for tray in BINS:
        _fill(frame, tray, painter.rng)
    frame.setflags(write=False)
    return frame


def light_falloff() -> Field:
    """How much of the lamp's light reaches each pixel, with the lens's vignette, shape (360, 640)."""
    xx, yy = grid(*WH_PX, (0, 0), 1.0)
    lamp = np.exp(-(((xx - 250) / 520) ** 2 + ((yy - 90) / 380) ** 2))
    vignette = 1 - 0.16 * (((xx - 320) / 320) ** 2 + ((yy - 180) / 180) ** 2) / 2
    return np.asarray((0.74 + 0.33 * lamp) * vignette, dtype=np.float32)


def _surface(painter: _Painter) -> None:
    grain = painter.noise(1.6, along_px=60) * 0.022 + painter.noise(5, along_px=160) * 0.028
    speckle = painter.noise(0.8) * 0.012
    wear = painter.noise(60) * 0.018
    laminate = np.array([194, 188, 177], dtype=np.float32)
    painter.colour[:] = laminate * (1 + grain + speckle + wear)[..., None]
    for _ in range(34):
        start = painter.rng.uniform((0, 0), (painter.width, painter.height))
        angle = painter.rng.normal(0.2, 0.7)
        end = start + painter.rng.uniform(30, 150) * np.array([np.cos(angle), np.sin(angle)])
        scratch = np.zeros(painter.xx.shape, dtype=np.float32)
        cv2.line(scratch, start.astype(int).tolist(), end.astype(int).tolist(), 1.0, 1, cv2.LINE_AA)
        painter.colour *= (1 - scratch * painter.rng.uniform(-0.07, 0.10))[..., None]


def _rail(painter: _Painter) -> None:
    middle_x, half_w = WH_PX[0] / 2, WH_PX[0] / 2 + 40
    for offset in (-18.0, 18.0):
        strip = painter.box((middle_x, RAIL_Y_PX + offset), (half_w, 3.2), 0.5)
        painter.solid((146, 150, 154), strip, edge_px=2.0, gloss=0.3)
    edge = painter.box((middle_x, RAIL_Y_PX - 32), (half_w, 2.0), 0.5)
    wave = np.sin((painter.xx[edge.area] + painter.yy[edge.area]) * 0.42)[..., None]
    hazard = np.where(wave > 0, np.array([214, 176, 52]), np.array([52, 50, 48])).astype(np.float32)
    painter.paint(hazard, edge, 0.85)


def _mat(painter: _Painter) -> None:
    mat = painter.box(MAT_XY, MAT_HALF_WH, 7)
    painter.solid((98, 124, 128), mat, edge_px=1.5, gloss=0.0)
    inside = mat.distance_px < 0
    shape = mat.distance_px.shape
    weave = 1 + 0.02 * noise(painter.rng, shape, 1.0) + 0.02 * noise(painter.rng, shape, 18)
    painter.colour[mat.area] *= np.where(inside, weave, 1)[..., None]
    painter.paint((150, 174, 176), mat.grown(-6).outline(0.6), 0.6)
    for xy in SLOTS:
        painter.paint((192, 200, 200), painter.box(xy, (30, 33), 9).outline(0.7), 0.55)


def _bin(painter: _Painter, tray: Bin) -> None:
    (x, y), (half_w, half_h) = tray.xy, tray.half_wh
    painter.solid((52, 90, 140), painter.box(tray.xy, tray.half_wh, 8), edge_px=3.0, gloss=0.12)
    inside = painter.box(tray.xy, (half_w - 6, half_h - 6), 6)
    floor = np.array([42, 66, 102], dtype=np.float32)
    sun = 0.62 + 0.5 * ((painter.xx[inside.area] - x) / 90 + (painter.yy[inside.area] - y) / 80)
    painter.paint((floor * np.clip(sun, 0.4, 1.0)[..., None]).astype(np.float32), inside)
    painter.paint((232, 230, 222), painter.box((x, y + half_h - 3), (17, 4.0), 1))
    painter.paint((70, 70, 74), painter.box((x - 2, y + half_h - 3), (11, 0.7), 0.3))


def _fill(frame: Image, tray: Bin, rng: np.random.Generator) -> None:
    """Lay the parts that nobody takes into a bin."""
    sprite = draw_part(tray.kind)
    for _ in range(9):
        room = np.array(tray.half_wh) - 27
        x, y = np.array(tray.xy) + rng.uniform(-room, room)
        place = Placement((float(x), float(y)), float(rng.uniform(0, 2 * np.pi)), PX_PER_CM)
        cast_shadow(frame, sprite, place, lift_cm=0.2, strength=0.6)
        lay(frame, sprite, place)


def _tools(painter: _Painter) -> None:
    turn = 0.32
    across, down = float(np.cos(turn)), float(np.sin(turn))

    def along(step_px: float) -> tuple[float, float]:
        return 226.0 + step_px * across, 204.0 + step_px * down

    painter.solid((168, 172, 178), painter.box(along(34), (30, 1.7), 0.8, turn), edge_px=1.6, gloss=0.5)
    painter.solid((190, 62, 40), painter.box(along(-14), (20, 6.2), 5, turn), edge_px=5.0, gloss=0.35)
    painter.paint((44, 44, 46), painter.box(along(-16), (11, 6.4), 3, turn), 0.8)
    painter.solid((226, 224, 216), painter.box((226.0, 250.0), (40, 24), 1, -0.09), edge_px=0.6, gloss=0)
    for row in range(6):
        text = painter.box((218.0 + 0.8 * row, 237.0 + 5 * row), (24 - 4 * (row % 3), 0.6), 0.3, -0.09)
        painter.paint((120, 120, 124), text, 0.7)


def _lamp_post(painter: _Painter) -> None:
    x, y = LAMP_XY_PX
    painter.solid((188, 190, 190), painter.box(LAMP_XY_PX, (26, 34), 4), edge_px=3.0, gloss=0.2)
    for offset, rgb in ((-18, (54, 148, 84)), (0, (150, 116, 40)), (18, (120, 40, 36))):
        painter.solid(rgb, painter.disc((x, y + offset), 6.5), edge_px=4.0, gloss=0.6)


def lamp_glow() -> Field:
    """What the lit amber lamp adds to the frame, RGB, shape (360, 640, 3)."""
    xx, yy = grid(*WH_PX, LAMP_XY_PX, 1.0)
    radius = np.hypot(xx, yy)
    bulb = cover((radius - 6.0).astype(np.float32), 1.0)
    halo = np.exp(-((radius / 26) ** 2)) * 0.30 + np.exp(-((radius / 90) ** 2)) * 0.07
    tint = np.array([255, 188, 62], dtype=np.float32)
    return np.asarray((0.75 * bulb + halo)[..., None] * tint, dtype=np.float32)
