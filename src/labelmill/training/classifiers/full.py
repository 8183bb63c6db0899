"""Full fine-tuning: every weight of the backbone and the head."""

from __future__ import annotations

from pathlib import Path

from labelmill.training.classifiers.model import Classifier
from labelmill.training.config import ClassifierConfig


def prepare(classifier: Classifier, config: ClassifierConfig) -> None:
    """Train everything."""
    classifier.requires_grad_(True)


def set_mode(classifier: Classifier) -> None:
    """Everything in training mode."""
    classifier.train()


def save_apart(classifier: Classifier, folder: Path) -> None:
    """Nothing was added."""


def merge(classifier: Classifier) -> Classifier:
    """Already plain."""
    return classifier
