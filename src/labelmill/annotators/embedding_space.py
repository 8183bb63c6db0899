"""Where templates and crops are compared: the encoder's own space, or one that the templates straightened.

An encoder was trained for other things than one line's classes. What varies among the templates of one class
(light, pose, the hand beside the part) is, for that line, noise; dividing it out is Fisher's linear
discriminant with a shrunk within-class scatter (Hastie, Tibshirani and Friedman, "The Elements of Statistical
Learning", 4.3). It is learnt from the templates alone and costs one small product a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmill.annotators.similarity import Rows, Similarity, nearest_view, unit_rows
from labelmill.annotators.types import Embeddings

Kind = Literal["raw", "centred", "whitened", "discriminant"]

STRENGTH = 1.0
"""How much of the within-class scatter is divided out: average scatter is shortened by √(1 + 1).

Cross-validated on the training crops of `tools` (benchmarks/tools_quality.py): from 0.5 to 4 the accuracy
differs by less than 0.02."""

_FOLDS = 5
_NEGLIGIBLE = 1e-6
"""Share of the largest variance below which a direction is rounding, and has no meaning."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingSpace:
    """A space in which the cosine is taken.

    Attributes:
        centre: Taken away from unit embeddings first, shape (dim,); None for nothing.
        axes: Directions that are shortened, orthonormal columns, shape (dim, r).
        shares: The share of each that is taken away, 0 to 1, shape (r,).
    """

    centre: Doubles | None = None
    axes: Doubles | None = None
    shares: Doubles | None = None

    def transform(self, embeddings: Rows) -> Embeddings:
        """Bring embeddings into the space.

        Args:
            embeddings: Of any length, shape (n, dim).

        Returns:
            Unit rows, float32, shape (n, dim).
        """
        rows = unit_rows(embeddings).astype(np.float64)
        if self.centre is not None:
            rows = _unit(rows - self.centre)
        if self.axes is not None and self.shares is not None:
            rows = _unit(rows - (rows @ self.axes * self.shares) @ self.axes.T)
        return rows.astype(np.float32)


def _unit(rows: Doubles) -> Doubles:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Doubles = rows / np.where(lengths > 0, lengths, 1.0)
    return scaled


def fit_space(embeddings: Rows, owners: npt.NDArray[np.int64], kind: Kind) -> EmbeddingSpace:
    """Learn a space from templates.

    - "raw": the encoder's own, LRIAR, eq. 2 to the letter.
    - "centred": less the mean of the class means, so that what all classes have in common does not count. For
      many unlike classes; with two or three alike it takes away what tells them from NG.
    - "whitened": directions in which templates of one class differ are shortened. With one template a class
      this is "raw".
    - "discriminant": both.

    Args:
        embeddings: Of the templates, shape (n, dim).
        owners: Class index of each; negative ones (NG) are left out.
        kind: Which space.
    """
    rows = unit_rows(embeddings)[owners >= 0].astype(np.float64)
    owners = owners[owners >= 0]
    numbers = np.unique(owners)
    if kind == "raw" or len(numbers) == 0:
        return EmbeddingSpace()
    centre = None
    if kind != "whitened":
        centre = np.mean([rows[owners == number].mean(axis=0) for number in numbers], axis=0)
        rows = _unit(rows - centre)
    if kind == "centred":
        return EmbeddingSpace(centre)
    scatter = np.concatenate([rows[owners == n] - rows[owners == n].mean(axis=0) for n in numbers])
    # From the products of the rows: numpy's SVD of the rows themselves does not converge for every set.
    variances, weights = np.linalg.eigh(scatter @ scatter.T)
    kept = variances > _NEGLIGIBLE * max(variances.max(initial=0.0), _NEGLIGIBLE)
    if not kept.any():
        return EmbeddingSpace(centre)
    variances = variances[kept]
    axes = scatter.T @ weights[:, kept] / np.sqrt(variances)
    shares = 1 - 1 / np.sqrt(1 + STRENGTH * variances / variances.mean())
    return EmbeddingSpace(centre, axes, shares)


def held_out_similarity(
    embeddings: Rows, owners: npt.NDArray[np.int64], kind: Kind, turned: Sequence[Rows] = ()
) -> Similarity:
    """How similar templates are to one another, each seen as a crop that the space was not learnt from.

    A space learnt from templates draws these closer together than it will draw crops; λ must be chosen from
    similarities such as crops will have. So the templates are parted into five, and each part is compared in
    the space of the other four; with one template a class, each in the space of all others.

    Args:
        embeddings: Of the templates, shape (n, dim).
        owners: Class index of each; negative for NG.
        kind: Which space.
        turned: The same templates, turned; each of the shape of `embeddings`.

    Returns:
        Shape (n, n), row i for template i as a crop; -inf on the diagonal.
    """
    views = [np.asarray(view) for view in (embeddings, *turned)]
    if kind == "raw":
        similarity = nearest_view(unit_rows(embeddings), [unit_rows(view) for view in views])
        np.fill_diagonal(similarity, -np.inf)
        return similarity
    similarity = np.empty((len(owners), len(owners)), np.float32)
    place = np.array([np.count_nonzero(owners[:row] == owner) for row, owner in enumerate(owners)], np.int64)
    if not place[owners >= 0].any():  # one a class: a part of all classes would leave none to learn from
        place = np.arange(len(owners))
    else:
        place %= _FOLDS
    part = np.where(owners >= 0, place, -1)  # NG templates teach no space: any will do for them
    for number in np.unique(part).tolist():
        learners = part != number
        own = np.tile(owners[learners], len(views))
        space = fit_space(np.concatenate([view[learners] for view in views]), own, kind)
        rows = space.transform(views[0][part == number])
        similarity[part == number] = nearest_view(rows, [space.transform(view) for view in views])
    np.fill_diagonal(similarity, -np.inf)
    return similarity
