from __future__ import annotations

import numpy as np
import pytest

from labelmill.annotators.clustering import cluster, silhouette, spherical_k_means


def around(
    angles_deg: list[float], each: int, spread_deg: float
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    offsets = np.linspace(-spread_deg, spread_deg, each)
    angles = np.radians(np.array(angles_deg)[:, None] + offsets[None, :]).ravel()
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


@pytest.mark.parametrize("angles", [[0, 90], [0, 120, 240], [0, 72, 144, 216, 288]])
def test_separate_groups_are_found(angles: list[float]) -> None:
    rows = around(angles, 12, 5)
    group, centres = cluster(rows, 8)
    expected = np.repeat(np.arange(len(angles)), 12)
    assert len(angles) <= len(centres) <= len(angles) + 1  # dividing one is better than joining two
    pairs = {(a, b) for a, b in zip(group.tolist(), expected.tolist(), strict=True)}
    assert len(pairs) == len(centres)
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)


def test_nothing_is_random() -> None:
    rows = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.array_equal(cluster(rows, 6)[0], cluster(rows, 6)[0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_rows_are_one_group(count: int) -> None:
    group, centres = cluster(around([10], count, 1), 8)
    assert group.tolist() == [0] * count
    assert centres.shape == (1, 2)


def test_equal_rows_do_not_fail() -> None:
    rows = np.tile(np.array([[1, 0]], np.float32), (10, 1))
    group, _ = cluster(rows, 4)
    assert len(group) == 10
    zero, _ = cluster(np.zeros((10, 2), np.float32), 4)
    assert len(zero) == 10


def test_silhouette_of_a_hand_made_case() -> None:
    similarity = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    # Rows 0 and 1: 0 inside, 1 outside; row 2 is alone and counts 0.
    assert silhouette(similarity, np.array([0, 0, 1])) == pytest.approx(2 / 3)
    assert silhouette(similarity, np.array([0, 0, 0])) == 0


def test_k_means_gives_k_centres() -> None:
    group, centres = spherical_k_means(around([0, 90], 5, 3), 2)
    assert centres.shape == (2, 2)
    assert sorted(np.bincount(group).tolist()) == [5, 5]
