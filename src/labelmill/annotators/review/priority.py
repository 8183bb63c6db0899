"""Which crop to ask about first: pure arithmetic, so that the order can be measured and argued about.

Evidence is everything whose label is known: the templates, and the crops that people have decided. How much
it speaks against the machine's label l of a crop i is judged twice. By its nearest neighbours,

    lead_i = s_i(l) - max(s_i(any other label)),     near_i = 1 / (1 + exp(lead_i / SCALE))

where s_i(label) is the cosine to the nearest evidence of that label; for NG it is λ, as long as there is no
evidence of it. With the templates alone this is the margin and the distance to λ in one figure; each decision
sharpens it. And by all of it at once: f, a ridge regression of the labels on the embeddings (Hastie,
Tibshirani and Friedman, "The Elements of Statistical Learning", 3.4.1 and 4.2),

    far_i = 1 - exp(f_i(l) / TEMPERATURE) / Σ exp(f_i(label) / TEMPERATURE)

which sees what whole regions of crops have in common before each of them has a decided neighbour. Novelty is
the distance to the nearest evidence of any kind. The value of asking is

    value_i = (1 - NOVELTY) * (near_i + far_i) / 2 + NOVELTY * (1 - max(s_i)) / 2

and for the few crops that are drawn at random for an audit, a random number: their place says nothing.
`python -m benchmarks.review_order` measures this order against random order and against the margin alone; the
constants were chosen on its training crops.
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

RIDGE = 1.0
"""Penalty on the weights of the regression, for embeddings of length 1."""

TEMPERATURE = 0.15
"""Difference of two labels' regressions at which one is e times as likely as the other."""

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
    fit = _fit(evidence.rows, owners, len(names))
    out = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        line = np.arange(len(rows[part]))
        similar = np.full((len(line), len(names)), -1.0)
        cosines = rows[part] @ evidence.rows.T
        for column in np.unique(owners):
            similar[:, column] = cosines[:, owners == column].max(axis=1)
        nearest = similar.max(axis=1)
        if number[NG] not in owners:
            similar[:, number[NG]] = threshold
        lead = similar[line, own[part]].copy()
        similar[line, own[part]] = -np.inf
        lead -= similar.max(axis=1)
        near = 1.0 / (1.0 + np.exp(np.clip(lead / SCALE, -50, 50)))
        far = 1.0 - fit.shares(rows[part])[line, own[part]]
        out[part] = (1.0 - NOVELTY) * (near + far) / 2 + NOVELTY * (1.0 - nearest) / 2
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """A ridge regression of labels on embeddings.

    Attributes:
        centre: Mean embedding, shape (dim,).
        weights: Shape (dim, labels).
        share: Share of each label in the evidence, shape (labels,).
    """

    centre: Floats
    weights: Floats
    share: Floats

    def shares(self, rows: Rows) -> Floats:
        """How likely each label is for each row, shape (n, labels)."""
        scores = ((rows - self.centre) @ self.weights + self.share) / TEMPERATURE
        likely: Floats = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        return likely


def _fit(rows: Rows, owners: npt.NDArray[np.int64], labels: int) -> _Fit:
    count, dim = rows.shape
    if count == 0:
        return _Fit(np.zeros(dim), np.zeros((dim, labels)), np.zeros(labels))
    told = np.eye(labels)[owners]
    share = told.mean(axis=0)
    told -= share
    centre: Floats = np.asarray(rows.mean(axis=0, dtype=np.float64), np.float64)
    if count <= dim:
        inner = rows - centre
        weights: Floats = inner.T @ np.linalg.solve(inner @ inner.T + RIDGE * np.eye(count), told)
        return _Fit(centre, weights, share)
    scatter, target = RIDGE * np.eye(dim), np.zeros((dim, labels))
    for start in range(0, count, _BLOCK):
        inner = rows[start : start + _BLOCK] - centre
        scatter += inner.T @ inner
        target += inner.T @ told[start : start + _BLOCK]
    weights = np.asarray(np.linalg.solve(scatter, target), np.float64)
    return _Fit(centre, weights, share)


def lot(region_id: str, seed: int) -> float:
    """A number from 0 to 1 drawn for a region once and for all, so that a rerun audits the same regions."""
    digest = hashlib.sha256(f"{seed}:{region_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
