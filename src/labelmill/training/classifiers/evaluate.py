"""A trained classifier, measured on a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from labelmill.annotators.model_folder import ModelInfo
from labelmill.annotators.types import Image
from labelmill.datasets.tables import NG
from labelmill.errors import TrainingError
from labelmill.training.calibration import fit_temperature, log_loss, softmax
from labelmill.training.classification_metrics import (
    ClassificationMetrics,
    expected_calibration_error,
    measure,
)
from labelmill.training.classifiers.predictor import CropClassifier, labels_of, verdicts
from labelmill.training.inputs import Crop, load_rgb

Logits = npt.NDArray[np.float32]
_BATCH = 32


def evaluate_classifier(classifier: CropClassifier, crops: Sequence[Crop]) -> ClassificationMetrics:
    """Measure a classifier on the crops of a split.

    Raises:
        TrainingError: The split has a label that the classifier does not know.
    """
    info = classifier.info
    unknown = sorted({crop.label for crop in crops} - set(info.classes) - {NG})
    if unknown:
        raise TrainingError(
            f"the split has labels that the classifier was not trained on: {', '.join(unknown)}",
            expected=f"among {', '.join(info.classes)}",
            do="evaluate on the version that it was trained on, or train on this one",
        )
    images = (load_rgb(crop.path) for crop in crops)
    logits = [classifier.logits(part) for part in _batches(images, _BATCH)]
    return measure_logits(info, np.concatenate(logits), [crop.label for crop in crops])


def measure_logits(
    info: ModelInfo, logits: Logits, truth: Sequence[str], *, temperature: float | None = None
) -> ClassificationMetrics:
    """Labels, confusion and calibration from logits.

    Args:
        info: What the model is.
        logits: Shape (n, classes).
        truth: Of each crop; NG also where the model has no such class.
        temperature: The model's own when absent.
    """
    probabilities = softmax(logits, temperature or info.temperature)
    given = [verdict.label for verdict in verdicts(info, probabilities)]
    labels = labels_of(info)
    if NG in truth and NG not in labels:
        labels = (*labels, NG)
    known = np.array([name in info.classes for name in truth], bool)
    index = np.array([info.classes.index(name) if name in info.classes else -1 for name in truth], np.int64)
    right = probabilities.argmax(axis=1) == index
    return measure(
        labels,
        truth,
        given,
        calibration_error=expected_calibration_error(probabilities.max(axis=1), right),
        log_loss=log_loss(logits[known], index[known], temperature or info.temperature),
    )


def cross_fitted_calibration(
    logits: Logits, truth: npt.NDArray[np.int64], seed: int = 0
) -> tuple[float, float]:
    """Calibration error before and after temperature scaling, each half scaled by the other's temperature.

    A temperature judged on the crops that chose it would look better than it is.
    """
    order = np.random.default_rng(seed).permutation(len(truth))
    halves = order[::2], order[1::2]
    confidence = np.empty(len(truth))
    for fitted, judged in (halves, halves[::-1]):
        temperature = fit_temperature(logits[fitted], truth[fitted])
        confidence[judged] = softmax(logits[judged], temperature).max(axis=1) if len(judged) else 0
    right = logits.argmax(axis=1) == truth
    before = expected_calibration_error(softmax(logits).max(axis=1), right)
    return before, expected_calibration_error(confidence, right)


def _batches(items: Iterable[Image], size: int) -> Iterator[list[Image]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
