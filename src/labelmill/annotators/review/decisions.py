"""From everything that people answered to the decisions that count: a pure function of the ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from labelmill.annotators.review.consensus import settle
from labelmill.annotators.review.label_config import NOT_SURE
from labelmill.annotators.review.ledger import BOX_OR_NULL, TIME, Row
from labelmill.files import digest_text

SOURCE = "label-studio"

DECISIONS = pa.schema(
    [
        ("decision_id", pa.string()),
        ("region_id", pa.string()),
        ("label", pa.string()),  # a class, NG or "not sure"
        ("xyxy", BOX_OR_NULL),  # the corrected box, pixels of the frame; null where it was right
        ("annotator", pa.string()),
        ("decided_at", TIME),
        ("seconds", pa.float64()),  # spent on it; a group's time is divided among its crops
        ("source", pa.string()),
        ("agreement", pa.float64()),  # share of the annotators that gave the common answer; null with one
        (
            "superseded",
            pa.bool_(),
        ),  # does not count: replaced, outvoted, in dispute, no class of the line, or withdrawn
    ]
)
"""One row for each annotation and region, in the order of `decided_at`."""


@dataclass(slots=True)
class Verdicts:
    """What the ledger comes to.

    Attributes:
        table: Decisions, schema `DECISIONS`.
        labels: Region to its effective label: a class or NG.
        unsure: Regions of which everybody says "not sure".
        disputed: Regions whose annotators disagree.
        empty: Regions with answers that choose nothing.
        skipped: Regions with nothing but skips.
        refused: Members of a group whose annotator answered for one crop only.
        unknown: Labels that are none of the line's, with the number of their decisions.
        votes: For each region with a class or NG answer, annotator to answer.
    """

    table: pa.Table
    labels: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    disputed: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unknown: dict[str, int] = field(default_factory=dict)
    votes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def decided(self) -> set[str]:
        """Regions that need no further answer."""
        return set(self.labels) | self.unsure


def decide(
    ledger: Sequence[Row], answers: Collection[str], regions: Collection[str] | None = None
) -> Verdicts:
    """Work out the decisions.

    Of one annotator, the latest answer about a region counts; an answer given to the region itself goes
    before one given to its group. Several annotators settle it together (`consensus.settle`). Answers that
    do not count keep their row, marked superseded.

    Args:
        ledger: Everything answered, oldest pull first.
        answers: What the page offers: the line's classes, NG and not sure.
        regions: Those of the run; what was said about others waits, marked superseded, until they return.
            None takes every region.
    """
    latest: dict[tuple[str, int], Row] = {}
    for row in ledger:
        latest[row["origin"], row["annotation"]] = row
    verdicts = Verdicts(DECISIONS.empty_table())
    says: dict[str, list[tuple[Row, bool]]] = {}  # region: (row, whether it was asked itself)
    for row in latest.values():
        if row["retracted"]:
            continue
        if row["skipped"]:
            verdicts.skipped.add(row["region_id"])
        elif row["label"] is None:
            verdicts.empty.add(row["region_id"])
        elif row["label"] not in answers:
            verdicts.unknown[row["label"]] = verdicts.unknown.get(row["label"], 0) + 1
            verdicts.empty.add(row["region_id"])
        else:
            says.setdefault(row["region_id"], []).append((row, True))
            if row["group"]:
                for member in row["members"]:
                    says.setdefault(member, []).append((row, False))
            elif row["members"]:
                verdicts.refused.update(row["members"])

    standing: set[tuple[str, int]] = set()  # region and row that count
    agreements: dict[str, float | None] = {}
    for region, said in says.items():
        votes: dict[str, Row] = {}
        for row, _ in sorted(said, key=lambda item: (item[1], item[0]["updated_at"], item[0]["annotation"])):
            votes[row["annotator"]] = row
        if any(direct for _, direct in said):
            asked = {row["annotator"] for row, direct in said if direct}
            votes = {person: row for person, row in votes.items() if person in asked}
        spoken = {person: str(row["label"]) for person, row in votes.items()}
        answer, agreements[region] = settle(spoken)
        verdicts.votes[region] = spoken
        if answer is None:
            verdicts.disputed.add(region)
        elif answer == NOT_SURE:
            verdicts.unsure.add(region)
        else:
            verdicts.labels[region] = answer
        for row in votes.values():
            if row["label"] == answer and (regions is None or region in regions):
                standing.add((region, id(row)))
    verdicts.empty -= set(says)
    verdicts.skipped -= set(says) | verdicts.empty
    verdicts.table = _table(ledger, standing, agreements)
    return verdicts


def _table(
    ledger: Sequence[Row],
    standing: Collection[tuple[str, int]],
    agreements: dict[str, float | None],
) -> pa.Table:
    rows = {}
    for row in ledger:
        if row["skipped"] or row["label"] is None or row["retracted"]:
            continue
        regions = [row["region_id"], *(row["members"] if row["group"] else ())]
        for region in regions:
            stamp = row["updated_at"].isoformat()
            number = digest_text(row["origin"], str(row["annotation"]), stamp, region, hex_digits=32)
            rows[number] = {
                "decision_id": number,
                "region_id": region,
                "label": row["label"],
                "xyxy": row["xyxy"] if region == row["region_id"] else None,
                "annotator": row["annotator"],
                "decided_at": row["updated_at"],
                "seconds": row["seconds"] / len(regions),
                "source": SOURCE,
                "agreement": agreements.get(region),
                "superseded": (region, id(row)) not in standing,
            }
    ordered = sorted(rows.values(), key=lambda row: (row["decided_at"], row["decision_id"]))
    return pa.Table.from_pylist(ordered, schema=DECISIONS)
