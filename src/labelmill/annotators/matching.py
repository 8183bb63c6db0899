"""Template matching: cosine similarity to the templates, per class (LRIAR, eq. 2 and 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmill.annotators.similarity import class_similarity
from labelmill.annotators.templates import TemplateBank

VERSION = 3
"""Part of every match shard's key: raise it when the same input gives other labels or routes."""

FloatVector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """How similar crops are to the classes; every array has shape (n,).

    Attributes:
        nearest: Index of the class of the highest similarity.
        similarity: That similarity, -1 to 1.
        runner_up: Index of the second class; -1 where the nearest NG template comes second;
            -2 where there is neither.
        margin: Similarity less that of the runner-up; NaN without one; negative where an NG template is
            first.
        ng_similarity: Similarity to the nearest NG template; NaN without any.
    """

    nearest: npt.NDArray[np.int64]
    similarity: FloatVector
    runner_up: npt.NDArray[np.int64]
    margin: FloatVector
    ng_similarity: FloatVector


def match(embeddings: npt.NDArray[np.floating], bank: TemplateBank) -> Matches:
    """Compare crops with templates.

    Implements LRIAR, eq. 2: `S_ik = ψ(R_i)·ψ(T_k) / (‖ψ(R_i)‖ ‖ψ(T_k)‖)`, in the bank's space, averaged over
    the nearest templates of a class, and less the similarity to the background where the bank has one.

    Args:
        embeddings: Of the crops, shape (n, dim), any length.
        bank: The templates.
    """
    crops = bank.space.transform(embeddings)
    similarity = bank.similarity(crops)
    count = len(similarity)
    per_class = class_similarity(similarity, bank.owners, len(bank.classes), bank.neighbours)
    per_class = np.clip(per_class, -1, 1)
    rows = np.arange(count)
    order = np.argsort(-per_class, axis=1, kind="stable")
    nearest = order[:, 0]
    best = per_class[rows, nearest]
    second = np.full(count, np.nan, dtype=np.float32)
    runner_up = np.full(count, -2, dtype=np.int64)
    if len(bank.classes) > 1:
        runner_up = order[:, 1].astype(np.int64)
        second = per_class[rows, runner_up]
    ng = np.full(count, np.nan, dtype=np.float32)
    if bank.has_ng:
        ng = similarity[:, bank.owners < 0].max(axis=1, initial=-1.0).clip(-1, 1).astype(np.float32)
        ahead = ~(second >= ng)  # also where there is no second class
        runner_up = np.where(ahead, -1, runner_up)
        second = np.where(ahead, ng, second)
    return Matches(
        nearest=nearest.astype(np.int64),
        similarity=best,
        runner_up=runner_up,
        margin=(best - second).astype(np.float32),
        ng_similarity=ng,
    )
