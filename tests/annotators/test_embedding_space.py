from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labelmill.annotators.config import MatchingConfig
from labelmill.annotators.embedding_space import Kind, fit_space, held_out_similarity
from labelmill.annotators.matching import match
from labelmill.annotators.similarity import background_similarity, class_similarity, unit_rows
from labelmill.annotators.templates import BACKGROUND_OWNER, make_bank, suggest_lambda

KINDS: tuple[Kind, ...] = ("raw", "centred", "whitened", "discriminant")


def owners(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_raw_is_the_encoders_own_space() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 2.0]])
    found = fit_space(rows, owners(0, 1), "raw").transform(rows)
    np.testing.assert_allclose(found, np.array([[0.6, 0.8], [0, 1]]), atol=1e-7)


def test_rows_of_tiny_numbers_have_unit_length_too() -> None:
    rows = np.array([[3.0, 4.0], [3e-22, 4e-22], [0, 1e-45], [0, 0]], np.float32)
    expected = np.array([[0.6, 0.8], [0.6, 0.8], [0, 1], [0, 0]])
    np.testing.assert_allclose(unit_rows(rows), expected, atol=1e-6)


def test_centred_takes_away_what_classes_share() -> None:
    rows = np.array([[1.0, 0, 1], [0, 1, 1]])  # the third number is the same in both classes
    space = fit_space(rows, owners(0, 1), "centred")
    a, b = space.transform(rows)
    np.testing.assert_allclose(a, [np.sqrt(0.5), -np.sqrt(0.5), 0], atol=1e-6)
    np.testing.assert_allclose(b, -a, atol=1e-6)


def test_centred_counts_classes_and_not_templates() -> None:
    rows = np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    space = fit_space(rows, owners(0, 0, 0, 1), "centred")
    assert space.centre is not None
    np.testing.assert_allclose(space.centre, [0.5, 0.5, 0], atol=1e-6)


def test_whitened_shortens_what_varies_within_a_class() -> None:
    # Both classes vary along the third axis only, by the same: it is shortened by the root of 1 + 1.
    wiggle = 0.6
    rows = np.array([[0.8, 0, wiggle], [0.8, 0, -wiggle], [0, 0.8, wiggle], [0, 0.8, -wiggle]])
    space = fit_space(rows, owners(0, 0, 1, 1), "whitened")
    assert space.axes is not None
    np.testing.assert_allclose(np.abs(space.axes[:, 0]), [0, 0, 1], atol=1e-6)
    expected = unit_rows(np.array([[0.8, 0, wiggle / np.sqrt(2)]]))
    np.testing.assert_allclose(space.transform(rows[:1]), expected, atol=1e-6)
    plain, white = unit_rows(rows) @ unit_rows(rows).T, space.transform(rows) @ space.transform(rows).T
    assert white[0, 1] > plain[0, 1]  # the class draws together
    assert white[0, 2] < plain[0, 2]  # and away from the other, with which it shared the wiggle


@pytest.mark.parametrize("kind", ["whitened", "raw"])
def test_one_template_a_class_teaches_nothing(kind: Kind) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 5))
    space = fit_space(rows, owners(0, 1, 2), kind)
    np.testing.assert_allclose(space.transform(rows), unit_rows(rows), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_ng_templates_teach_nothing(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 5))
    more = np.vstack([rows, rng.normal(size=(3, 5))])
    with_ng = fit_space(more, owners(0, 0, 0, 1, 1, 1, -1, -1, -1), kind)
    without = fit_space(rows, owners(0, 0, 0, 1, 1, 1), kind)
    np.testing.assert_array_equal(with_ng.transform(rows), without.transform(rows))


@pytest.mark.parametrize("kind", KINDS)
@given(arrays(np.float32, (5, 4), elements=st.floats(-2, 2, width=32)), st.integers(0, 4))
def test_unit_rows_and_no_company(kind: Kind, rows: np.ndarray, first: int) -> None:
    templates = np.random.default_rng(1).normal(size=(7, 4))
    space = fit_space(templates, owners(0, 0, 0, 1, 1, 2, -1), kind)
    found = space.transform(rows)
    lengths = np.linalg.norm(found, axis=1)
    assert ((np.abs(lengths - 1) < 1e-5) | (lengths == 0)).all()
    np.testing.assert_allclose(space.transform(rows[:first]), found[:first], atol=1e-6)


def test_nothing_to_learn_from() -> None:
    for kind in KINDS:
        space = fit_space(np.empty((0, 3)), owners(), kind)
        np.testing.assert_allclose(space.transform(np.array([[0.0, 0, 2]])), [[0, 0, 1]])
        alike = fit_space(np.ones((4, 3)), owners(0, 0, 1, 1), kind)
        assert np.isfinite(alike.transform(np.array([[1.0, 2, 3]]))).all()


@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [(1, [0.9, 0.4, -1]), (2, [0.7, 0.4, -1]), (3, [0.5, 0.4, -1]), (9, [0.5, 0.4, -1])],
)
def test_class_similarity_is_the_mean_of_the_nearest(neighbours: int, expected: list[float]) -> None:
    similarity = np.array([[0.5, 0.1, 0.9, 0.4, 0.99]], np.float32)
    found = class_similarity(similarity, owners(0, 0, 0, 1, -1), 3, neighbours)
    np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_templates_that_do_not_count_are_left_out() -> None:
    similarity = np.array([[-np.inf, 0.2, 0.4, -np.inf]], np.float32)
    found = class_similarity(similarity, owners(0, 0, 0, 1), 2, 3)
    np.testing.assert_allclose(found, [[0.3, -np.inf]], atol=1e-6)


def test_background_is_the_nearest_tenth() -> None:
    crop = np.array([[1.0, 0.0]], np.float32)
    angles = np.radians([60.0, 90, 120, 150, 180, 180, 180, 180, 180, 180, 0, *[180] * 9])
    background = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    np.testing.assert_allclose(background_similarity(crop, background), [(1 + 0.5) / 2], atol=1e-6)
    assert background_similarity(crop, None).tolist() == [0.0]


def test_a_background_lowers_what_resembles_everything() -> None:
    rows = np.array([[1.0, 0, 0], [0, 1, 0]])
    common = np.array([[1.0, 0.1, 0], [1, 0, 0.1], [1, 0, -0.1], [0.1, 0, 1]])
    config = MatchingConfig(space="raw", neighbours=1)
    bank = make_bank(
        ("a", "b"), np.vstack([rows, common]), owners(0, 1, *[BACKGROUND_OWNER] * len(common)), config
    )
    assert bank.embeddings.shape == (2, 3)
    assert bank.background is not None
    assert bank.background.shape == (4, 3)
    matches = match(rows, bank)
    # The nearest tenth of four is one: cosine 0.995 for (1, 0, 0), and 0.0995 for (0, 1, 0).
    expected = [1 - 1 / np.sqrt(1.01), 1 - 0.1 / np.sqrt(1.01)]
    np.testing.assert_allclose(matches.similarity, expected, atol=1e-5)


def test_a_template_is_as_similar_as_its_nearest_turn() -> None:
    rows, turned = np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[0, 0, 1.0], [0.6, 0, 0.8]])
    config = MatchingConfig(space="raw", neighbours=1)
    bank = make_bank(("a", "b"), rows, owners(0, 1), config, [turned])
    matches = match(np.array([[0, 0, 1.0], [0, 1, 0], [1, 0, 0]]), bank)
    assert matches.nearest.tolist() == [0, 1, 0]
    np.testing.assert_allclose(matches.similarity, [1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(matches.margin, [0.2, 1, 0.4], atol=1e-6)
    # As a crop a template stands upright, and its own turns show no right match.
    assert bank.held_out is not None
    np.testing.assert_allclose(bank.held_out, [[-np.inf, 0.6], [0, -np.inf]], atol=1e-6)
    assert suggest_lambda(bank) == pytest.approx((1 + 0.6) / 2)


def test_turned_templates_of_any_space() -> None:
    rows, numbers = blobs(0, 6)
    plain, _ = blobs(2, 6)
    for kind in KINDS:
        config = MatchingConfig(space=kind)
        bank = make_bank(("a", "b", "c"), rows, numbers, config, [plain, rows])
        assert bank.held_out is not None
        assert bank.held_out.shape == (18, 18)
        assert len(bank.turned) == 2
        same = make_bank(("a", "b", "c"), rows, numbers, MatchingConfig(space="raw"), [rows])
        alone = make_bank(("a", "b", "c"), rows, numbers, MatchingConfig(space="raw"))
        np.testing.assert_array_equal(match(plain, same).similarity, match(plain, alone).similarity)


def blobs(seed: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in 40 dimensions; a shared nuisance direction drowns what tells them apart."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(3), per_class)
    rows = 0.15 * rng.normal(size=(len(numbers), 40))
    rows[:, :3] += 0.5 * np.eye(3)[numbers]
    rows[:, 3:6] += 1.2 * rng.normal(size=(len(numbers), 3))
    return rows, numbers.astype(np.int64)


def test_whitening_finds_classes_that_raw_cosine_misses() -> None:
    templates, numbers = blobs(0, 20)
    crops, truth = blobs(1, 100)
    right = {}
    for kind in KINDS:
        bank = make_bank(("a", "b", "c"), templates, numbers, MatchingConfig(space=kind, neighbours=3))
        right[kind] = float((match(crops, bank).nearest == truth).mean())
    assert right["whitened"] > right["raw"] + 0.05
    assert right["discriminant"] > right["centred"] + 0.05


def test_lambda_expects_crops_and_not_templates() -> None:
    """Templates lie nearer together in a space learnt from them than crops will."""
    templates, numbers = blobs(0, 10)
    crops, truth = blobs(1, 100)
    bank = make_bank(("a", "b", "c"), templates, numbers, MatchingConfig(space="whitened", neighbours=1))
    naive = bank.embeddings @ bank.embeddings.T
    np.fill_diagonal(naive, -np.inf)
    assert bank.held_out is not None
    own = numbers[:, None] == numbers[None, :]
    fitted = np.where(own, naive, -np.inf).max(1).mean()
    honest = np.where(own, bank.held_out, -np.inf).max(1).mean()
    similarity = bank.space.transform(crops) @ bank.embeddings.T
    real = np.where(truth[:, None] == numbers[None, :], similarity, -np.inf).max(1).mean()
    assert abs(honest - real) < abs(fitted - real)
    assert -1 <= suggest_lambda(bank) <= 1


@pytest.mark.parametrize("kind", ["centred", "discriminant"])
def test_held_out_similarity_of_one_template_a_class_is_centred_too(kind: Kind) -> None:
    rows = 0.3 * np.eye(8) + 1  # alike but for a little
    apart = ~np.eye(8, dtype=bool)
    assert held_out_similarity(rows, np.arange(8), "raw")[apart].min() > 0.9
    assert held_out_similarity(rows, np.arange(8), kind)[apart].max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_similarity_has_no_self(kind: Kind) -> None:
    rows, numbers = blobs(0, 4)
    numbers[-1] = -1
    found = held_out_similarity(rows, numbers, kind)
    assert np.isneginf(np.diag(found)).all()
    assert np.isfinite(found[~np.eye(len(rows), dtype=bool)]).all()
