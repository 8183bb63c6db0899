"""What people should be asked: the review regions of a run, grouped and ordered, as tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmill.annotators.review import priority
from labelmill.annotators.review.config import ReviewConfig
from labelmill.annotators.review.decisions import Verdicts
from labelmill.annotators.review.grouping import group
from labelmill.annotators.review.tasks import Question, prediction, task_data
from labelmill.annotators.similarity import nearest_view
from labelmill.annotators.templates import TemplateBank
from labelmill.datasets.review.pictures import FramePictures, Pictures, Served
from labelmill.datasets.tables import NG, Route
from labelmill.errors import ReviewError

Rows = npt.NDArray[np.float32]
_AUDIT = "drawn at random for an audit"


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a run knows about its regions.

    Attributes:
        regions: Schema `tables.REGIONS`.
        frame_wh: Source digest and frame index to width and height, pixels.
        rows: Embeddings of length 1 in the order of `regions`, shape (n, dim).
        bank: The embedded templates.
        threshold: λ.
    """

    regions: pa.Table
    frame_wh: Mapping[tuple[str, int], tuple[int, int]]
    rows: Rows
    bank: TemplateBank
    threshold: float

    def __post_init__(self) -> None:
        if len(self.rows) != self.regions.num_rows:
            raise ValueError(f"expected {self.regions.num_rows} embeddings, got {len(self.rows)}")


@dataclass(frozen=True, slots=True)
class Ask:
    """A region to be asked about.

    Attributes:
        row: Its row in the regions table.
        members: Rows of the other crops of its group.
        value: Its place in the queue.
        audit: Whether it was drawn at random.
    """

    row: int
    members: tuple[int, ...]
    value: float
    audit: bool


def evidence(material: Material, labels: Mapping[str, str]) -> priority.Evidence:
    """Everything whose label is known: templates, and decided regions."""
    classes = material.bank.classes
    names = [classes[owner] if owner >= 0 else NG for owner in material.bank.owners.tolist()]
    ids = material.regions["region_id"].to_pylist()
    decided = [row for row, region in enumerate(ids) if region in labels]
    rows = np.concatenate([material.bank.embeddings, material.rows[decided]])
    return priority.Evidence(rows, (*names, *(labels[ids[row]] for row in decided)))


def choose(
    material: Material,
    verdicts: Verdicts,
    review: ReviewConfig,
    asked: Mapping[str, Sequence[str]],
    open_: Collection[str],
) -> list[Ask]:
    """Pick, group and order what people should be asked.

    Args:
        material: The run.
        verdicts: What people said so far.
        review: The line's `review`.
        asked: Regions that have a task already, with the other regions of its group: they keep it.
        open_: Those of them whose task is open: they stay in the queue whatever its length.

    Returns:
        The most valuable first.
    """
    ids = material.regions["region_id"].to_pylist()
    routes = material.regions["route"].to_pylist()
    audits = {
        row
        for row, (region, route) in enumerate(zip(ids, routes, strict=True))
        if route != Route.REVIEW and priority.lot(region, review.seed) < review.audit_share
    }
    decided = verdicts.decided
    rows = [
        row
        for row, (region, route) in enumerate(zip(ids, routes, strict=True))
        if region not in decided and (route == Route.REVIEW or row in audits)
    ]
    if not rows:
        return []
    labels = [material.regions["label"][row].as_py() for row in rows]
    value = priority.values(
        material.rows[rows], labels, evidence(material, verdicts.labels), material.threshold
    )
    for place, row in enumerate(rows):
        if row in audits:
            value[place] = priority.lot(ids[row], review.seed + 1)
    alone = verdicts.refused | verdicts.disputed | verdicts.empty | {ids[row] for row in audits}
    place_of = {ids[row]: place for place, row in enumerate(rows)}
    groups = group(
        material.rows[rows],
        labels,
        np.argsort(-value, kind="stable").tolist(),
        similarity=review.group_similarity,
        prior={
            place_of[region]: [place_of[member] for member in members if member in place_of]
            for region, members in asked.items()
            if region in place_of
        },
        alone=[place for place, row in enumerate(rows) if ids[row] in alone],
    )
    asks = [
        Ask(rows[head], tuple(rows[member] for member in members), float(value[head]), rows[head] in audits)
        for head, members in groups.items()
    ]
    asks.sort(key=lambda ask: (-ask.value, ids[ask.row]))
    room = review.max_queue - sum(ids[ask.row] in open_ for ask in asks)
    chosen = []
    for ask in asks:
        if ids[ask.row] in open_:
            chosen.append(ask)
        elif room > 0:
            room -= 1
            chosen.append(ask)
    return chosen


def best_templates(material: Material, rows: Sequence[int]) -> list[tuple[int, int]]:
    """The template of the nearest class that is most similar to each region, and that of the runner-up.

    Returns:
        Row numbers in the template bank; -1 where there is no such template.
    """
    if not rows:
        return []
    bank = material.bank
    owner = {name: number for number, name in enumerate(bank.classes)} | {NG: -1}
    cosines = nearest_view(material.rows[list(rows)], (bank.embeddings, *bank.turned))
    found = []
    for place, row in enumerate(rows):
        pair = []
        for column in ("nearest", "runner_up"):
            name = material.regions[column][row].as_py()
            own = (
                np.flatnonzero(bank.owners == owner[name]) if name in owner else np.array([], dtype=np.int64)
            )
            pair.append(int(own[np.argmax(cosines[place, own])]) if len(own) else -1)
        found.append((pair[0], pair[1]))
    return found


def build_tasks(
    material: Material,
    asks: Sequence[Ask],
    verdicts: Verdicts,
    answers: Sequence[str],
    pictures: Pictures,
    frames: FramePictures,
    served: Served,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Make the tasks.

    Returns:
        Region id to its task, in the order of the queue, and the digests of every picture that they show.

    Raises:
        ReviewError: A region does not fit the labelling page, or its frame is unknown.
    """
    regions = material.regions
    rows = [ask.row for ask in asks]
    columns = ("source", "source_digest", "frame_index")
    keys = [(regions["source_digest"][row].as_py(), regions["frame_index"][row].as_py()) for row in rows]
    first = dict(zip(keys, rows, strict=True))
    table = regions.select(columns).take(pa.array(list(first.values()), pa.int64()))
    table = table.sort_by([(name, "ascending") for name in columns])
    names = zip(table["source_digest"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
    stored = frames(table, lambda done, total: progress(done, total, "storing frames")) if rows else ()
    frame_of = dict(zip(names, stored, strict=True))
    tasks: dict[str, dict[str, Any]] = {}
    shown: set[str] = set()
    for done, (ask, key, best) in enumerate(
        zip(asks, keys, best_templates(material, rows), strict=True), start=1
    ):
        region = {name: regions[name][ask.row].as_py() for name in regions.column_names}
        if key not in material.frame_wh:
            raise ReviewError(
                f"the frame of region {region['region_id']} is unknown", do="run `labelmill annotate` again"
            )
        crops = [region["crop_digest"], *(regions["crop_digest"][row].as_py() for row in ask.members)]
        used = [
            crops[0],
            frame_of[key],
            *(pictures.template(n) if n >= 0 else pictures.notice("no template") for n in best),
            pictures.sheet(crops),
        ]
        shown.update(used)
        crop, frame, template_1, template_2, sheet = (served.address(digest) for digest in used)
        question = Question(
            region_id=region["region_id"],
            crop=crop,
            frame=frame,
            frame_wh=material.frame_wh[key],
            xyxy=tuple(region["xyxy"]),
            templates=(template_1, template_2),
            group_sheet=sheet,
            nearest=region["nearest"],
            runner_up="NG template" if region["runner_up"] == NG else region["runner_up"],
            label=region["label"],
            similarity=region["similarity"],
            margin=region["margin"],
            threshold=material.threshold,
            reason=_AUDIT if ask.audit else region["reason"],
            members=tuple(regions["region_id"][row].as_py() for row in ask.members),
            value=ask.value,
            note=_note(region["region_id"], verdicts),
        )
        tasks[question.region_id] = {
            "data": task_data(question),
            "predictions": [prediction(question, answers)],
        }
        progress(done, len(asks), "preparing tasks")
    return tasks, shown


def _note(region: str, verdicts: Verdicts) -> str:
    if region not in verdicts.disputed:
        return ""
    return "annotators disagree: " + ", ".join(sorted(set(verdicts.votes[region].values())))
