"""A trained detector, loaded from its model folder and run on frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labelmill.annotators.detections import detections_class
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
from labelmill.annotators.yolo.decode import decode
from labelmill.annotators.yolo.letterbox import letterbox, to_frame

if TYPE_CHECKING:
    import supervision as sv
    import torch


class Detector:
    """Finds and names regions in frames (LRIAR, eq. 5 at work).

    Args:
        info: What the model is.
        graph: The network: pictures (n, 3, height, width), RGB 0 to 1, to (n, 4 + classes, anchors).
        image_px: Longer side of its input; the one that it was trained on when absent.
    """

    def __init__(self, info: ModelInfo, graph: Graph, image_px: int | None = None) -> None:
        self.info = info
        self.image_px = image_px or info.image_px
        self._graph = graph

    @classmethod
    def load(
        cls,
        root: Path,
        backend: Backend = "torch",
        *,
        image_px: int | None = None,
        device: str = "auto",
        threads: int = 0,
        precision: Precision = "float32",
    ) -> Detector:
        """Load a detector that labelmill trained.

        Args:
            root: The model folder.
            backend: What runs it; the last two run on the CPU and need an export.
            image_px: Longer side of the input; the trained one when absent.
            device: For torch.
            threads: For the other two; 0 for one each core.
            precision: For OpenVINO.

        Raises:
            TrainingError: The folder is not a detector's.
            WeightsError: A file is absent or damaged.
        """
        info = read_model(root, "detector")
        if backend == "onnx":
            return cls(info, load_onnx(trusted_file(root, info, ONNX), threads), image_px)
        if backend == "openvino":
            trusted_file(root, info, OPENVINO_WEIGHTS)
            return cls(info, load_openvino(trusted_file(root, info, OPENVINO), threads, precision), image_px)
        return cls(info, torch_graph(load_network(root, info), device), image_px)

    def detect(
        self, images: Sequence[Image], threshold: float = 0.25, iou_threshold: float = 0.6
    ) -> list[sv.Detections]:
        """Detect in frames; frames of one size are one batch.

        Args:
            images: RGB.
            threshold: Lowest score.
            iou_threshold: Of non-maximum suppression within a class.

        Returns:
            One for each frame, best first: `xyxy` in pixels of the frame, `confidence`, `class_id`, and the
            class's name in `data["class_name"]`.
        """
        detections = detections_class()
        placed = [letterbox(image, self.image_px) for image in images]
        shapes = [picture.shape for picture, _ in placed]
        results: list[sv.Detections] = [detections.empty() for _ in images]
        names = np.array(self.info.classes)
        for shape in dict.fromkeys(shapes):
            rows = [row for row, other in enumerate(shapes) if other == shape]
            raw = self._graph(to_input([placed[row][0] for row in rows]))
            for row, output in zip(rows, raw, strict=True):
                found = decode(output, threshold, iou_threshold)
                results[row] = detections(
                    xyxy=to_frame(found.xyxy, placed[row][1]),
                    confidence=found.scores,
                    class_id=found.classes,
                    data={"class_name": names[found.classes]},
                )
        return results


def to_input(pictures: Sequence[Image]) -> Array:
    """Pictures of one size as the network takes them: (n, 3, height, width), 0 to 1."""
    batch = np.empty((len(pictures), 3, *pictures[0].shape[:2]), np.float32)
    for row, picture in zip(batch, pictures, strict=True):
        np.multiply(picture.transpose(2, 0, 1), np.float32(1 / 255), out=row)
    return batch


def load_network(root: Path, info: ModelInfo) -> torch.nn.Module:
    """The network of a model folder, ready for inference.

    Raises:
        WeightsError: The weights are absent, damaged, or of another network.
    """
    from labelmill.annotators.state_dicts import load_strictly, read_state_dict
    from labelmill.annotators.yolo.network import build, fused

    network = build(info.architecture, len(info.classes))
    path = trusted_file(root, info, WEIGHTS)
    load_strictly(network, read_state_dict(path), path)
    return fused(network)


def torch_graph(network: torch.nn.Module, device_name: str) -> Graph:
    """A network that is ready for inference, behind the same call as an exported one."""
    import torch

    from labelmill.annotators.devices import choose_device

    device = choose_device(device_name)
    network = network.to(device).to(memory_format=torch.channels_last)

    def run(batch: Array) -> Array:
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
            output: Array = network(images).float().cpu().numpy()
        return output

    return run
