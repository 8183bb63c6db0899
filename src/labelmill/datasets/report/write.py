"""Putting the report together."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from labelmill import __version__
from labelmill.datasets.report import charts, score
from labelmill.datasets.report.data import ROUTES, RunTables, read_run
from labelmill.datasets.report.frames import show_frames
from labelmill.datasets.report.gallery import Tile, make_galleries, thumbnail
from labelmill.datasets.tables import NG, Status
from labelmill.datasets.workspace import Workspace
from labelmill.errors import WorkspaceError
from labelmill.files import disk_errors, write_bytes

STAGES = {
    "decode": "reading frames",
    "select": "dropping repeats",
    "propose": "finding regions",
    "encode": "embedding crops",
    "match": "matching and routing",
    "join": "writing tables",
}
"""What the engine's stages do, for people, in their order."""


@dataclass(frozen=True)
class Group:
    """Crops that look alike and have no name yet.

    Attributes:
        name: Name of their folder.
        total: How many regions look like them.
        crops: Some of them: image files.
    """

    name: str
    total: int
    crops: tuple[Path, ...]


@dataclass(frozen=True)
class Step:
    """Something to do next.

    Attributes:
        what: In words.
        command: On the command line.
    """

    what: str
    command: str


def write_report(
    workspace: Workspace,
    out: Path,
    *,
    title: str,
    lam: float | None = None,
    timings: Mapping[str, float] | None = None,
    truth: Path | None = None,
    base: Path | None = None,
    facts: Mapping[str, str] | None = None,
    groups: Sequence[Group] = (),
    steps: Sequence[Step] = (),
    crops: int = 24,
) -> Path:
    """Write one self-contained HTML file about the last run in a workspace.

    Args:
        workspace: With the tables of a finished run.
        out: The file to write.
        title: Its heading.
        lam: λ; None takes the run's own, from its summary.
        timings: Seconds per stage; None takes the run's own.
        truth: File of true boxes to score against, see `score.read_truth`; for runs with one source.
        base: Folder that the names of sources are relative to, to show frames; None: the current one.
        facts: More to say about what was run: name and value.
        groups: Suggested classes, where there are no templates yet.
        steps: What to do next.
        crops: Largest number of crops in a gallery.

    Returns:
        `out`.

    Raises:
        WorkspaceError: A table is absent or broken, or `out` cannot be written.
        SourceError: `truth` holds no true boxes.
    """
    run = read_run(workspace)
    matched = bool(np.isfinite(run.regions.similarity).any())
    lam = (_lambda(run.summary) if matched else None) if lam is None else lam
    known = score.read_truth(truth) if truth is not None else None
    regions = run.regions
    events: tuple[tuple[float, float, str], ...] = ()
    if known is not None and len(run.frames.span_s) == 1:
        events = _events(known, run)
    context = {
        "title": title,
        "version": __version__,
        "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "python": platform.python_version(),
        "run": run,
        "lambda_": lam,
        "tiles": _headline(run),
        "counts": _counts(run),
        "routes": ROUTES,
        "pictures": show_frames(workspace, regions, base),
        "histogram": charts.histogram(regions, lam) if matched else None,
        "timelines": charts.timelines(regions, run.frames.span_s, events),
        "palette": {name: n % charts.CLASS_COLOURS for n, name in enumerate(regions.classes) if name != NG},
        "galleries": make_galleries(workspace, regions, lam, most=crops),
        "groups": [(group, [_suggestion(path) for path in group.crops]) for group in groups],
        "score": score.score(workspace, known) if known is not None else None,
        "iou": score.IOU,
        "nothing": score.NOTHING,
        "stages": _stages(timings if timings is not None else run.summary.get("seconds")),
        "facts": _facts(run, workspace, lam, facts or {}),
        "steps": steps,
        "compact": charts.compact,
    }
    page = _render(context).encode("utf-8")
    with disk_errors(out.parent):
        if out.is_dir():
            raise WorkspaceError(f"{out} is a folder", expected="a file to write", do="name one with --out")
        write_bytes(out, page)
    return out


def _render(context: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(context)


def _lambda(summary: Mapping[str, Any]) -> float | None:
    found = summary.get("lambda")
    return float(found) if isinstance(found, int | float) else None


def _headline(run: RunTables) -> list[tuple[str, str, str, str]]:
    """Figures of the first row: name, figure, a word on it, and its style."""
    frames, counts = run.frames, run.regions.counts()
    routes = {route: sum(row[route] for row in counts.values()) for route in ROUTES}
    total = sum(routes.values())

    def share(part: int) -> str:
        return f"{100 * part / total:.0f} % of regions" if total else "no regions"

    kept, repeats = frames.by_status[Status.KEPT.value], frames.by_status[Status.REPEAT.value]
    unreadable = frames.by_status[Status.UNREADABLE.value]
    return [
        ("frames", charts.compact(frames.total), f"{kept:,} kept, {repeats:,} repeats", ""),
        ("NG frames", charts.compact(frames.ng_frames), "kept, nothing proposed", ""),
        (
            "unreadable",
            charts.compact(unreadable),
            f"{run.quarantined:,} quarantined",
            "bad" if unreadable else "",
        ),
        ("regions", charts.compact(total), "proposed", ""),
        ("accepted", charts.compact(routes["accepted"]), share(routes["accepted"]), "accepted"),
        ("to review", charts.compact(routes["review"]), share(routes["review"]), "review"),
        ("NG", charts.compact(routes["ng"]), share(routes["ng"]), "ng"),
    ]


def _counts(run: RunTables) -> list[tuple[str, dict[str, int], Any]]:
    counts = run.regions.counts()
    for name in run.summary.get("classes") or ():
        counts.setdefault(str(name), dict.fromkeys(ROUTES, 0))
    names = [*sorted(name for name in counts if name != NG), NG]
    most = max((sum(row.values()) for row in counts.values()), default=0)
    return [(name, counts[name], charts.shares(counts[name], most)) for name in names if name in counts]


def _stages(seconds: object) -> list[tuple[str, str, float, float]]:
    """Name, what it does, seconds and share of the longest."""
    if not isinstance(seconds, Mapping):
        return []
    spent = {str(k): float(v) for k, v in seconds.items() if isinstance(v, int | float)}
    order = [*(s for s in STAGES if s in spent), *(s for s in spent if s not in STAGES)]
    longest = max(spent.values(), default=0.0) or 1.0
    return [(stage, STAGES.get(stage, ""), spent[stage], spent[stage] / longest) for stage in order]


def _facts(
    run: RunTables, workspace: Workspace, lam: float | None, more: Mapping[str, str]
) -> list[tuple[str, str]]:
    summary = run.summary
    facts = [("line", str(summary["line"]))] if "line" in summary else []
    facts += list(more.items())
    identities = summary.get("identities")
    for part in ("selection", "proposer", "crop", "encoder", "matching"):
        settings = identities.get(part) if isinstance(identities, Mapping) else None
        if isinstance(settings, Mapping):
            facts.append((part, _settings(settings)))
    if lam is not None:
        facts.append(("λ", f"{lam:.4f}"))
    facts.append(("workspace", str(workspace.root)))
    facts.append(("labelmill", str(summary.get("labelmill", __version__))))
    facts.append(("Python", platform.python_version()))
    if "plan" in summary:
        facts.append(("plan digest", str(summary["plan"])))
    return facts


def _settings(settings: Mapping[str, Any]) -> str:
    """A part's settings in a line, its kind first."""
    words = [str(settings["kind"])] if "kind" in settings else []
    for key, value in settings.items():
        if key in ("kind", "version") or value in (None, [], ""):
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(str(item)[:12] for item in value)
        words.append(f"{key.rstrip('_')} {value}")
    return " · ".join(words)


def _events(known: score.Truth, run: RunTables) -> tuple[tuple[float, float, str], ...]:
    """True events in seconds, by the frame rate that the table shows."""
    start, end = next(iter(run.frames.span_s.values()))
    last = max(known.boxes, default=0)
    per_frame = (end - start) / last if last else 0.0
    return tuple((start + a * per_frame, start + (b + 1) * per_frame, name) for a, b, name in known.events)


def _suggestion(path: Path) -> Tile:
    image, width, height = thumbnail(path, 148)
    return Tile(image, width, height, "", "", "", "", path.name, path.name)
