"""Frames of the bench camera, each with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from labelmill.datasets.sample.bench import PX_PER_CM, RAIL_Y_PX, WH_PX, draw_bench, lamp_glow, light_falloff
from labelmill.datasets.sample.hand import WORKERS, Pose, draw_hand
from labelmill.datasets.sample.parts import BALL_PHASES, BALL_RADIUS_CM, draw_ball, draw_cart, draw_part
from labelmill.datasets.sample.relief import Field, Placement, Sprite, cast_shadow, grid, lay, noise
from labelmill.datasets.sample.script import (
    HELD_AHEAD_CM,
    HandState,
    Lying,
    Script,
    Visit,
    direction,
    hand_at,
)
from labelmill.images import Image

HAND_EMPTY = "hand_empty"
HAND_WITH_PART = "hand_with_part"
LABELS = (HAND_EMPTY, HAND_WITH_PART)

_GRIP_STEPS = 7  # sprites between an open hand and a fist
_SHUTTER = 0.3  # share of a frame's time in which light is gathered
_UNCLEAR_S = 0.2  # around gripping and releasing no one can say which label is right
_SEEN_SHARE = 0.3  # of a hand that must be in the picture for a clear label
_LEAST_PX = 120  # of a hand that must be in the picture to be boxed at all
_FALLOFF_UNIT = 200.0  # light that leaves a pixel as it is, in the 8-bit light map


@dataclass(frozen=True)
class Truth:
    """A hand in a frame.

    Attributes:
        xyxy: Around the bare hand up to the cuff, as far as it is in the picture, pixels.
        label: One of `LABELS`.
        clear: False within 0.2 s of gripping or releasing, and while most of the hand is outside.
        visit: Index of the visit in the script.
    """

    xyxy: tuple[int, int, int, int]
    label: str
    clear: bool
    visit: int


@lru_cache(maxsize=64)
def _hand_sprite(worker: int, step: int, spread: float) -> Sprite:
    return draw_hand(WORKERS[worker], Pose(grip=step / (_GRIP_STEPS - 1), spread=spread))


@lru_cache(maxsize=64)
def _subject_area(worker: int, step: int, spread: float) -> float:
    sprite = _hand_sprite(worker, step, spread)
    return float((sprite.subject > 127).sum()) / sprite.px_per_cm**2


class Scene:
    """Draws any frame of a script.

    Args:
        script: What happens.
        seed: Of the bench's wear and the sensor's noise.
        fps: Frames a second.
    """

    def __init__(self, script: Script, *, seed: int, fps: float) -> None:
        self.script = script
        self.fps = fps
        self._seed = seed
        self._bench = draw_bench(seed)
        self._falloff = light_falloff() * np.float32(_FALLOFF_UNIT)
        self._glow = np.clip(lamp_glow(), 0, 255).astype(np.uint8)
        self._noise = _sensor_noise(np.random.default_rng([seed, 102]))
        self._laid: tuple[tuple[Lying, ...], Image] = ((), self._bench)
        self._coarse = grid(WH_PX[0] // 8, WH_PX[1] // 8, (0, 0), 1 / 8)

    def frame(self, index: int) -> tuple[Image, list[Truth]]:
        """Draw one frame.

        Returns:
            RGB, shape (360, 640, 3), uint8, and the hands in it.
        """
        time_s = index / self.fps
        frame = self._with_parts(time_s).copy()
        light = self._falloff * np.float32(self._gain(time_s))
        lamp_on = False
        for thing in self.script.distractions:
            if not thing.start_s <= time_s < thing.end_s:
                continue
            t = thing.progress(time_s) if thing.forward else 1 - thing.progress(time_s)
            if thing.name == "cart":
                place = Placement(
                    (-60 + t * (WH_PX[0] + 120), RAIL_Y_PX), 0, PX_PER_CM, mirror=not thing.forward
                )
                cast_shadow(frame, draw_cart(), place, lift_cm=1.0)
                lay(frame, draw_cart(), place, motion_xy=(4.0, 0.0))
            elif thing.name == "ball":
                self._ball(frame, t, thing.strength)
            elif thing.name == "shadow":
                light *= self._passing_shadow(t, thing.strength)
            elif thing.name == "blink":
                lamp_on = (time_s - thing.start_s) % 0.8 < 0.4
        truths = [
            truth
            for number, visit in enumerate(self.script.visits)
            if (state := hand_at(visit, time_s))
            and (truth := self._hand(frame, visit, number, state, time_s))
        ]
        level = np.clip(light, 0, 255).astype(np.uint8)
        frame = cv2.multiply(frame, cv2.merge([level] * 3), scale=1 / _FALLOFF_UNIT)
        if lamp_on:
            frame = cv2.add(frame, self._glow)
        return self._with_noise(frame, index), truths

    def _with_parts(self, time_s: float) -> Image:
        parts = tuple(p for p in self.script.lying if p.from_s <= time_s < p.until_s)
        if parts != self._laid[0]:
            frame = self._bench.copy()
            for part in parts:
                place = Placement(part.xy, part.angle_rad, PX_PER_CM)
                cast_shadow(frame, draw_part(part.kind), place, lift_cm=0.2, strength=0.6)
                lay(frame, draw_part(part.kind), place)
            self._laid = (parts, frame)
        return self._laid[1]

    def _gain(self, time_s: float) -> float:
        """The lamp's flicker against the shutter, and slow daylight."""
        gain = (
            1 + 0.006 * np.sin(2 * np.pi * 2.3 * time_s) + 0.02 * np.sin(2 * np.pi * time_s / 23 + self._seed)
        )
        for thing in self.script.distractions:
            if thing.name == "flicker" and thing.start_s <= time_s < thing.end_s:
                gain += (
                    0.06
                    * thing.strength
                    * np.sin(2 * np.pi * 6.7 * time_s)
                    * np.sin(np.pi * thing.progress(time_s))
                )
        return float(gain)

    def _ball(self, frame: Image, t: float, strength: float) -> None:
        x = -40 + t * (WH_PX[0] + 80)
        y = 268 - 22 * strength + 14 * np.sin(2.2 * t)
        rolled = x / PX_PER_CM / (2 * np.pi * BALL_RADIUS_CM)
        sprite = draw_ball(int(rolled * BALL_PHASES) % BALL_PHASES)
        place = Placement((float(x), float(y)), 0, PX_PER_CM)
        cast_shadow(frame, sprite, place, lift_cm=0.8)
        lay(frame, sprite, place, motion_xy=(5.0, 0.0))

    def _passing_shadow(self, t: float, strength: float) -> Field:
        """Somebody walks between the window and the bench: head and shoulders, without an edge."""
        xx, yy = self._coarse
        x = -220 + t * (WH_PX[0] + 440)
        body = np.exp(-(((xx - x - 0.25 * yy) / 105) ** 2) - ((yy - 330) / 260) ** 2)
        head = np.exp(-(((xx - x - 40) / 48) ** 2) - ((yy - 90) / 62) ** 2)
        shadow = 1 - 0.34 * strength * np.minimum(body + 0.8 * head, 1)
        return np.asarray(cv2.resize(shadow.astype(np.float32), WH_PX, interpolation=cv2.INTER_CUBIC))

    def _hand(self, frame: Image, visit: Visit, number: int, state: HandState, time_s: float) -> Truth | None:
        step = round(min(max(state.grip, 0), 1) * (_GRIP_STEPS - 1))
        sprite = _hand_sprite(visit.worker, step, visit.spread)
        scale = PX_PER_CM * visit.size * (1 + 0.012 * state.lift_cm)
        place = Placement(state.xy, state.angle_rad, scale, mirror=visit.left)
        later = hand_at(visit, time_s + 1 / self.fps) or state
        motion = (
            (later.xy[0] - state.xy[0]) * _SHUTTER,
            (later.xy[1] - state.xy[1]) * _SHUTTER,
        )
        cast_shadow(frame, sprite, place, lift_cm=2.2 + state.lift_cm, strength=0.62)
        if state.holds:
            self._held_part(frame, visit, state, scale, motion)
        subject = lay(frame, sprite, place, motion_xy=motion)
        if subject is None:
            return None
        seen_px = int((subject > 127).sum())
        x, y, w, h = cv2.boundingRect((subject > 127).astype(np.uint8))
        if seen_px < _LEAST_PX or min(w, h) < 10:
            return None
        share = seen_px / (_subject_area(visit.worker, step, visit.spread) * scale**2)
        near_change = any(abs(time_s - change) < _UNCLEAR_S for change in visit.changes_s)
        label = HAND_WITH_PART if state.holds else HAND_EMPTY
        return Truth((x, y, x + w, y + h), label, share >= _SEEN_SHARE and not near_change, number)

    def _held_part(
        self, frame: Image, visit: Visit, state: HandState, scale: float, motion: tuple[float, float]
    ) -> None:
        sprite = draw_part(visit.part)
        reference = hand_at(visit, min(max(visit.changes_s[0], visit.start_s), visit.end_s - 1e-6))
        turned = state.angle_rad - reference.angle_rad if reference else 0.0
        if len(visit.changes_s) == 2 and (goal := hand_at(visit, visit.changes_s[1])) and reference:
            whole = goal.angle_rad - reference.angle_rad  # it is laid down as it was picked up
            turned -= whole * min(1.0, (state.angle_rad - reference.angle_rad) / whole) if whole else 0.0
        ahead = direction(state.angle_rad)
        reach = HELD_AHEAD_CM * scale
        xy = (state.xy[0] + ahead[0] * reach, state.xy[1] + ahead[1] * reach)
        place = Placement(xy, visit.part_angle_rad + turned, scale)
        cast_shadow(frame, sprite, place, lift_cm=0.3 + state.lift_cm, strength=0.6)
        lay(frame, sprite, place, motion_xy=motion)

    def _with_noise(self, frame: Image, index: int) -> Image:
        rng = np.random.default_rng([self._seed, 103, index])
        tile = self._noise[int(rng.integers(len(self._noise)))]
        top, left = (int(value) for value in rng.integers(0, 64, 2))
        window = tile[top : top + WH_PX[1], left : left + WH_PX[0]]
        return np.asarray(cv2.add(frame, window, dtype=cv2.CV_8U), dtype=np.uint8)


def _sensor_noise(rng: np.random.Generator) -> list[npt.NDArray[np.int16]]:
    """Noise of a small sensor: mostly brightness, a little colour, slightly smeared."""
    tiles = []
    for _ in range(4):
        shape = (WH_PX[1] + 64, WH_PX[0] + 64)
        grey = noise(rng, shape, 0.5)[..., None] * 2.0
        colour = cv2.GaussianBlur(rng.standard_normal((*shape, 3), dtype=np.float32), (0, 0), 0.8) * 1.6
        tiles.append(np.rint(grey + colour).astype(np.int16))
    return tiles
