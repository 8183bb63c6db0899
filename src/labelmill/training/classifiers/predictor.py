"""A trained classifier, loaded from its model folder and run on crops (LRIAR, eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from labelmill.annotators.crops import stack_crops
from labelmill.annotators.graphs import Array, Graph, Precision, load_onnx, load_openvino
from labelmill.annotators.model_folder import (
    ONNX,
    OPENVINO,
    OPENVINO_WEIGHTS,
    WEIGHTS,
    Backend,
    ModelInfo,
    read_model,
    trusted_file,
)
from labelmill.annotators.types import Image
from labelmill.datasets.tables import NG
from labelmill.training.calibration import softmax

if TYPE_CHECKING:
    from labelmill.training.classifiers.model import Classifier

_LARGEST_BATCH = 32


class Verdict(NamedTuple):
    """What a classifier says of a crop.

    Attributes:
        label: A class, or NG.
        score: Calibrated probability of the best class.
    """

    label: str
    score: float


class CropClassifier:
    """Names crops.

    Args:
        info: What the model is.
        graph: The network: pictures (n, 3, side, side), RGB 0 to 1, to logits (n, classes).
    """

    def __init__(self, info: ModelInfo, graph: Graph) -> None:
        self.info = info
        self._graph = graph

    @classmethod
    def load(
        cls,
        root: Path,
        backend: Backend = "torch",
        *,
        device: str = "auto",
        threads: int = 0,
        precision: Precision = "float32",
    ) -> CropClassifier:
        """Load a classifier that labelmill trained.

        Args:
            root: The model folder.
            backend: What runs it; the last two run on the CPU and need an export.
            device: For torch.
            threads: For the other two; 0 for one each core.
            precision: For OpenVINO.

        Raises:
            TrainingError: The folder is not a classifier's.
            WeightsError: A file is absent or damaged.
        """
        info = read_model(root, "classifier")
        if backend == "onnx":
            return cls(info, load_onnx(trusted_file(root, info, ONNX), threads))
        if backend == "openvino":
            trusted_file(root, info, OPENVINO_WEIGHTS)
            return cls(info, load_openvino(trusted_file(root, info, OPENVINO), threads, precision))
        return cls(info, _torch_graph(load_network(root, info), device))

    def logits(self, crops: Sequence[Image]) -> Array:
        """Raw scores of each class, shape (len(crops), classes).

        Batches are filled up to a power of two: a graph is compiled for each size of batch that it meets,
        and a stream must not wait for that at its first frame with three hands.
        """
        rows = [np.empty((0, len(self.info.classes)), np.float32)]
        for start in range(0, len(crops), _LARGEST_BATCH):
            part = crops[start : start + _LARGEST_BATCH]
            pixels = stack_crops(part, self.info.image_px)
            size = 1 << (len(part) - 1).bit_length()
            batch = np.zeros((size, 3, self.info.image_px, self.info.image_px), np.float32)
            np.multiply(pixels.transpose(0, 3, 1, 2), np.float32(1 / 255), out=batch[: len(part)])
            rows.append(self._graph(batch)[: len(part)])
        return np.concatenate(rows)

    def warm_up(self, most: int) -> None:
        """Run every size of batch up to `most` crops once, so that no frame waits for a compilation."""
        blank = np.zeros((8, 8, 3), np.uint8)
        size = 1
        while size < 2 * most and size <= _LARGEST_BATCH:
            self.logits([blank] * size)
            size *= 2

    def probabilities(self, crops: Sequence[Image]) -> npt.NDArray[np.float64]:
        """Calibrated probability of each class, shape (len(crops), classes)."""
        return softmax(self.logits(crops), self.info.temperature)

    def classify(self, crops: Sequence[Image]) -> list[Verdict]:
        """Name each crop."""
        return verdicts(self.info, self.probabilities(crops))


def verdicts(info: ModelInfo, probabilities: npt.NDArray[np.float64]) -> list[Verdict]:
    """The best class of each row, or NG where its score is below the model's threshold."""
    best = probabilities.argmax(axis=1)
    scores = probabilities[np.arange(len(best)), best]
    floor = info.reject_below if info.reject_below is not None else 0.0
    return [
        Verdict(info.classes[index] if score >= floor else NG, float(score))
        for index, score in zip(best, scores, strict=True)
    ]


def labels_of(info: ModelInfo) -> tuple[str, ...]:
    """Every label that the model can give, NG last where it can."""
    return info.classes if info.reject_below is None or NG in info.classes else (*info.classes, NG)


def load_network(root: Path, info: ModelInfo) -> Classifier:
    """The merged network of a model folder, in evaluation mode.

    Raises:
        WeightsError: The weights are absent, damaged, or of another network.
    """
    from labelmill.annotators.state_dicts import load_strictly, read_state_dict
    from labelmill.training.classifiers.model import Architecture, build

    classifier = build(Architecture(info.architecture, info.arguments), len(info.classes))
    path = trusted_file(root, info, WEIGHTS)
    load_strictly(classifier, read_state_dict(path), path)
    classifier.eval().requires_grad_(False)
    return classifier


def _torch_graph(network: Classifier, device_name: str) -> Graph:
    import torch

    from labelmill.annotators.devices import use_device

    device = use_device(device_name)
    network.to(device)

    def run(batch: Array) -> Array:
        with torch.inference_mode():
            output: Array = network(torch.from_numpy(batch).to(device)).float().cpu().numpy()
        return output

    return run
