"""What happens on the bench, and when: visits of hands and distractions, decided by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, pairwise

import numpy as np

from labelmill.datasets.sample.bench import BINS, PX_PER_CM, SLOTS, WH_PX

Point = tuple[float, float]

HELD_AHEAD_CM = 3.5
"""How far in front of the finger tips a held part's middle lies."""

_TIDY_S = 1e9  # a part that nobody takes


@dataclass(frozen=True)
class Lying:
    """A part on the bench between two moments."""

    kind: str
    xy: Point
    angle_rad: float
    from_s: float
    until_s: float


@dataclass(frozen=True)
class Moment:
    """What a hand does at one time; between two moments it moves smoothly.

    Attributes:
        time_s: From the start of the video.
        xy: Of the finger tips, pixels of the frame.
        grip: See `hand.Pose`.
        lift_cm: Height above the bench.
    """

    time_s: float
    xy: Point
    grip: float
    lift_cm: float


@dataclass(frozen=True)
class Visit:
    """One hand coming in, doing something and leaving.

    Attributes:
        name: "take", "place", "move" or "check".
        moments: The way of the hand.
        shoulder: Where the arm comes from, outside the picture.
        worker: Index into `hand.WORKERS`.
        left: Whether it is a left hand.
        size: Scale of this hand, about 1.
        spread: See `hand.Pose`.
        wrist_rad: How far the hand is turned from the line of the arm.
        arc_px: How far its way bows to the side.
        part: Kind of the part that it holds for a while; empty for none.
        part_angle_rad: The part's angle when it is gripped or released.
        held_s: From when until when it holds the part.
        changes_s: Moments of gripping and releasing.
    """

    name: str
    moments: tuple[Moment, ...]
    shoulder: Point
    worker: int
    left: bool
    size: float
    spread: float
    wrist_rad: float
    arc_px: float
    part: str
    part_angle_rad: float
    held_s: tuple[float, float]
    changes_s: tuple[float, ...]

    @property
    def start_s(self) -> float:
        """When the hand is about to come in."""
        return self.moments[0].time_s

    @property
    def end_s(self) -> float:
        """When it is out again."""
        return self.moments[-1].time_s


@dataclass(frozen=True)
class HandState:
    """A hand at one time; see `Visit` and `Moment` for the fields."""

    xy: Point
    angle_rad: float
    grip: float
    lift_cm: float
    holds: bool


@dataclass(frozen=True)
class Distraction:
    """Something that moves or changes and is no hand: "shadow", "cart", "ball", "blink" or "flicker"."""

    name: str
    start_s: float
    end_s: float
    forward: bool
    strength: float

    def progress(self, time_s: float) -> float:
        """0 at its start, 1 at its end."""
        return (time_s - self.start_s) / (self.end_s - self.start_s)


@dataclass(frozen=True)
class Script:
    """Everything that happens."""

    visits: tuple[Visit, ...]
    distractions: tuple[Distraction, ...]
    lying: tuple[Lying, ...]


def smooth(t: float) -> float:
    """From 0 to 1 with the least jerk, as reaching hands do (Flash and Hogan, 1985)."""
    t = min(max(t, 0.0), 1.0)
    return t * t * t * (10 + t * (6 * t - 15))


def aim(shoulder: Point, xy: Point) -> float:
    """Angle of an arm from its shoulder to a point: 0 points down, positive is clockwise."""
    return float(np.arctan2(shoulder[0] - xy[0], xy[1] - shoulder[1]))


def direction(angle_rad: float) -> Point:
    """Unit vector of an angle as in `aim`."""
    return -float(np.sin(angle_rad)), float(np.cos(angle_rad))


def hand_at(visit: Visit, time_s: float) -> HandState | None:
    """The hand of a visit at one time; None before and after."""
    if not visit.start_s <= time_s < visit.end_s:
        return None
    before, after = next(pair for pair in pairwise(visit.moments) if time_s < pair[1].time_s)
    t = smooth((time_s - before.time_s) / (after.time_s - before.time_s))
    dx, dy = after.xy[0] - before.xy[0], after.xy[1] - before.xy[1]
    length = float(np.hypot(dx, dy))
    bow = visit.arc_px * 4 * t * (1 - t) * min(1.0, length / 150)
    side = (-dy / length, dx / length) if length > 1 else (0.0, 0.0)
    xy = (before.xy[0] + dx * t + side[0] * bow, before.xy[1] + dy * t + side[1] * bow)
    sway = 0.05 * float(np.sin(2.1 * time_s + visit.shoulder[0]))
    return HandState(
        xy=xy,
        angle_rad=aim(visit.shoulder, xy) + visit.wrist_rad + sway,
        grip=before.grip + (after.grip - before.grip) * t,
        lift_cm=before.lift_cm + (after.lift_cm - before.lift_cm) * t,
        holds=visit.held_s[0] <= time_s < visit.held_s[1],
    )


@dataclass
class _Stock:
    """Which parts lie where while the script is being written."""

    rng: np.random.Generator
    open: list[Lying] = field(default_factory=list)
    closed: list[Lying] = field(default_factory=list)

    def lay(self, kind: str, xy: Point, angle_rad: float, time_s: float) -> None:
        self.open.append(Lying(kind, xy, angle_rad, time_s, _TIDY_S))

    def take(self, part: Lying, time_s: float) -> None:
        self.open.remove(part)
        self.closed.append(Lying(part.kind, part.xy, part.angle_rad, part.from_s, time_s))

    def on_mat(self) -> list[Lying]:
        return [part for part in self.open if part.xy in SLOTS]

    def in_bins(self) -> list[Lying]:
        return [part for part in self.open if part.xy not in SLOTS]

    def free_slots(self) -> list[Point]:
        taken = {part.xy for part in self.open}
        return [slot for slot in SLOTS if slot not in taken]

    def fill_bin(self, index: int, time_s: float) -> None:
        tray = BINS[index]
        x, y = np.array(tray.xy) + self.rng.uniform(-1, 1, 2) * (np.array(tray.half_wh) - 28)
        self.lay(tray.kind, (float(x), float(y)), float(self.rng.uniform(0, 2 * np.pi)), time_s)


def write_script(seed: Sequence[int], duration_s: float) -> Script:
    """Decide what happens within a time; the same seed gives the same script."""
    rng = np.random.default_rng(list(seed))
    stock = _Stock(rng)
    for index in range(len(BINS)):
        for _ in range(3):
            stock.fill_bin(index, -1.0)
    for tray, slot in zip(BINS, rng.permutation(len(SLOTS)), strict=False):
        stock.lay(tray.kind, SLOTS[int(slot)], float(rng.uniform(0, 2 * np.pi)), -1.0)

    visits: list[Visit] = []
    time_s = float(rng.uniform(0.9, 1.6))
    names = cycle(["take", "place", "move", "take", "place", "check", "move", "place"])
    for _ in range(int(rng.integers(3))):
        next(names)
    while time_s < duration_s:
        visit = _visit(rng, stock, next(names), time_s, turn=len(visits))
        visits.append(visit)
        time_s = visit.end_s + float(rng.uniform(0.5, 1.9))
    return Script(tuple(visits), _distractions(rng, duration_s), tuple(stock.closed + stock.open))


def _distractions(rng: np.random.Generator, duration_s: float) -> tuple[Distraction, ...]:
    lasting = {"cart": 5.0, "blink": 4.0, "shadow": 2.6, "ball": 3.2, "flicker": 1.6}
    found: list[Distraction] = []
    time_s = float(rng.uniform(0.2, 0.8))
    while time_s < duration_s:
        for name in rng.permutation(list(lasting)):
            length = lasting[str(name)] * float(rng.uniform(0.85, 1.2))
            forward, strength = bool(rng.random() < 0.5), float(rng.uniform(0.7, 1.0))
            found.append(Distraction(str(name), time_s, time_s + length, forward, strength))
            time_s += length * float(rng.uniform(0.5, 0.9)) + float(rng.uniform(0.1, 0.8))
    return tuple(found)


def _shoulder(rng: np.random.Generator, targets: list[Point]) -> Point:
    """Where an arm comes from: above the picture, or the side that its targets are near."""
    x = float(np.mean([target[0] for target in targets]))
    y = float(np.mean([target[1] for target in targets]))
    wide = max(target[0] for target in targets) - min(target[0] for target in targets)
    if wide < 200 and rng.random() < 0.15:
        outside = -210.0 if x < WH_PX[0] / 2 else WH_PX[0] + 210.0
        return outside, y + float(rng.uniform(-150, 60))
    return x + float(rng.uniform(-80, 80)), float(rng.uniform(-290, -210))


def _outside(shoulder: Point, target: Point) -> Point:
    """A point on the line from shoulder to target at which the hand cannot be seen."""
    margin = 42.0
    dx, dy = target[0] - shoulder[0], target[1] - shoulder[1]
    if shoulder[1] < -200:
        t = (-margin - shoulder[1]) / dy
    else:
        edge = -margin if shoulder[0] < 0 else WH_PX[0] + margin
        t = (edge - shoulder[0]) / dx
    return shoulder[0] + t * dx, shoulder[1] + t * dy


def _tips(shoulder: Point, wrist_rad: float, part_xy: Point) -> Point:
    """Where the finger tips are when they hold a part that lies at `part_xy`."""
    ahead = direction(aim(shoulder, part_xy) + wrist_rad)
    return (
        part_xy[0] - ahead[0] * HELD_AHEAD_CM * PX_PER_CM,
        part_xy[1] - ahead[1] * HELD_AHEAD_CM * PX_PER_CM,
    )


def _pick(rng: np.random.Generator, parts: list[Lying], wanted: str) -> Lying:
    choice = [part for part in parts if part.kind == wanted] or parts
    return choice[int(rng.integers(len(choice)))]


def _visit(rng: np.random.Generator, stock: _Stock, name: str, start_s: float, turn: int) -> Visit:
    mat, free = stock.on_mat(), stock.free_slots()
    if name == "take" and not mat:
        name = "place"
    if name in ("place", "move") and not free:
        name = "take"
    wanted = BINS[turn % len(BINS)].kind
    fetched: Lying | None = None
    slot: Point | None = None
    if name == "take":
        fetched = _pick(rng, mat, wanted)
    elif name == "move":
        fetched = _pick(rng, stock.in_bins(), wanted)
    if name in ("place", "move"):
        slot = free[int(rng.integers(len(free)))]
    hover = (float(rng.uniform(300, 520)), float(rng.uniform(110, 220)))
    targets = [xy for xy in (fetched.xy if fetched else None, slot) if xy] or [hover]
    shoulder = _shoulder(rng, targets)
    wrist = float(rng.normal(0, 0.12))

    way: list[Moment] = []
    changes: list[float] = []
    now = start_s
    loaded = name == "place"

    def go(seconds: float, xy: Point, grip: float, lift_cm: float) -> None:
        nonlocal now
        now += seconds * float(rng.uniform(0.85, 1.2))
        way.append(Moment(now, xy, grip, lift_cm))

    part = fetched.kind if fetched else (wanted if loaded else "")
    angle = fetched.angle_rad if fetched else float(rng.uniform(0, 2 * np.pi))
    go(0.0, _outside(shoulder, targets[0]), 0.95 if loaded else float(rng.uniform(0, 0.2)), 7.0)
    if fetched:
        tips = _tips(shoulder, wrist, fetched.xy)
        go(1.15, tips, float(rng.uniform(0.0, 0.2)), 1.6)
        go(0.34, tips, 1.0, 0.3)
        changes.append(now)
        stock.take(fetched, now)
        if name == "move":
            stock.fill_bin([tray.kind for tray in BINS].index(fetched.kind), now + 60)
        go(0.18, tips, 1.0, 0.3)
    if slot:
        tips = _tips(shoulder, wrist, slot)
        go(1.15, tips, 1.0, 1.2)
        go(0.2, tips, 1.0, 0.3)
        changes.append(now)
        stock.lay(part, slot, angle, now)
        go(0.24, tips, float(rng.uniform(0.0, 0.15)), 1.6)
    if name == "check":
        go(1.1, hover, 0.1, 3.0)
        go(0.9, (hover[0] + 26, hover[1] + 12), 0.2, 2.4)
    last = slot or targets[0]
    go(1.1, _outside(shoulder, last), 1.0 if name == "take" else float(rng.uniform(0, 0.2)), 7.0)
    held = (changes[0] if fetched else start_s, changes[-1] if slot else now) if part else (now, now)
    return Visit(
        name=name,
        moments=tuple(way),
        shoulder=shoulder,
        worker=int(rng.integers(2)),
        left=bool(rng.random() < 0.4),
        size=float(rng.uniform(0.95, 1.07)),
        spread=float(rng.choice([1.0, 1.3])),
        wrist_rad=wrist,
        arc_px=float(rng.uniform(-26, 26)),
        part=part,
        part_angle_rad=angle,
        held_s=held,
        changes_s=tuple(changes),
    )
