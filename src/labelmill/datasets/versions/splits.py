"""Splits that do not leak: which frames must stay together, and where each group goes.

1. Frames of one source within one time block are a unit.
2. Units that hold near-duplicate crops of a class are one group. NG crops join nothing: the background of
   a fixed camera repeats itself all day, and would tie everything to everything. So are stills that are
   nearly the same picture.
3. A group goes where its frames were in earlier versions. If they were in several splits, it goes to the
   earliest named of them, the training split first: what a model was once trained on is never evaluated on.
4. New groups fill the shares, class by class.
5. Where two splits meet in continuous footage, the frames in between are set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.similar import linkage
from labelmill.datasets.versions.stills import Stills, bits_of, cosine_of
from labelmill.datasets.versions.tables import ASIDE

THRESHOLDS = (0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
"""Cosines tried in turn when `near_duplicate` is auto."""

BITS = (10, 6, 3, 0)
"""Differing bits of two stills' hashes tried in turn when `near_duplicate_bits` is auto."""

LARGEST_SHARE = 0.4
"""A group beyond this share of the frames leaves no fair splits: auto tries the next threshold."""

_BLOCKS_PER_SOURCE = 20
_SHORTEST_BLOCK_S, _LONGEST_BLOCK_S = 5.0, 60.0


@dataclass(frozen=True)
class Crops:
    """The crops of a class that have an embedding.

    Attributes:
        vectors: Unit length, shape (n, dim).
        frame: Position of each crop's frame, shape (n,).
        region: Position of each crop's region, shape (n,).
    """

    vectors: npt.NDArray[np.float32]
    frame: npt.NDArray[np.int64]
    region: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Where every frame goes.

    Attributes:
        split: Of each frame.
        group: Of each frame.
        near_duplicate: The cosine of crops that groups were joined by; None where none were.
        near_duplicate_bits: The differing bits of stills that they were joined by; None likewise.
        largest_share: Of the frames, held by the largest group.
        moved: Frames that had to leave the split of an earlier version.
    """

    split: list[str]
    group: list[str]
    near_duplicate: float | None
    near_duplicate_bits: int | None
    largest_share: float
    moved: int


def class_crops(
    frames: pa.Table, regions: pa.Table, vectors: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> Crops:
    """Keep the embeddings of crops that carry a class, not NG.

    Args:
        frames: Columns `tables.FRAMES`.
        regions: Columns `tables.REGIONS`.
        vectors: Shape (n, dim).
        rows: Position in `regions` of each vector, shape (n,).
    """
    frame_of = np.asarray(pc.index_in(regions["frame_id"], frames["frame_id"].combine_chunks()).to_numpy())
    labelled = np.asarray(pc.not_equal(regions["label"], NG).to_numpy(), dtype=bool)
    keep = labelled[rows]
    return Crops(vectors[keep], frame_of[rows[keep]].astype(np.int64), rows[keep])


def assign(
    frames: pa.Table,
    regions: pa.Table,
    crops: Crops,
    config: DatasetConfig,
    earlier: dict[str, str],
    threshold: float | None = None,
    stills: Stills | None = None,
    bits: int | None = None,
) -> Splits:
    """Give every frame a split.

    Args:
        frames: Columns `tables.FRAMES`.
        regions: Columns `tables.REGIONS`.
        crops: What near-duplicates are looked for in.
        config: Shares, blocks and guards.
        earlier: Split of each frame id in earlier versions, the newest that has it.
        threshold: The parent version's near-duplicate cosine, from which auto starts.
        stills: The still pictures among the frames.
        bits: The parent version's differing bits, from which auto starts.
    """
    unit = time_blocks(frames, config.time_block_s)
    group, used = _by_crops(unit, crops, config.near_duplicate, threshold)
    group, used_bits = _by_stills(group, stills or Stills(), config.near_duplicate_bits, bits)
    names = list(config.splits)
    ids = frames["frame_id"].to_pylist()
    before = np.array(
        [names.index(was) if (was := earlier.get(name)) in names else -1 for name in ids], dtype=np.int64
    )
    counts = int(group.max()) + 1
    fixed = np.full(counts, len(names))
    known = before >= 0
    np.minimum.at(fixed, group[known], before[known])
    fixed[fixed == len(names)] = -1
    place = _fill(_profile(frames, regions, group, counts), fixed, list(config.splits.values()))
    split = place[group]
    aside = set_aside(frames, split, config.guard_s)
    moved = int(np.count_nonzero(known & ~aside & (split != before)))
    labels = _unit_names(frames, unit)
    first = np.full(counts, len(unit), dtype=np.int64)
    np.minimum.at(first, group, np.arange(len(unit)))
    return Splits(
        split=[
            ASIDE if out else names[number]
            for number, out in zip(split.tolist(), aside.tolist(), strict=True)
        ],
        group=[labels[row] for row in first[group].tolist()],
        near_duplicate=used,
        near_duplicate_bits=used_bits,
        largest_share=_largest(group),
        moved=moved,
    )


def time_blocks(frames: pa.Table, block_s: float | None) -> npt.NDArray[np.int64]:
    """Number the units: frames of one source within one block of time.

    Args:
        frames: Columns `tables.FRAMES`, in their order.
        block_s: Length of a block; None: a twentieth of each source, 5 to 60 s.

    Returns:
        Shape (frames,), numbers from 0 in the order of the frames.
    """
    source, seconds = sources(frames)
    if block_s is None:
        longest = np.zeros(int(source.max()) + 1)
        np.maximum.at(longest, source, seconds)
        length = np.clip(np.round(longest / _BLOCKS_PER_SOURCE), _SHORTEST_BLOCK_S, _LONGEST_BLOCK_S)[source]
    else:
        length = np.full(len(seconds), block_s)
    keys = np.stack([source, np.floor(seconds / length).astype(np.int64)], axis=1)
    _, unit = np.unique(keys, axis=0, return_inverse=True)
    return np.asarray(unit, dtype=np.int64).ravel()


def sources(frames: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Number of each frame's source, and its time in seconds; both of shape (frames,)."""
    digests = frames["source_digest"].combine_chunks().dictionary_encode()
    source = np.asarray(digests.indices.to_numpy(), dtype=np.int64)
    return source, np.asarray(frames["timestamp_s"].to_numpy(), dtype=np.float64)


def _unit_names(frames: pa.Table, unit: npt.NDArray[np.int64]) -> list[str]:
    digests = frames["source_digest"].to_pylist()
    indices = frames["frame_index"].to_pylist()
    start: dict[int, int] = {}
    for number, index in zip(unit.tolist(), indices, strict=True):
        start[number] = min(index, start.get(number, index))
    return [f"{digest[:12]}-{start[number]}" for digest, number in zip(digests, unit.tolist(), strict=True)]


def _by_crops(
    unit: npt.NDArray[np.int64], crops: Crops, wanted: float | str | None, start: float | None
) -> tuple[npt.NDArray[np.int64], float | None]:
    """Join units by near-duplicate crops.

    Returns:
        Group of each frame, and the cosine used.
    """
    if wanted is None or not len(crops.vectors):
        return unit, None
    if isinstance(wanted, str):
        ladder = [value for value in THRESHOLDS if start is None or value >= start] or [THRESHOLDS[-1]]
    else:
        ladder = [wanted]
    group, used = _joined(unit, crops.vectors, crops.frame, ladder)
    return group, ladder[-1] if used is None else used


def _by_stills(
    group: npt.NDArray[np.int64], stills: Stills, wanted: int | str | None, start: int | None
) -> tuple[npt.NDArray[np.int64], int | None]:
    """Join groups by stills that are nearly the same picture.

    Returns:
        Group of each frame, and the differing bits used. With auto None where equal hashes alone would join
        most of the frames: stills of a fixed camera, for which the crops must tell.
    """
    if wanted is None or not len(stills.vectors):
        return group, None
    if isinstance(wanted, str):
        ladder = [cosine_of(value) for value in BITS if start is None or value <= start] or [1.0]
    else:
        ladder = [cosine_of(wanted)]
    joined, used = _joined(group, stills.vectors, stills.frame, ladder)
    if used is None and isinstance(wanted, str):
        return group, None
    return joined, bits_of(ladder[-1] if used is None else used)


def _joined(
    group: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    frame: npt.NDArray[np.int64],
    ladder: Sequence[float],
) -> tuple[npt.NDArray[np.int64], float | None]:
    """Join groups that hold alike vectors, by the first cosine that leaves none of them too large.

    Args:
        group: Of each frame.
        vectors: Unit length, shape (n, dim).
        frame: Position of the frame of each, shape (n,).
        ladder: Cosines to try, from low to high.

    Returns:
        The groups, and the cosine; None if by the last one, too, a group is too large.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = int(group.max()) + 1
    most = max(LARGEST_SHARE, _largest(group))
    first, second, cosine = linkage(vectors, group[frame], count, ladder[0])
    joined = group
    for value in ladder:
        near = cosine >= value - 1e-4
        graph = coo_matrix((np.ones(near.sum()), (first[near], second[near])), shape=(count, count))
        _, label = connected_components(graph, directed=False)
        joined = np.asarray(label, dtype=np.int64)[group]
        if _largest(joined) <= most:
            return joined, value
    return joined, None


def _largest(group: npt.NDArray[np.int64]) -> float:
    """Share of the frames that the largest group holds."""
    return float(np.bincount(group).max() / len(group))


def _profile(
    frames: pa.Table, regions: pa.Table, group: npt.NDArray[np.int64], groups: int
) -> npt.NDArray[np.float64]:
    """What each group holds: frames, those without regions, regions by label; shape (groups, 2 + labels)."""
    frame_of = np.asarray(pc.index_in(regions["frame_id"], frames["frame_id"].combine_chunks()).to_numpy())
    labels = regions["label"].combine_chunks().dictionary_encode()
    profile = np.zeros((groups, 2 + len(labels.dictionary)))
    empty = np.ones(frames.num_rows, dtype=bool)
    empty[frame_of.astype(np.int64)] = False
    profile[:, 0] = np.bincount(group, minlength=groups)
    profile[:, 1] = np.bincount(group[empty], minlength=groups)
    if len(frame_of):
        np.add.at(profile, (group[frame_of.astype(np.int64)], 2 + np.asarray(labels.indices.to_numpy())), 1)
    return profile


def _fill(
    profile: npt.NDArray[np.float64], fixed: npt.NDArray[np.int64], shares: Sequence[float]
) -> npt.NDArray[np.int64]:
    """Place the free groups, large ones first, each where it brings the shares of all kinds nearest.

    Nearest by the squared gap over the wanted share (Pearson's chi-squared): by the gap alone all large
    groups would go to the training split, and the rest to the others.

    Args:
        profile: What each group holds, shape (groups, kinds).
        fixed: Split of each group, -1 where free; shape (groups,).
        shares: Wanted share of each split.

    Returns:
        Split of each group.
    """
    place = fixed.copy()
    total = np.maximum(profile.sum(axis=0), 1)
    relative = profile / total
    target = np.asarray(shares)[:, None] * np.ones(profile.shape[1])
    have = np.zeros_like(target)
    for number in range(len(shares)):
        have[number] = relative[fixed == number].sum(axis=0)
    open_splits = np.asarray(shares) > 0
    free = np.flatnonzero(fixed < 0)
    for group in free[np.argsort(-relative[free].sum(axis=1), kind="stable")]:
        gap = np.full(len(shares), np.inf)
        wider = (have + relative[group] - target) ** 2 - (have - target) ** 2
        gap[open_splits] = (wider[open_splits] / target[open_splits]).sum(axis=1)
        number = int(np.argmin(gap))
        place[group] = number
        have[number] += relative[group]
    for number in np.flatnonzero(
        open_splits
    ).tolist():  # no split that should have frames stays empty, if it can be
        if not np.any(place == number):
            donors = [g for g in free if np.count_nonzero(place == place[g]) > 1]
            if donors:
                place[min(donors, key=lambda g: (relative[g].sum(), g))] = number
    return place


def set_aside(frames: pa.Table, split: npt.NDArray[np.int64], guard_s: float) -> npt.NDArray[np.bool_]:
    """Choose frames to leave out, so that no two within `guard_s` of each other are in two splits.

    At a border the split of the lower number (the training split) gives way.

    Args:
        frames: Columns `tables.FRAMES`, in their order.
        split: Number of each frame's split.
        guard_s: Frames of a source nearer than this are neighbours.

    Returns:
        Which frames are in no split, shape (frames,).
    """
    source, seconds = sources(frames)
    out = np.zeros(len(split), dtype=bool)
    while True:
        kept = np.flatnonzero(~out)
        left, right = kept[:-1], kept[1:]
        meet = neighbours(source, seconds, split, left, right, guard_s)
        if not meet.any():
            return out
        left, right = left[meet], right[meet]
        out[np.where(split[left] < split[right], left, right)] = True


def neighbours(
    source: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.float64],
    split: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    guard_s: float,
) -> npt.NDArray[np.bool_]:
    """Which pairs of frames are of one source, nearer than `guard_s`, and in two splits."""
    near = np.abs(seconds[right] - seconds[left]) < guard_s
    return np.asarray((source[left] == source[right]) & (split[left] != split[right]) & near)
