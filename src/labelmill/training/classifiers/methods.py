"""Which ways to train a classifier exist, and what each must offer."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from labelmill.training.classifiers.model import Classifier
from labelmill.training.config import ClassifierConfig, Method

METHODS: dict[Method, str] = {
    "lora": "labelmill.training.classifiers.lora",
    "probe": "labelmill.training.classifiers.probe",
    "full": "labelmill.training.classifiers.full",
    "resnet18": "labelmill.training.classifiers.resnet18",
}


class TrainingMethod(Protocol):
    """A module that decides what of a classifier is trained."""

    def prepare(self, classifier: Classifier, config: ClassifierConfig) -> None:
        """Choose the trainable weights, adding adapters where the method has them."""

    def set_mode(self, classifier: Classifier) -> None:
        """Put the classifier in training mode, leaving what is frozen in evaluation mode."""

    def save_apart(self, classifier: Classifier, folder: Path) -> None:
        """Save what was added to the backbone, where the method adds something."""

    def merge(self, classifier: Classifier) -> Classifier:
        """The same function as a plain classifier, for deployment."""


def load_method(name: Method) -> TrainingMethod:
    """Import a method."""
    method: TrainingMethod = importlib.import_module(METHODS[name])
    return method
