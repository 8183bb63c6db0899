from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labelmill.annotators.matching import match
from labelmill.annotators.similarity import unit_rows
from labelmill.annotators.templates import TemplateBank


def bank(owners: list[int], rows: list[list[float]], classes: int = 2) -> TemplateBank:
    names = tuple("abcdef"[:classes])
    return TemplateBank(names, unit_rows(np.array(rows)), np.array(owners, dtype=np.int64))


# Two templates of a, one of b, in the plane; similarities are cosines that a person can check.
AAB = bank([0, 0, 1], [[1, 0], [0, 5], [-3, 4]])


def test_eq_2_by_hand() -> None:
    """S = ψ(R)·ψ(T) / (‖ψ(R)‖ ‖ψ(T)‖), the best template of each class."""
    crops = np.array([[2, 0], [3, 4], [-3, 4], [-1, 0], [0, -2]], dtype=np.float32)
    matches = match(crops, AAB)
    #                    a: max(x, y)/r       b: (-3x + 4y)/5r
    # (2, 0)             1                    -0.6
    # (3, 4)             0.8                  (-9+16)/25 = 0.28
    # (-3, 4)            0.8                  1
    # (-1, 0)            0                    0.6
    # (0, -2)            0                    -0.8
    assert matches.nearest.tolist() == [0, 0, 1, 1, 0]
    np.testing.assert_allclose(matches.similarity, [1, 0.8, 1, 0.6, 0], atol=1e-6)
    assert matches.runner_up.tolist() == [1, 1, 0, 0, 1]
    np.testing.assert_allclose(matches.margin, [1.6, 0.52, 0.2, 0.6, 0.8], atol=1e-6)
    assert np.isnan(matches.ng_similarity).all()


def test_ng_templates_are_rivals_of_their_own() -> None:
    ng = bank([0, 1, -1, -1], [[1, 0], [0, 1], [3, 4], [-1, 0]])
    crops = np.array([[1, 0], [3, 4], [0, 1], [-1, 0]], dtype=np.float32)
    matches = match(crops, ng)
    #            a     b     NG
    # (1, 0)     1     0     0.6
    # (3, 4)     0.6   0.8   1
    # (0, 1)     0     1     0.8
    # (-1, 0)    -1    0     1
    assert matches.nearest.tolist() == [0, 1, 1, 1]
    np.testing.assert_allclose(matches.similarity, [1, 0.8, 1, 0], atol=1e-6)
    assert matches.runner_up.tolist() == [-1, -1, -1, -1]
    np.testing.assert_allclose(matches.ng_similarity, [0.6, 1, 0.8, 1], atol=1e-6)
    np.testing.assert_allclose(matches.margin, [0.4, -0.2, 0.2, -1], atol=1e-6)


def test_a_class_that_is_nearer_than_ng_is_the_runner_up() -> None:
    matches = match(np.array([[4.0, 3.0]]), bank([0, 1, -1], [[1, 0], [0, 1], [0, -1]]))
    assert matches.runner_up.tolist() == [1]
    np.testing.assert_allclose(matches.margin, [0.2], atol=1e-6)
    np.testing.assert_allclose(matches.ng_similarity, [-0.6], atol=1e-6)


def test_a_single_class_has_no_runner_up() -> None:
    alone = match(np.array([[1.0, 1.0]]), bank([0], [[1, 0]], classes=1))
    assert alone.nearest.tolist() == [0]
    assert alone.runner_up.tolist() == [-2]
    assert np.isnan(alone.margin).all()
    with_ng = match(np.array([[1.0, 1.0]]), bank([0, -1], [[1, 0], [0, -1]], classes=1))
    assert with_ng.runner_up.tolist() == [-1]
    np.testing.assert_allclose(with_ng.margin, [np.sqrt(2)], atol=1e-6)


def test_a_crop_of_nothing_is_similar_to_nothing() -> None:
    matches = match(np.zeros((1, 2)), AAB)
    assert matches.similarity.tolist() == [0.0]
    assert matches.margin.tolist() == [0.0]


def test_a_template_of_nothing_is_similar_to_nothing() -> None:
    matches = match(np.array([[1.0, 0.0]]), bank([0, 1], [[0, 0], [-1, 0]]))
    assert matches.nearest.tolist() == [0]
    assert matches.similarity.tolist() == [0.0]


def test_no_crops() -> None:
    matches = match(np.empty((0, 2)), AAB)
    assert [len(column) for column in (matches.nearest, matches.similarity, matches.margin)] == [0, 0, 0]


def test_of_equals_the_first_class_is_nearest() -> None:
    matches = match(np.array([[1.0, 1.0]]), bank([1, 0], [[1, 0], [0, 1]]))
    assert matches.nearest.tolist() == [0]
    assert matches.margin.tolist() == [0.0]


@given(
    arrays(np.float16, (4, 6), elements=st.floats(-10, 10, width=16)),
    st.floats(0.01, 100),
    st.integers(1, 4),
)
def test_length_and_company_do_not_matter(rows: np.ndarray, factor: float, first: int) -> None:
    """The cosine knows no length, and a crop's similarities no other crop."""
    templates = bank([0, 1, -1], np.random.default_rng(0).normal(size=(3, 6)).tolist())
    together = match(rows, templates)
    scaled = match(rows.astype(np.float32) * np.float32(factor), templates)
    alone = match(rows[:first], templates)
    np.testing.assert_allclose(scaled.similarity, together.similarity, atol=1e-5)
    np.testing.assert_allclose(alone.similarity, together.similarity[:first], atol=1e-7)
    assert (np.abs(together.similarity) <= 1 + 1e-6).all()
    assert (together.margin[together.runner_up >= 0] >= 0).all()


def test_embeddings_and_owners_go_together() -> None:
    with pytest.raises(ValueError, match=r"embeddings must be \(3, dim\), got shape \(2, 4\)"):
        TemplateBank(("a",), np.zeros((2, 4), np.float32), np.zeros(3, np.int64))
