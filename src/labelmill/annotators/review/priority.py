"""Which crop to ask about first: pure arithmetic, so that the order can be measured and argued about.

Evidence is everything whose label is known: the templates, and the crops that people have decided. For a
crop i with machine label l,

    lead_i = s_i(l) - max(s_i(any other label)),     s_i(NG) = max(λ, cosine to the nearest NG evidence)

where s_i(class) is the cosine to the nearest evidence of that class. With the templates alone this is the
margin and the distance to λ in one figure; each decision sharpens it: a decided neighbour of the same label
raises the lead, one of another label makes it negative. Novelty is the distance to the nearest evidence of
any kind. The value of asking is

    value_i = (1 - NOVELTY) / (1 + exp(lead_i / SCALE)) + NOVELTY * (1 - max(s_i)) / 2

and for the few crops that are drawn at random for an audit, a random number: their place says nothing.
`python -m benchmarks.review_order` measures this order against random order and against the margin alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmill.annotators.review.label_config import NG

SCALE = 0.1
"""Lead at which the value has fallen from 0.5 to 0.27: about what separates a template from its rival."""

NOVELTY = 0.1
"""Share of novelty. More finds unseen things a little earlier and wrong labels a lot later."""

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Crops whose label is known.

    Attributes:
        rows: Embeddings of length 1, shape (n, dim).
        labels: A class or NG each.
    """

    rows: Rows
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) != len(self.labels):
            raise ValueError(f"evidence rows must be ({len(self.labels)}, dim), got shape {self.rows.shape}")


def values(rows: Rows, labels: Sequence[str], evidence: Evidence, threshold: float) -> Floats:
    """How much an answer about each crop is worth, 0 to 1.

    Args:
        rows: Embeddings of length 1, shape (n, dim).
        labels: Machine labels, a class or NG.
        evidence: What is known.
        threshold: λ.

    Returns:
        Shape (n,).
    """
    names = sorted({*evidence.labels, *labels, NG})
    number = {name: column for column, name in enumerate(names)}
    owners = np.array([number[name] for name in evidence.labels], dtype=np.int64)
    own = np.array([number[name] for name in labels], dtype=np.int64)
    out = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        similar = np.full((len(rows[part]), len(names)), -1.0)
        if len(owners):
            cosines = rows[part] @ evidence.rows.T
            for column in np.unique(owners):
                similar[:, column] = cosines[:, owners == column].max(axis=1)
        nearest = similar.max(axis=1)
        similar[:, number[NG]] = np.maximum(similar[:, number[NG]], threshold)
        line = np.arange(len(similar))
        lead = similar[line, own[part]].copy()
        similar[line, own[part]] = -np.inf
        lead -= similar.max(axis=1)
        out[part] = _value(lead, nearest)
    return out


def _value(lead: Floats, nearest: Floats) -> Floats:
    doubt = 1.0 / (1.0 + np.exp(np.clip(lead / SCALE, -50, 50)))
    value: Floats = (1.0 - NOVELTY) * doubt + NOVELTY * (1.0 - nearest) / 2.0
    return value


def lot(region_id: str, seed: int) -> float:
    """A number from 0 to 1 drawn for a region once and for all, so that a rerun audits the same regions."""
    digest = hashlib.sha256(f"{seed}:{region_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
