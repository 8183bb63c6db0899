"""A trained model as ONNX and OpenVINO graphs, each held against PyTorch before it is kept."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from labelmill.annotators.devices import require
from labelmill.annotators.graphs import Array, Graph, load_onnx, load_openvino
from labelmill.annotators.model_folder import (
    ONNX,
    OPENVINO,
    ModelInfo,
    read_model,
    write_model,
)
from labelmill.errors import TrainingError
from labelmill.files import replacing
from labelmill.training.checkpoints import writing

if TYPE_CHECKING:
    import torch

Format = Literal["onnx", "openvino"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino")

TOLERANCE = 1e-4
"""Most that an exported graph's outputs differ from PyTorch's in float32, as a share of the largest output (a
logit, or a coordinate in pixels). Both add the same numbers in another order."""

_OPSET = 18
_TRACED_PX = (64, 96)  # height and width differ, so that a graph that mixes them up is caught


def export(folder: Path, formats: Sequence[Format] = FORMATS) -> dict[str, float]:
    """Write exports into a model folder.

    Args:
        folder: Of the model.
        formats: Which.

    Returns:
        The largest difference from PyTorch of each format, as a share of the largest output.

    Raises:
        TrainingError: The folder is no model's, or a graph's outputs differ by more than `TOLERANCE`.
    """
    info = read_model(folder)
    network, example, checked = _network(folder, info)
    differences = {}
    with writing(folder):
        with replacing(folder / ONNX) as temporary:
            _write_onnx(network, example, info, temporary)
            reference = [_torch(network, batch) for batch in checked]
            if "onnx" in formats:
                differences["onnx"] = _difference(load_onnx(temporary), checked, reference, "ONNX")
            if "openvino" in formats:
                _write_openvino(temporary, folder)
                differences["openvino"] = _difference(
                    load_openvino(folder / OPENVINO), checked, reference, "OpenVINO"
                )
        if "onnx" not in formats and ONNX not in info.files:
            (folder / ONNX).unlink()
        write_model(folder, info)
    return differences


def _network(folder: Path, info: ModelInfo) -> tuple[torch.nn.Module, torch.Tensor, list[Array]]:
    """The network, an input to trace it with, and inputs of other sizes to check it with."""
    import torch

    random = np.random.default_rng(0)
    if info.kind == "detector":
        from labelmill.annotators.yolo.detector import load_network

        sizes = [(1, *_TRACED_PX), (2, 96, 160), (1, info.image_px, info.image_px)]
        network = load_network(folder, info)
    else:
        from labelmill.training.classifiers.predictor import load_network as load_classifier

        sizes = [(2, info.image_px, info.image_px), (1, info.image_px, info.image_px)]
        network = load_classifier(folder, info)
    batches = [random.random((n, 3, height, width), np.float32) for n, height, width in sizes]
    traced = torch.from_numpy(np.concatenate([batches[0]] * 2)[:2])
    return network.eval(), traced, batches


def _write_onnx(network: torch.nn.Module, example: torch.Tensor, info: ModelInfo, path: Path) -> None:
    require("onnxscript", "training")
    import torch

    size: Any = torch.export.Dim.DYNAMIC
    dynamic = {0: size, 2: size, 3: size} if info.kind == "detector" else {0: size}
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=True,
            input_names=["images"],
            output_names=["outputs"],
            dynamic_shapes=(dynamic,),
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )


def _write_openvino(onnx: Path, folder: Path) -> None:
    require("openvino", "training")
    import openvino

    (folder / OPENVINO).parent.mkdir(parents=True, exist_ok=True)
    model = openvino.convert_model(str(onnx))
    openvino.save_model(model, str(folder / OPENVINO), compress_to_fp16=False)


def _torch(network: torch.nn.Module, batch: Array) -> Array:
    import torch

    with torch.inference_mode():
        outputs: Array = network(torch.from_numpy(batch)).numpy()
    return outputs


def _difference(graph: Graph, batches: Sequence[Array], reference: Sequence[Array], name: str) -> float:
    worst = 0.0
    for batch, expected in zip(batches, reference, strict=True):
        given = graph(batch)
        if given.shape != expected.shape:
            raise TrainingError(
                f"the {name} graph gives another shape", got=given.shape, expected=str(expected.shape)
            )
        worst = max(worst, float(np.abs(given - expected).max() / max(1.0, np.abs(expected).max())))
    if not worst <= TOLERANCE:
        raise TrainingError(
            f"the {name} graph differs from PyTorch",
            got=f"{worst:.1e} of the largest output",
            expected=f"at most {TOLERANCE:.0e}",
            do="report it with the model's card",
        )
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter says much that is no news: attributes set while tracing, deprecations of its own calls."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
