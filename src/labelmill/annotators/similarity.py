"""Cosines between unit rows, and what is made of them: to a class, and to the background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Embeddings

BACKGROUND_SHARE = 0.1
"""Share of the background that counts as a crop's neighbourhood."""

_TINY = 1e-15
"""Numbers below it are scaled up first: their squares are near the end of float32, and lose their digits."""

Rows = npt.NDArray[np.floating]
Similarity = npt.NDArray[np.float32]


def unit_rows(embeddings: Rows) -> Embeddings:
    """Scale each row to length 1; a row of zeros stays so, and is similar to nothing.

    Args:
        embeddings: Shape (n, dim).

    Returns:
        Float32, shape (n, dim).
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    tiny = (largest > 0) & (largest < _TINY)
    rows = (rows / np.where(tiny, largest, 1)).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def cosines(left: Rows, right: Rows) -> Similarity:
    """Products of unit rows, shape (len(left), len(right)).

    In double precision, so that the last bits of a sum, which follow the number of threads, do not show.
    """
    return (left.astype(np.float64) @ right.T.astype(np.float64)).astype(np.float32)


def nearest_view(rows: Rows, views: Sequence[Rows]) -> Similarity:
    """Similarity to each template: that to the most similar of its views.

    Args:
        rows: Unit rows, shape (n, dim).
        views: The templates as they are, turned, ...: unit rows, each of shape (templates, dim).

    Returns:
        Shape (n, templates).
    """
    found: Similarity = np.maximum.reduce([cosines(rows, view) for view in views])
    return found


def class_similarity(
    similarity: Similarity, owners: npt.NDArray[np.int64], classes: int, neighbours: int
) -> Similarity:
    """Similarity to each class: the mean over its nearest templates.

    Args:
        similarity: To each template, shape (n, templates); -inf where a template does not count.
        owners: Class index of each template.
        classes: Number of classes.
        neighbours: How many templates are averaged, or all of a class that has fewer; 1 is the maximum of
            LRIAR, eq. 3.

    Returns:
        Shape (n, classes); -1 for a class without templates, -inf where none of its templates counts.
    """
    per_class = np.full((len(similarity), classes), -1.0, dtype=np.float32)
    for number in range(classes):
        own = similarity[:, owners == number]
        if not own.size:
            continue
        nearest = np.sort(own, axis=1)[:, -neighbours:]
        counts = np.isfinite(nearest)
        total = np.where(counts, nearest, 0).sum(axis=1)
        per_class[:, number] = np.where(
            counts.any(axis=1), total / np.maximum(counts.sum(axis=1), 1), -np.inf
        )
    return per_class


def background_similarity(rows: Rows, background: Embeddings | None) -> Similarity:
    """Mean similarity to the nearest tenth of the background: how much a crop resembles anything at all.

    The local scaling of Conneau et al., "Word Translation Without Parallel Data" (ICLR 2018), section 2.3.

    Args:
        rows: Unit rows, shape (n, dim).
        background: Unit rows of unlabelled crops in the same space; None for none.

    Returns:
        Shape (n,), zeros without a background.
    """
    if background is None or not len(background):
        return np.zeros(len(rows), np.float32)
    count = max(1, round(BACKGROUND_SHARE * len(background)))
    nearest = np.sort(cosines(rows, background), axis=1)[:, -count:]
    mean: Similarity = nearest.mean(axis=1, dtype=np.float64).astype(np.float32)
    return mean
