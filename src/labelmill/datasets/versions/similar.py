"""Near-duplicates among crops, by their embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmill.datasets.shards import ShardStore, embeddings_of
from labelmill.datasets.workspace import Workspace

_PROJECTED_DIM = 32
_SAMPLE = 4096
_SMALL = 1000
_CHUNK_PAIRS = 1 << 23
_ROUNDING = 1e-4
"""Float16 embeddings of the same crop differ by so much in their projected distance."""


def load_embeddings(
    workspace: Workspace, shards: Sequence[str], region_ids: pa.Array
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Read the stored embeddings of some regions, of unit length.

    Args:
        workspace: Where the encode shards are.
        shards: Their keys; one that is gone is passed over.
        region_ids: The regions.

    Returns:
        Vectors, shape (n, dim), and for each the position of its region in `region_ids`; regions without
        an embedding, or with a zero one, are left out.
    """
    store = ShardStore(workspace.shards)
    row_of = {name: row for row, name in enumerate(region_ids.to_pylist())}
    vectors: list[npt.NDArray[np.float32]] = []
    rows: list[int] = []
    for key in shards:
        if not store.has("encode", key):
            continue
        table = store.read("encode", key, columns=["region_id", "embedding"])
        wanted = [
            (place, row_of[name])
            for place, name in enumerate(table["region_id"].to_pylist())
            if name in row_of
        ]
        if wanted:
            places, found = zip(*wanted, strict=True)
            vectors.append(embeddings_of(table)[list(places)].astype(np.float32))
            rows.extend(found)
    if not rows:
        return np.zeros((0, 1), np.float32), np.zeros(0, np.int64)
    stacked = np.concatenate(vectors)
    length = np.linalg.norm(stacked, axis=1, keepdims=True)
    usable = (length > 0).ravel() & np.isfinite(length).ravel()
    order = np.argsort(np.asarray(rows)[usable], kind="stable")
    unit = (stacked[usable] / length[usable])[order]
    return np.ascontiguousarray(unit), np.asarray(rows, dtype=np.int64)[usable][order]


def near_pairs(
    vectors: npt.NDArray[np.float32], threshold: float
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Find every pair of vectors whose cosine is at least `threshold`, some hundred rows at a time.

    scikit-learn's index searches in a few dimensions: an orthogonal projection only brings points nearer,
    so nothing is missed, and what it brings too near is thrown out by the full vectors.

    Args:
        vectors: Unit length, shape (n, dim).
        threshold: Cosine, above 0.

    Yields:
        First and second position (first < second), and cosine, of some pairs.
    """
    from sklearn.neighbors import NearestNeighbors

    count = len(vectors)
    if count < 2:
        return
    projected = _project(vectors)
    radius = float(np.sqrt(max(0.0, 2 - 2 * threshold))) + _ROUNDING
    index: Any = NearestNeighbors(radius=radius, algorithm="brute").fit(projected)
    chunk = max(1, min(512, _CHUNK_PAIRS // count))  # even if all are alike
    for start in range(0, count, chunk):
        found = index.radius_neighbors(projected[start : start + chunk], return_distance=False)
        first = np.repeat(np.arange(start, start + len(found)), [len(row) for row in found])
        second = np.concatenate(found).astype(np.int64) if len(found) else np.zeros(0, np.int64)
        later = second > first
        first, second = first[later], second[later]
        for part in range(0, len(first), 1 << 18):  # the full vectors of so many pairs fit in memory
            left, right = first[part : part + (1 << 18)], second[part : part + (1 << 18)]
            cosine = np.concatenate(
                [
                    np.einsum("ij,ij->i", vectors[left[k : k + 4096]], vectors[right[k : k + 4096]])
                    for k in range(0, len(left), 4096)
                ]
                or [np.zeros(0, np.float32)]
            )
            near = cosine >= threshold - _ROUNDING
            yield left[near], right[near], cosine[near]


def _project(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Coordinates along the directions in which the vectors differ most, shape (n, at most 32)."""
    if vectors.shape[1] <= _PROJECTED_DIM or len(vectors) <= _SMALL:
        return vectors
    from sklearn.utils.extmath import randomized_svd

    step = max(1, len(vectors) // _SAMPLE)
    sample = vectors[::step] - vectors[::step].mean(axis=0)
    _, _, axes = randomized_svd(sample, _PROJECTED_DIM, random_state=0)
    return np.ascontiguousarray(vectors @ axes.T)


def linkage(
    vectors: npt.NDArray[np.float32], unit_of: npt.NDArray[np.int64], units: int, threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Join units by the similarity of their most similar members: a maximum spanning forest.

    For every threshold from the given one up, the forest's edges above it connect the same units as all
    pairs above it would (single linkage), while it has fewer edges than there are units.

    Args:
        vectors: Unit length, shape (n, dim).
        unit_of: Which unit each belongs to, shape (n,).
        units: How many there are.
        threshold: Cosine below which nothing is joined.

    Returns:
        First unit, second unit and cosine of each edge.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    first = second = np.zeros(0, np.int64)
    cosine = np.zeros(0, np.float32)
    for left, right, near in near_pairs(vectors, threshold):
        a, b = np.sort(np.stack([unit_of[left], unit_of[right]]), axis=0)
        other = a != b
        first = np.concatenate([first, a[other]])
        second = np.concatenate([second, b[other]])
        cosine = np.concatenate([cosine, near[other]])
        order = np.lexsort((-cosine, second, first))
        first, second, cosine = first[order], second[order], cosine[order]
        best = np.ones(len(first), dtype=bool)
        best[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
        weights = 2.0 - cosine[best].astype(np.float64)  # positive: a stored zero would be no edge
        graph = coo_matrix((weights, (first[best], second[best])), shape=(units, units))
        forest = minimum_spanning_tree(graph.tocsr()).tocoo()
        first, second = forest.row.astype(np.int64), forest.col.astype(np.int64)
        cosine = (2.0 - forest.data).astype(np.float32)
    return first, second, cosine
