"""The stages of one shard: select, propose, crop and encode, match and route.

A shard's frames are decoded once, ahead of the work and on another thread, and pass through every stage that
has no result yet. Each stage's table is written as soon as it is whole.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from labelmill.annotators.crops import cut
from labelmill.annotators.matching import match
from labelmill.annotators.routing import route
from labelmill.annotators.templates import TemplateBank
from labelmill.annotators.types import Frame
from labelmill.datasets import tables
from labelmill.datasets.bank import Makers, load_bank, resolve_lambda, resolve_review_floor
from labelmill.datasets.collectors import Crops, Proposal, Regions, Selected, known_proposals, rounded
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.media import MediaStore
from labelmill.datasets.plan import STAGES, Plan, Shard
from labelmill.datasets.prefetch import prefetch
from labelmill.datasets.shards import ShardStore, embeddings_of, table_of
from labelmill.errors import DamagedShardError
from labelmill.memory import return_free_memory, return_large_blocks

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ShardReport:
    """What computing a shard came to.

    Attributes:
        computed: Stages that were computed.
        seconds: Seconds spent in each stage; `decode` is the time spent waiting for frames.
        frames: Frames decoded.
    """

    computed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    frames: int = 0

    def spend(self, stage: str, started: float) -> float:
        """Book the time since `started` on a stage, and return the time now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - started
        return now


def run_shard(
    shard: Shard,
    plan: Plan,
    makers: Makers,
    store: ShardStore,
    media: MediaStore,
    progress: Callable[[int], None] = lambda _: None,
) -> ShardReport:
    """Compute the stages of a shard that have no result yet.

    Args:
        shard: What to compute.
        plan: The run that it belongs to.
        makers: The line's models.
        store: Where results go.
        media: Where crops go.
        progress: Called with how many of the shard's frames have passed, as they do.

    Raises:
        WorkspaceError: The disk refuses.
        LabelmillError: A model or a template cannot be used.
    """
    return_large_blocks()
    report = ShardReport()
    for attempt in range(len(STAGES) + 1):
        missing = shard.missing(store)
        if not missing:
            break
        try:
            _compute(missing, shard, plan, makers, store, media, report, progress)
        except DamagedShardError as error:  # an earlier run's; it was removed, and so is missing now
            if attempt == len(STAGES):
                raise
            _log.warning("%s; computing it anew", error.what)
    return_free_memory()
    return report


def _compute(
    missing: list[str],
    shard: Shard,
    plan: Plan,
    makers: Makers,
    store: ShardStore,
    media: MediaStore,
    report: ShardReport,
    progress: Callable[[int], None],
) -> None:
    if {"select", "propose", "encode"} & set(missing):
        _decode_pass(shard, makers, store, media, missing, report, progress)
    if "match" in missing:
        started = time.perf_counter()
        bank = load_bank(plan, makers, store)
        encoded = store.read("encode", shard.keys["encode"])
        store.write("match", shard.keys["match"], _match_table(encoded, bank, makers.config))
        report.computed.append("match")
        report.spend("match", started)


def _decode_pass(
    shard: Shard,
    makers: Makers,
    store: ShardStore,
    media: MediaStore,
    missing: list[str],
    report: ShardReport,
    progress: Callable[[int], None],
) -> None:
    passed = {(ref.source_digest, ref.index): count for count, ref in enumerate(shard.refs, start=1)}
    known = None
    if "propose" not in missing:
        known = known_proposals(store.read("propose", shard.keys["propose"]))
    selected = Selected(makers.config)
    regions = Regions()
    crops = Crops(makers.encoder, media) if "encode" in missing else None
    for frame, proposal in _proposed(shard, makers, selected, known, report):
        boxes, ids = regions.add(frame, proposal)
        if crops is not None and len(boxes):
            clock = time.perf_counter()
            crops.add(ids, cut(frame.image, boxes, makers.config.crop))
            report.spend("encode", clock)
        progress(passed[frame.source_digest, frame.index])
    if "select" in missing:
        store.write("select", shard.keys["select"], selected.table())
        report.computed.append("select")
    if "propose" in missing:
        store.write("propose", shard.keys["propose"], regions.table())
        report.computed.append("propose")
    if crops is not None:
        clock = time.perf_counter()
        store.write("encode", shard.keys["encode"], crops.table())
        report.computed.append("encode")
        report.spend("encode", clock)


def _proposed(
    shard: Shard,
    makers: Makers,
    selected: Selected,
    known: dict[tuple[str, int], Proposal] | None,
    report: ShardReport,
) -> Iterator[tuple[Frame, Proposal]]:
    """Yield each kept frame of the shard with its boxes."""
    wants_all = known is None and makers.proposer.sees_repeats
    frames = _timed(prefetch(_frames(shard, selected, wants_all=wants_all)), report)
    if known is not None:
        for frame, wanted in frames:
            proposal = known.get((frame.source_digest, frame.index))
            if wanted and proposal is not None:
                yield frame, proposal
        return
    pending: deque[tuple[Frame, bool]] = deque()

    def feed() -> Iterator[Frame]:
        for frame, wanted in frames:
            pending.append((frame, wanted))
            yield frame

    busy_s = 0.0
    clock = time.perf_counter()
    for detections in makers.proposer.propose(feed()):
        frame, wanted = pending.popleft()
        busy_s += time.perf_counter() - clock
        if wanted:
            yield frame, rounded(detections, frame)
        clock = time.perf_counter()
    busy_s += time.perf_counter() - clock
    # A proposer pulls its frames itself; the time for which it waited is booked as decoding.
    report.seconds["propose"] = max(0.0, busy_s - report.seconds.get("decode", 0.0))
    unanswered = len(pending) + sum(1 for _ in frames)
    if unanswered:
        raise RuntimeError(
            f"the proposer {makers.config.proposer.kind!r} left {unanswered} frames unanswered"
        )


def _frames(shard: Shard, selected: Selected, *, wants_all: bool) -> Iterator[tuple[Frame, bool]]:
    """Decode a shard; yield each frame that the proposer should see, and whether its boxes are wanted."""
    for number, (ref, frame) in enumerate(zip(shard.slice.refs, shard.slice.read(), strict=True)):
        own = shard.first <= number < shard.stop
        if own:
            own = selected.add(ref, frame)
        if not isinstance(frame, str) and (own or wants_all):
            yield frame, own


def _timed(frames: Iterator[tuple[Frame, bool]], report: ShardReport) -> Iterator[tuple[Frame, bool]]:
    clock = time.perf_counter()
    for item in frames:
        report.spend("decode", clock)
        report.frames += 1
        yield item
        clock = time.perf_counter()


def _match_table(encoded: pa.Table, bank: TemplateBank, config: AnnotationConfig) -> pa.Table:
    if encoded.num_rows == 0:
        return tables.MATCH.empty_table()
    if not bank.classes:
        return _unmatched(encoded)
    matches = match(embeddings_of(encoded), bank)
    floor = resolve_review_floor(config, bank)
    routed = route(matches, bank.classes, resolve_lambda(config, bank), config.matching, floor)
    names = [*bank.classes, "", tables.NG]  # indices -2 and -1 of a runner-up end there
    return table_of(
        {
            "region_id": encoded["region_id"],
            "label": routed.labels,
            "nearest": [bank.classes[number] for number in matches.nearest.tolist()],
            "similarity": matches.similarity,
            "runner_up": [names[number] for number in matches.runner_up.tolist()],
            "margin": matches.margin,
            "ng_similarity": matches.ng_similarity,
            "route": routed.routes,
            "reason": routed.reasons,
        },
        tables.MATCH,
    )


def _unmatched(encoded: pa.Table) -> pa.Table:
    """Where a line has no templates yet: every region is for people."""
    rows = encoded.num_rows
    unknown = [float("nan")] * rows
    return table_of(
        {
            "region_id": encoded["region_id"],
            "label": [tables.NG] * rows,
            "nearest": [""] * rows,
            "similarity": unknown,
            "runner_up": [""] * rows,
            "margin": unknown,
            "ng_similarity": unknown,
            "route": [tables.Route.REVIEW.value] * rows,
            "reason": ["no templates yet"] * rows,
        },
        tables.MATCH,
    )
