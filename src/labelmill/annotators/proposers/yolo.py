"""A trained detector of our own as a proposer: the loop closes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from labelmill.annotators.graphs import Precision
from labelmill.annotators.model_folder import ONNX, OPENVINO_WEIGHTS, WEIGHTS, Backend, read_model
from labelmill.annotators.types import Frame
from labelmill.config import FilePath, MakerConfig

if TYPE_CHECKING:
    import supervision as sv

    from labelmill.annotators.yolo.detector import Detector

_DECIDING: dict[Backend, str] = {"torch": WEIGHTS, "onnx": ONNX, "openvino": OPENVINO_WEIGHTS}


class YoloConfig(MakerConfig):
    """Settings of the `yolo` proposer.

    Attributes:
        model: Folder that `labelmill train detector` wrote.
        threshold: Lowest score of a box.
        iou_threshold: Of non-maximum suppression within a class.
        image_px: Longer side of the network's input, a multiple of 32; the trained one when absent.
        backend: "torch", or an export that lies in the folder: "onnx", "openvino".
        precision: Of OpenVINO's arithmetic.
        batch_size: Frames in one pass.
        device: For torch: "auto", "cpu", "cuda", "cuda:1", "mps".
    """

    kind: Literal["yolo"] = "yolo"
    model: FilePath
    threshold: float = Field(default=0.25, gt=0, lt=1)
    iou_threshold: float = Field(default=0.6, gt=0, le=1)
    image_px: int | None = Field(default=None, ge=32, le=4096, multiple_of=32)
    backend: Backend = "torch"
    precision: Precision = "float32"
    batch_size: int = Field(default=8, ge=1, le=256)
    device: str = "auto"

    not_in_key: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    def files(self) -> tuple[Path, ...]:
        """The weights that run; `model.json` would change with every export."""
        return (self.model / _DECIDING[self.backend],)

    def key_fields(self) -> dict[str, Any]:
        """The settings, and what `model.json` adds to a result: the classes' names and the input's size."""
        info = read_model(self.model, "detector")
        return super().key_fields() | {
            "classes": list(info.classes),
            "image_px": self.image_px or info.image_px,
        }


class Yolo:
    """Boxes of a trained YOLOv5, each named by its class.

    The model is loaded when the first frame comes, so that a run whose shards exist already loads none.

    Args:
        config: Settings.
    """

    Config = YoloConfig
    version: ClassVar[int] = 1
    sees_repeats: ClassVar[bool] = False

    def __init__(self, config: YoloConfig) -> None:
        self.config = config
        self._loading = Lock()
        self._loaded: Detector | None = None

    def propose(self, frames: Iterator[Frame]) -> Iterator[sv.Detections]:
        """Yield the boxes of each frame, `batch_size` frames later at most."""
        detector = self._load()
        while batch := [frame.image for frame in islice(frames, self.config.batch_size)]:
            for found in detector.detect(batch, self.config.threshold, self.config.iou_threshold):
                found.data["phrase"] = found.data.pop("class_name")
                yield found

    def _load(self) -> Detector:
        from labelmill.annotators.yolo.detector import Detector

        config = self.config
        with self._loading:
            if self._loaded is None:
                self._loaded = Detector.load(
                    config.model,
                    config.backend,
                    image_px=config.image_px,
                    device=config.device,
                    precision=config.precision,
                )
            return self._loaded

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings, and load there."""
        return type(self), (self.config,)
