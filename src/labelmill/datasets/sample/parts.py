"""What is handled on the bench, and what gets in the way: bolt, box, flange, ball and cart."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from labelmill.datasets.sample.relief import (
    Field,
    Sprite,
    cover,
    grid,
    make_sprite,
    noise,
    rounded_box,
    shade,
)

PX_PER_CM = 10.0
KINDS = ("bolt", "box", "flange")

_BRASS = (214, 168, 62)
_STEEL = (158, 164, 172)
_CARTON = (58, 122, 86)


def _field(half_w: float, half_h: float) -> tuple[Field, Field, tuple[float, float]]:
    width_px, height_px = int(2 * half_w * PX_PER_CM), int(2 * half_h * PX_PER_CM)
    origin = (width_px / 2, height_px / 2)
    return *grid(width_px, height_px, origin, PX_PER_CM), origin


def _lit(colour: tuple[int, int, int], height: Field, *, gloss: float, blur: float = 1.0) -> Field:
    light, gleam = shade(cv2.GaussianBlur(height, (0, 0), blur), PX_PER_CM, ambient=0.45, gloss=gloss)
    flat = np.array(colour, dtype=np.float32)
    return np.asarray(flat * light[..., None] + gleam[..., None], dtype=np.float32)


@lru_cache
def draw_part(kind: str) -> Sprite:
    """One of `KINDS` from above; its origin is its middle."""
    return {"bolt": _bolt, "box": _box, "flange": _flange}[kind]()


def _bolt() -> Sprite:
    xx, yy, origin = _field(2.4, 4.4)
    rng = np.random.default_rng(3)
    hexagon = np.max(
        [np.abs(xx * np.cos(a) + (yy + 2.6) * np.sin(a)) - 1.65 for a in np.radians([0, 60, 120])], axis=0
    ).astype(np.float32)
    shaft = np.maximum(np.abs(xx) - 0.85, np.abs(yy - 0.8) - 3.0).astype(np.float32)
    thread = 0.12 * np.sin(yy * 11 + 0.7 * xx)
    height = np.where(shaft < 0, np.sqrt(np.maximum(0.75 - xx**2, 0.05)) + thread, -1.0)
    bevel = 1.3 - 0.5 * np.maximum(np.hypot(xx, yy + 2.6) - 1.25, 0)
    height = np.where(hexagon < 0, bevel, height).astype(np.float32)
    colour = _lit(_BRASS, height, gloss=0.5, blur=0.8)
    colour *= (1 + 0.04 * noise(rng, xx.shape, 1.5))[..., None]
    return make_sprite(colour, cover(np.minimum(hexagon, shaft), PX_PER_CM), origin, PX_PER_CM)


def _box() -> Sprite:
    xx, yy, origin = _field(4.2, 3.4)
    rng = np.random.default_rng(5)
    outline = rounded_box(xx, yy, (3.6, 2.7), 0.25)
    height = np.minimum(-outline * 1.5, 0.35) - 0.05 * (np.abs(yy) < 0.09)
    colour = _lit(_CARTON, height.astype(np.float32), gloss=0.05)
    colour *= (1 + 0.03 * noise(rng, xx.shape, 1.2, along_px=8))[..., None]
    label = cover(rounded_box(xx + 1.2, yy - 0.1, (1.7, 1.3), 0.1), PX_PER_CM)
    colour += (np.array([236, 234, 226], dtype=np.float32) - colour) * label[..., None]
    bars = (np.abs(yy - 0.5) < 0.5) & (np.abs(xx + 1.2) < 1.3) & (np.sin(xx * 17) + np.sin(xx * 29) > 0.3)
    text = ((np.abs(yy + 0.75) < 0.12) & (xx < -0.4)) | ((np.abs(yy + 0.4) < 0.08) & (xx < -1.1))
    colour[bars | (text & (np.abs(xx + 1.2) < 1.3))] = 52
    tape = cover(rounded_box(xx - 2.2, yy, (0.55, 2.6), 0.05), PX_PER_CM) * 0.7
    colour += (np.array([214, 186, 130], dtype=np.float32) - colour) * tape[..., None]
    return make_sprite(colour, cover(outline, PX_PER_CM), origin, PX_PER_CM)


def _flange() -> Sprite:
    xx, yy, origin = _field(3.4, 3.4)
    rng = np.random.default_rng(7)
    radius = np.hypot(xx, yy)
    ring = np.maximum(radius - 2.9, 1.05 - radius).astype(np.float32)
    for angle in np.radians([45, 135, 225, 315]):
        hole = np.hypot(xx - 2.1 * np.cos(angle), yy - 2.1 * np.sin(angle)) - 0.32
        ring = np.maximum(ring, -hole).astype(np.float32)
    height = np.minimum(-ring * 1.6, 0.3) + 0.45 * np.exp(-(((radius - 1.4) / 0.35) ** 2))
    colour = _lit(_STEEL, height.astype(np.float32), gloss=0.55, blur=0.9)
    brushed = noise(rng, xx.shape, 1.0) * 0.04 + 0.09 * np.cos(2 * np.arctan2(yy, xx) + 0.8)
    colour *= (1 + brushed)[..., None]
    return make_sprite(colour.astype(np.float32), cover(ring, PX_PER_CM), origin, PX_PER_CM)


BALL_PHASES = 24
BALL_RADIUS_CM = 3.6


@lru_cache
def draw_ball(phase: int) -> Sprite:
    """A rubber ball with a stripe, rolling to the right; a turn has `BALL_PHASES` phases."""
    xx, yy, origin = _field(4.2, 4.2)
    radius = np.hypot(xx, yy)
    zz = np.sqrt(np.maximum(BALL_RADIUS_CM**2 - radius**2, 0)) / BALL_RADIUS_CM
    turn = 2 * np.pi * phase / BALL_PHASES
    along = np.cos(turn) * xx / BALL_RADIUS_CM - np.sin(turn) * zz
    upright = np.cos(turn) * zz + np.sin(turn) * xx / BALL_RADIUS_CM
    stripe = (np.abs(along * 0.8 + upright * 0.6) < 0.16)[..., None]
    colour = np.where(stripe, np.array([232, 232, 226.0]), np.array([122, 74, 158.0])).astype(np.float32)
    colour = cv2.GaussianBlur(colour, (0, 0), 0.8)
    light, gleam = shade((zz * BALL_RADIUS_CM).astype(np.float32), PX_PER_CM, ambient=0.35, gloss=0.5)
    colour = colour * light[..., None] + gleam[..., None]
    return make_sprite(
        colour, cover((radius - BALL_RADIUS_CM).astype(np.float32), PX_PER_CM), origin, PX_PER_CM
    )


@lru_cache
def draw_cart() -> Sprite:
    """A driverless cart that carries an open crate of flanges along the rail."""
    xx, yy, origin = _field(9.5, 5.6)
    rng = np.random.default_rng(9)
    body = rounded_box(xx, yy, (8.6, 4.0), 0.9)
    wheels = np.min(
        [rounded_box(xx - sx * 5.6, yy - sy * 4.1, (1.5, 0.8), 0.3) for sx in (-1, 1) for sy in (-1, 1)],
        axis=0,
    )
    colour = _lit((222, 178, 54), np.minimum(-body * 1.4, 0.5).astype(np.float32), gloss=0.15)
    crate = rounded_box(xx + 1.0, yy, (5.9, 3.1), 0.4)
    inside = rounded_box(xx + 1.0, yy, (5.3, 2.5), 0.3)
    rim = _lit((92, 98, 104), np.minimum(-crate * 1.5, 0.4).astype(np.float32), gloss=0.1)
    colour += (rim - colour) * cover(crate, PX_PER_CM)[..., None]
    gloom = np.clip(34 + 14 * (xx + yy) / 6, 22, 60)
    colour += (gloom[..., None] - colour) * cover(inside, PX_PER_CM)[..., None]
    lamp = cover(np.hypot(xx - 7.1, yy).astype(np.float32) - 0.6, PX_PER_CM)
    colour += (np.array([120, 226, 255], dtype=np.float32) - colour) * lamp[..., None]
    stripes = (np.sin((xx + yy) * 4.2) > 0) & (np.abs(np.abs(yy) - 3.55) < 0.3) & (body < -0.15)
    colour[stripes] = 40
    rubber = np.array([38, 38, 40], dtype=np.float32) * (1 + 0.2 * np.sin(xx * 9))[..., None]
    colour = np.where((body > 0)[..., None], rubber, colour)
    colour *= (1 + 0.02 * noise(rng, xx.shape, 1.2))[..., None]
    flange = draw_part("flange")
    h, w = flange.alpha.shape
    for x_cm, scale in ((-4.0, 0.72), (-0.9, 0.72), (2.2, 0.72)):
        rgb = cv2.resize(flange.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        alpha = (
            cv2.resize(flange.alpha, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[..., None] / 255
        )
        h, w = rgb.shape[:2]
        left, top = int(origin[0] + x_cm * PX_PER_CM - w / 2), int(origin[1] - h / 2)
        under = colour[top : top + h, left : left + w]
        colour[top : top + h, left : left + w] = under * (1 - alpha) + rgb
    alpha = cover(np.minimum(body, wheels).astype(np.float32), PX_PER_CM)
    return make_sprite(colour.astype(np.float32), alpha, origin, PX_PER_CM)
