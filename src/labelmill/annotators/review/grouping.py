"""Near-identical crops, put before people once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

MAX_MEMBERS = 24
"""A group's picture must show every crop: 5 by 5 with the one that is asked about."""

_BLOCK = 256

Rows = npt.NDArray[np.float32]


def group(
    rows: Rows,
    labels: Sequence[str],
    order: Sequence[int],
    *,
    similarity: float,
    prior: Mapping[int, Sequence[int]] = MappingProxyType({}),
    alone: Sequence[int] = (),
) -> dict[int, list[int]]:
    """Put each crop with the leader that it most nearly equals, or make it a leader.

    A crop joins only a leader of the same machine label, so that one answer can hold for all. Groups that
    were offered before stay as they are, but for crops that fit no more, so that a push that finds nothing
    new changes no task.

    Args:
        rows: Embeddings of length 1, shape (n, dim).
        labels: Machine labels.
        order: Row numbers in the order in which they may become leaders, such as by falling value.
        similarity: Least cosine to the leader.
        prior: Row numbers that have a task already, each with the members that it was offered for.
        alone: Row numbers that neither get members nor join a leader: a group of theirs was refused.

    Returns:
        Leader to members (without the leader), each row exactly once.
    """
    solitary = set(alone)
    groups: dict[int, list[int]] = {row: [] for row in prior}
    taken = set(groups)
    for head, members in prior.items():
        fit = [m for m in members if m not in taken and m not in solitary and labels[m] == labels[head]]
        if head not in solitary and fit:
            near = rows[fit] @ rows[head] >= similarity
            groups[head] = [m for m, holds in zip(fit, near.tolist(), strict=True) if holds][:MAX_MEMBERS]
            taken.update(groups[head])
    by_label: dict[str, list[int]] = {}
    for row in order:
        if row in solitary:
            groups.setdefault(row, [])
        elif row not in taken:
            by_label.setdefault(labels[row], []).append(row)
    for label, candidates in by_label.items():
        heads = [row for row in prior if labels[row] == label and row not in solitary]
        _gather(rows, candidates, heads, similarity, groups)
    return groups


def _gather(
    rows: Rows, candidates: Sequence[int], heads: list[int], similarity: float, groups: dict[int, list[int]]
) -> None:
    """Lead or join, one candidate after another; the cosines of a block of them are computed at once."""
    for start in range(0, len(candidates), _BLOCK):
        block = candidates[start : start + _BLOCK]
        known = len(heads)
        cosines = np.full((len(block), known + len(block)), -1.0, np.float32)
        cosines[:, :known] = rows[block] @ rows[heads].T
        inside = rows[block] @ rows[block].T
        full = np.zeros(known + len(block), dtype=bool)
        full[:known] = [len(groups[head]) >= MAX_MEMBERS for head in heads]
        for number, row in enumerate(block):
            line = np.where(full, -1.0, cosines[number])
            best = int(np.argmax(line))
            if line[best] >= similarity:
                members = groups[heads[best]]
                members.append(row)
                full[best] = len(members) >= MAX_MEMBERS
            else:
                cosines[number + 1 :, len(heads)] = inside[number + 1 :, number]
                heads.append(row)
                groups[row] = []
