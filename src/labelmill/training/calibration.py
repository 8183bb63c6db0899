"""Scores that mean what they say: temperature scaling, and the threshold below which a crop is NG."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating]
Probabilities = npt.NDArray[np.float64]

_RANGE = (0.05, 20.0)  # of the temperature: beyond it the logits carry no more than their order
_STEPS = 60  # of the golden section, which shrinks the range by 0.618 each


def softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """Probabilities of each class, shape (n, classes)."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=1, keepdims=True), np.float64)


def log_loss(logits: Logits, truth: npt.NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean negative log probability of the true classes."""
    if not len(truth):
        return float("nan")
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(axis=1)
    total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float(np.mean(total - scaled[np.arange(len(truth)), truth]))


def fit_temperature(logits: Logits, truth: npt.NDArray[np.int64]) -> float:
    """The temperature that makes the log loss smallest; 1.0 without crops.

    The loss is unimodal in the temperature, so a golden section over its logarithm finds it. Each crop
    keeps a probability of 1 / (n + 2) for being of another class: otherwise n crops that are all right would
    argue for certainty about the next one.

    Sources: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2; the doubt is that
    of Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2.
    """
    if not len(truth):
        return 1.0
    doubt = 1 / (len(truth) + 2)

    def loss(exponent: float) -> float:
        return _doubtful_loss(logits, truth, math.exp(exponent), doubt)

    ratio = (math.sqrt(5) - 1) / 2
    low, high = (math.log(bound) for bound in _RANGE)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - ratio * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + ratio * (high - low)
            loss_right = loss(right)
    return math.exp((low + high) / 2)


def _doubtful_loss(logits: Logits, truth: npt.NDArray[np.int64], temperature: float, doubt: float) -> float:
    """Log loss where the true class has probability 1 - doubt, and the others share the rest."""
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(axis=1, keepdims=True)
    surprise = top + np.log(np.exp(scaled - top).sum(axis=1, keepdims=True)) - scaled
    true = surprise[np.arange(len(truth)), truth]
    others = (surprise.sum(axis=1) - true) / max(1, scaled.shape[1] - 1)
    return float(np.mean((1 - doubt) * true + doubt * others))


def choose_rejection(
    scores: npt.NDArray[np.floating], right: npt.NDArray[np.bool_], accept_accuracy: float
) -> float:
    """The lowest threshold at which the accepted crops reach an accuracy.

    Args:
        scores: Calibrated score of each crop's best class, shape (n,).
        right: Whether that class is true; never for an NG crop.
        accept_accuracy: Share of the accepted crops that must be right.

    Returns:
        A threshold t: crops with `score >= t` are accepted. The one of highest accuracy where none reaches
        the goal, and 0.0 without crops.
    """
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_score = np.append(sorted_scores[:-1] != sorted_scores[1:], True)  # equal scores go together
    candidates = np.flatnonzero(last_of_score)
    reached = candidates[accuracy[candidates] >= accept_accuracy]
    if len(reached):
        return float(sorted_scores[reached[-1]])
    best = accuracy[candidates].max()
    return float(sorted_scores[candidates[accuracy[candidates] == best][-1]])
