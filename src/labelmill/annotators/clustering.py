"""Crops grouped by likeness, where nobody has named any yet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Embeddings

Numbers = npt.NDArray[np.int64]

_ROUNDS = 30
_SAME = 0.95  # cosine of two centres from which their groups are one
_NEARLY = 0.05  # of silhouette: crops of real footage reach 0.2 to 0.3, whatever the number of groups


def spherical_k_means(rows: Embeddings, k: int) -> tuple[Numbers, Embeddings]:
    """Group unit rows around `k` unit centres, by cosine.

    Dhillon and Modha, "Concept decompositions for large sparse text data using clustering" (2001). The
    first centre is the row that is most like all others, each further one the row least like the centres so
    far: nothing is random.

    Args:
        rows: Unit rows, shape (n, dim), n at least `k`.
        k: How many groups.

    Returns:
        The group of each row, shape (n,), and the centres, shape (k, dim).
    """
    seeds = [int((rows @ rows.sum(axis=0)).argmax())]
    nearest = rows @ rows[seeds[0]]
    while len(seeds) < k:
        seeds.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, rows @ rows[seeds[-1]])
    centres = rows[seeds]
    group = (rows @ centres.T).argmax(axis=1)
    for _ in range(_ROUNDS):
        sums = np.stack([rows[group == number].sum(axis=0) for number in range(k)])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres).astype(np.float32)
        moved = (rows @ centres.T).argmax(axis=1)
        if np.array_equal(moved, group):
            break
        group = moved
    return group, centres


def silhouette(similarity: npt.NDArray[np.float32], group: Numbers) -> float:
    """How much nearer rows are to their own group than to the next one, -1 to 1 (Rousseeuw, 1987).

    Args:
        similarity: Cosine of every pair, shape (n, n).
        group: Of each row, shape (n,).
    """
    names = np.unique(group)
    if len(names) < 2:
        return 0.0
    sizes = np.array([(group == name).sum() for name in names])
    means = np.stack([1 - similarity[:, group == name].mean(axis=1) for name in names], axis=1)
    own = np.searchsorted(names, group)
    rows = np.arange(len(group))
    inside = means[rows, own] * sizes[own] / np.maximum(sizes[own] - 1, 1)  # without the row itself
    means[rows, own] = np.inf
    outside = means.min(axis=1)
    widths = np.where(sizes[own] > 1, (outside - inside) / np.maximum(np.maximum(outside, inside), 1e-9), 0)
    return float(widths.mean())


def _alike(centres: Embeddings) -> float:
    """Cosine of the two most similar centres."""
    cosines = centres @ centres.T
    np.fill_diagonal(cosines, -1)
    return float(cosines.max())


def cluster(rows: Embeddings, most: int) -> tuple[Numbers, Embeddings]:
    """Group unit rows into as many groups as fit nearly as well as the best number does (by silhouette).

    A person merges two groups sooner than they divide one.

    Args:
        rows: Unit rows, shape (n, dim).
        most: Largest number of groups.

    Returns:
        The group of each row, shape (n,), and the centres, shape (groups, dim); one group for under four
        rows.
    """
    if len(rows) < 4:
        centre = rows.sum(axis=0, keepdims=True)
        return np.zeros(len(rows), np.int64), centre / max(float(np.linalg.norm(centre)), 1e-12)
    similarity = rows @ rows.T
    tried = [spherical_k_means(rows, k) for k in range(2, min(most, len(rows) // 2) + 1)]
    tried = [found for found in tried if _alike(found[1]) < _SAME] or [spherical_k_means(rows, 1)]
    fits = [silhouette(similarity, group) for group, _ in tried]
    return tried[max(n for n, fit in enumerate(fits) if fit >= max(fits) - _NEARLY)]
