"""The report's plots as SVG: sharp at any size, coloured by the page's style sheet, readable aloud.

Every number is drawn by us and every word is escaped, so that the result is safe to embed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from labelmill.datasets.report.data import ROUTES, Regions
from labelmill.datasets.tables import NG, Route

WIDTH = 620
"""Width of every plot in its own units; the page scales it."""

BINS = 44
CLASS_COLOURS = 8
"""How many classes have a colour of their own in the style sheet: `c0` to `c7`."""

Counts = npt.NDArray[np.int64]


def compact(number: float) -> str:
    """A count for people: 1,234 or 1.2 M."""
    if abs(number) >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number:,.0f}"


def _rect(x: float, y: float, w: float, h: float, style: str, title: str = "") -> Markup:
    shape = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"').format(
        style, *(f"{value:.2f}" for value in (x, y, max(w, 0), max(h, 0)))
    )
    return shape + (Markup("><title>{}</title></rect>").format(title) if title else Markup("/>"))


def _text(x: float, y: float, text: str, style: str = "tick", anchor: str = "middle") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, f"{x:.1f}", f"{y:.1f}", anchor, text
    )


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        style, *(f"{value:.2f}" for value in (x1, y1, x2, y2))
    )


def _svg(height: float, title: str, parts: list[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        WIDTH, f"{height:.0f}", title
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def nice_step(span: float, ticks: int) -> float:
    """A round distance between ticks: 1, 2 or 5 times a power of ten."""
    if span <= 0:
        return 1.0
    raw = span / max(ticks, 1)
    power = 10.0 ** np.floor(np.log10(raw))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= raw * 0.999))


def histogram(regions: Regions, lambda_: float | None) -> Markup:
    """Similarities of all regions to their nearest class, stacked by route, with λ marked."""
    height, left, right, top, bottom = 264.0, 40.0, 8.0, 26.0, 40.0
    known = np.isfinite(regions.similarity)
    values = regions.similarity[known]
    marks = [lambda_] if lambda_ is not None else []
    low = float(min([*values[:1], *marks, values.min(initial=1.0)], default=0.0))
    high = float(max([*values[:1], *marks, values.max(initial=-1.0)], default=1.0))
    pad = max(0.02, (high - low) * 0.04)
    low, high = max(-1.0, low - pad), min(1.0, high + pad)
    edges = np.linspace(low, high, BINS + 1)
    stacks = np.stack(
        [np.histogram(values[regions.route[known] == code], edges)[0] for code in range(len(ROUTES))]
    )
    most = max(int(stacks.sum(axis=0).max(initial=0)), 1)

    def x_of(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - right)

    def y_of(count: float) -> float:
        return height - bottom - count / most * (height - top - bottom)

    parts = _count_axis(most, y_of, left, WIDTH - right)
    step = nice_step(high - low, 7)
    for tick in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step:
        parts.append(_text(x_of(float(tick)), height - bottom + 18, f"{round(float(tick), 9) + 0:.10g}"))
    for number in range(BINS):
        base = 0
        for code in (2, 1, 0):  # NG at the foot
            count = int(stacks[code, number])
            if count:
                x1, x2 = x_of(edges[number]), x_of(edges[number + 1])
                title = f"{ROUTES[code]}: {count:,} at {edges[number]:.3f} to {edges[number + 1]:.3f}"
                y = y_of(base + count)
                parts.append(_rect(x1 + 0.5, y, x2 - x1 - 1.0, y_of(base) - y, f"r-{ROUTES[code]}", title))
            base += count
    parts.append(_line(left, y_of(0), WIDTH - right, y_of(0), "axis"))
    if lambda_ is not None:
        x = x_of(lambda_)
        parts.append(_line(x, top - 8, x, y_of(0), "lambda"))
        near_end = x > WIDTH - 120
        parts.append(
            _text(
                x + (-7 if near_end else 7),
                top + 3,
                f"λ = {lambda_:.3f}",
                "lambda-text",
                "end" if near_end else "start",
            )
        )
    parts.append(
        _text((left + WIDTH - right) / 2, height - 4, "cosine similarity to the nearest class", "label")
    )
    return _svg(height, "Similarity histogram, stacked by route", parts)


def _count_axis(most: int, y_of: Callable[[float], float], left: float, right: float) -> list[Markup]:
    parts: list[Markup] = []
    step = max(1.0, nice_step(most, 4))
    for tick in np.arange(0, most + 1e-9, step):
        y = y_of(float(tick))
        parts.append(_line(left, y, right, y, "grid"))
        parts.append(_text(left - 7, y + 4, compact(tick), anchor="end"))
    return parts


@dataclass(frozen=True)
class Timeline:
    """Counts over the time of one source.

    Attributes:
        source: Its name.
        svg: The plot.
        bin_s: Seconds of one bar.
    """

    source: str
    svg: Markup
    bin_s: float


def timelines(
    regions: Regions,
    span_s: dict[str, tuple[float, float]],
    events: tuple[tuple[float, float, str], ...] = (),
    *,
    most: int = 4,
) -> list[Timeline]:
    """Counts of labels over time, for the sources with the most regions.

    Args:
        regions: All of them.
        span_s: First and last time of each source.
        events: True events (start, end, name), drawn below the first source.
        most: Largest number of sources.
    """
    per_source = np.bincount(regions.source, minlength=len(regions.sources))
    chosen = sorted(np.argsort(-per_source, kind="stable")[:most].tolist())
    plots: list[Timeline] = []
    for number in chosen:
        name = regions.sources[number]
        start, end = span_s.get(name, (0.0, 0.0))
        if end <= start:
            continue  # still images have no time
        rows = np.flatnonzero(regions.source == number)
        plots.append(_timeline(regions, rows, name, (start, end), events if not plots else ()))
    return plots


def _timeline(
    regions: Regions,
    rows: Counts,
    name: str,
    span: tuple[float, float],
    events: tuple[tuple[float, float, str], ...],
) -> Timeline:
    left, right, top = 40.0, 8.0, 12.0
    start, end = span
    bin_s = max(1.0, float(np.ceil((end - start) / 96)))
    count = max(1, int(np.ceil((end - start + 1e-9) / bin_s)))
    bins = np.clip(((regions.timestamp_s[rows] - start) / bin_s).astype(np.int64), 0, count - 1)
    accepted = regions.route[rows] == ROUTES.index(Route.ACCEPTED.value)
    classes = [n for n, word in enumerate(regions.classes) if word != NG]
    up = np.stack(
        [np.bincount(bins[accepted & (regions.label[rows] == n)], minlength=count) for n in classes]
        or [np.zeros(count, np.int64)]
    )
    down = np.stack(
        [
            np.bincount(bins[regions.route[rows] == ROUTES.index(route)], minlength=count)
            for route in ("review", "ng")
        ]
    )
    above, below, lane = 134.0 if up.any() else 12.0, 58.0, 24.0 if events else 0.0
    most_up, most_down = max(int(up.sum(axis=0).max()), 1), max(int(down.sum(axis=0).max()), 1)
    zero = top + above
    bar = (WIDTH - left - right) / (count * bin_s) * bin_s

    def x_of(time_s: float) -> float:
        return left + (time_s - start) / (count * bin_s) * (WIDTH - left - right)

    parts: list[Markup] = []
    if up.any():
        parts = _count_axis(most_up, lambda value: zero - value / most_up * above, left, WIDTH - right)
    parts.append(_text(left - 7, zero + below + 4, compact(most_down), anchor="end"))
    for number in range(count):
        x = x_of(start + number * bin_s)
        when = f"{start + number * bin_s:.0f} to {start + (number + 1) * bin_s:.0f} s"
        base = 0.0
        for place, code in enumerate(classes):
            value = int(up[place, number])
            if value:
                tall = value / most_up * above
                title = f"{regions.classes[code]}: {value:,} accepted, {when}"
                parts.append(
                    _rect(x + 0.6, zero - base - tall, bar - 1.2, tall, f"c{place % CLASS_COLOURS}", title)
                )
                base += tall
        base = 2.0
        for place, route in enumerate(("review", "ng")):
            value = int(down[place, number])
            if value:
                tall = value / most_down * (below - 2)
                parts.append(
                    _rect(x + 0.6, zero + base, bar - 1.2, tall, f"r-{route}", f"{route}: {value:,}, {when}")
                )
                base += tall
    parts.append(_line(left, zero, WIDTH - right, zero, "axis"))
    foot = zero + below + 6
    for first, last, word in events:
        x1, x2 = x_of(first), min(x_of(last), WIDTH - right)
        parts.append(_rect(x1, foot, max(x2 - x1, 2), 15, "event", f"{word}: {first:.1f} to {last:.1f} s"))
        if x2 - x1 > 7.0 * len(word):
            parts.append(_text((x1 + x2) / 2, foot + 11.5, word, "event-text"))
    if events:
        parts.append(_text(left - 7, foot + 11.5, "truth", anchor="end"))
    foot += lane
    step = nice_step(end - start, 7)
    for tick in np.arange(np.ceil(start / step), np.floor(end / step) + 1) * step:
        parts.append(_text(x_of(float(tick)), foot + 14, _clock(float(tick), end)))
    return Timeline(name, _svg(foot + 20, f"Regions over time in {name}", parts), bin_s)


def _clock(time_s: float, end_s: float) -> str:
    if end_s < 120:
        return f"{time_s:.10g} s"
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if end_s >= 3600 else f"{minutes}:{seconds:02d}"


def shares(row: dict[str, int], most: int) -> Markup:
    """A bar of routes whose whole length is the row's part of the largest row."""
    total = sum(row.values())
    width = 100 * total / max(most, 1)
    parts = [Markup('<span class="bar" style="width:{}%">').format(f"{max(width, 0.6 if total else 0):.2f}")]
    for route in ROUTES:
        if row.get(route, 0):
            part = 100 * row[route] / total
            parts.append(
                Markup('<i class="b-{}" style="width:{}%" title="{}"></i>').format(
                    route, f"{part:.2f}", f"{route}: {row[route]:,}"
                )
            )
    return Markup("").join([*parts, Markup("</span>")])
