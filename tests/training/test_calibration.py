"""Temperatures and thresholds that are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from labelmill.training.calibration import choose_rejection, fit_temperature, log_loss, softmax
from labelmill.training.classification_metrics import expected_calibration_error
from labelmill.training.classifiers.evaluate import cross_fitted_calibration


def overconfident(count: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true temperature is `factor`: labels are drawn before they are multiplied."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, 4))
    draws = random.random((count, 1))
    truth = (draws > softmax(logits).cumsum(axis=1)).sum(axis=1)
    return (factor * logits).astype(np.float32), truth


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_finds_the_true_temperature(factor: float) -> None:
    logits, truth = overconfident(20_000, factor)
    assert fit_temperature(logits, truth) == pytest.approx(factor, rel=0.03)


def test_scaling_cures_overconfidence_also_on_crops_it_did_not_see() -> None:
    logits, truth = overconfident(4_000, 4.0)
    before, after = cross_fitted_calibration(logits, truth)
    assert before > 0.25
    assert after < 0.03


def test_a_faultless_split_is_no_proof_of_certainty() -> None:
    logits = np.tile(np.array([[3.0, 0.0]]), (20, 1))
    truth = np.zeros(20, np.int64)
    top = softmax(logits, fit_temperature(logits, truth)).max()
    assert top == pytest.approx(21 / 22, abs=1e-3)


def test_nothing_to_fit_changes_nothing() -> None:
    assert fit_temperature(np.empty((0, 3)), np.empty(0, np.int64)) == 1.0


def test_softmax_and_log_loss_of_huge_logits_are_finite() -> None:
    logits = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert softmax(logits).tolist() == [[1, 0], [0, 1]]
    assert log_loss(logits, np.array([0, 0])) == 5e3


@pytest.mark.parametrize(
    ("scores", "right", "goal", "threshold"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], 1.0, 0.8),
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], 0.75, 0.6),
        ([0.9, 0.8, 0.8, 0.6], [1, 1, 0, 1], 1.0, 0.9),  # equal scores go together
        ([0.9, 0.8], [0, 1], 0.99, 0.8),  # out of reach: the best there is
        ([], [], 0.99, 0.0),
    ],
)
def test_rejection_by_hand(scores: list[float], right: list[int], goal: float, threshold: float) -> None:
    assert choose_rejection(np.array(scores), np.array(right, bool), goal) == threshold


def test_calibrated_scores_are_accuracies() -> None:
    logits, truth = overconfident(20_000, 3.0, seed=1)
    probabilities = softmax(logits, fit_temperature(logits, truth))
    right = probabilities.argmax(axis=1) == truth
    assert expected_calibration_error(probabilities.max(axis=1), right) < 0.02
