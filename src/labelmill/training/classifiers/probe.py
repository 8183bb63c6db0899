"""Linear probe: the head alone, on a frozen backbone."""

from __future__ import annotations

from labelmill.training.classifiers.full import merge, save_apart
from labelmill.training.classifiers.model import Classifier
from labelmill.training.config import ClassifierConfig

__all__ = ["merge", "prepare", "save_apart", "set_mode"]


def prepare(classifier: Classifier, config: ClassifierConfig) -> None:
    """Freeze the backbone."""
    classifier.encoder.requires_grad_(False)
    classifier.head.requires_grad_(True)


def set_mode(classifier: Classifier) -> None:
    """The backbone stays in evaluation mode, so that its batch statistics stay too."""
    classifier.train()
    classifier.encoder.eval()
