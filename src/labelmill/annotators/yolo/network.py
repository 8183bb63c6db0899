"""YOLOv5 as ultralytics builds it, kept from the network, from its settings folder and from pickles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmill.annotators.devices import require
from labelmill.errors import WeightsError

if TYPE_CHECKING:
    import torch


def quiet() -> None:
    """Prepare ultralytics' surroundings, before its first import.

    By itself it asks name servers whether it is online, installs packages, fetches fonts and weights, and
    writes its settings into the user's configuration folder.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(cache / "labelmill"))


def tame() -> None:
    """Undo what ultralytics does to a process, after its import, which may not have been ours.

    It logs to stdout, where results belong. It replaces Pillow's `open` by one that, wherever a file is no
    image, looks for a package that reads HEIF and raises ImportError instead of UnidentifiedImageError.
    """
    from PIL import Image
    from ultralytics.utils import LOGGER, patches

    Image.open = patches._image_open
    LOGGER.setLevel("WARNING")
    LOGGER.handlers.clear()
    LOGGER.propagate = True  # to whatever this process does with its logs


def build(architecture: str, class_count: int) -> torch.nn.Module:
    """The network with random weights, in training mode.

    Args:
        architecture: "yolov5n" to "yolov5x".
        class_count: How many classes its head tells apart.
    """
    require("ultralytics", "training")
    quiet()
    from ultralytics.nn.tasks import DetectionModel

    tame()
    network: torch.nn.Module = DetectionModel(f"{architecture}.yaml", nc=class_count, verbose=False)
    return network


def fused(network: torch.nn.Module) -> torch.nn.Module:
    """The network for inference: batch norms folded in, one output of shape (n, 4 + classes, anchors)."""
    model: Any = network.eval().float()
    model.fuse(verbose=False)
    model.requires_grad_(False)
    head = model.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", True  # one decoded tensor, for any input size
    ready: torch.nn.Module = model
    return ready


def start_from(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> int:
    """Fill a network with the tensors that fit it by name and shape: a whole model, or a backbone alone.

    Returns:
        How many of the network's tensors were filled; the others keep their values.

    Raises:
        WeightsError: Fewer than half fit, so the file is of another network.
    """
    own = network.state_dict()
    fitting = {
        name: value.to(own[name].dtype)
        for name, value in tensors.items()
        if name in own and own[name].shape == value.shape
    }
    if len(fitting) < len(own) / 2:
        raise WeightsError(
            f"weights {path} do not fit the detector",
            got=f"{len(fitting)} of {len(own)} tensors alike in name and shape",
            expected="a state dict of the same size of YOLOv5, named as ultralytics names it",
            do="check --model, or convert the file",
        )
    network.load_state_dict(fitting, strict=False)
    return len(fitting)
