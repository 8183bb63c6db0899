"""Exported networks, run on a CPU: ONNX Runtime and OpenVINO behind one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labelmill.annotators.devices import require
from labelmill.errors import WeightsError

Array = npt.NDArray[np.float32]
Graph = Callable[[Array], Array]
"""One float32 input array to one float32 output array; the first axis counts items."""

Precision = Literal["float32", "bfloat16"]
"""Of the arithmetic inside. Left alone, OpenVINO takes bfloat16 where the processor has it, and its results
differ in the second decimal; so the format is always said."""


def load_onnx(path: Path, threads: int = 0) -> Graph:
    """Open a graph in ONNX Runtime.

    Args:
        path: The `.onnx` file.
        threads: Of one run; 0 for one each core.

    Raises:
        WeightsError: The file is no graph.
    """
    require("onnxruntime", "training")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3
    # Threads that spin between layers take the cores from the reader and the other network of a watch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own classes share no base below Exception
        raise _damaged(path, "an ONNX graph", error) from error
    name = session.get_inputs()[0].name

    def run(batch: Array) -> Array:
        return np.asarray(session.run(None, {name: batch})[0], np.float32)

    return run


def load_openvino(path: Path, threads: int = 0, precision: Precision = "float32") -> Graph:
    """Open a graph in OpenVINO; each shape of input is compiled once, which is faster than one for all.

    Args:
        path: The `.xml` file (or an `.onnx` one).
        threads: Of one run; 0 for one each core.
        precision: Of the arithmetic.

    Raises:
        WeightsError: The file is no graph.
    """
    require("openvino", "training")
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or available_cores(),
        "ENABLE_CPU_PINNING": False,  # a pinned one waits for its core while another idles
        "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
    }
    try:
        core.read_model(str(path))
    except RuntimeError as error:
        raise _damaged(path, "an OpenVINO graph", error) from error
    requests: dict[tuple[int, ...], Any] = {}
    running = Lock()  # a request holds one input and one output

    def run(batch: Array) -> Array:
        with running:
            if batch.shape not in requests:
                model = core.read_model(str(path))
                model.reshape(list(batch.shape))
                requests[batch.shape] = core.compile_model(model, "CPU", settings).create_infer_request()
            request = requests[batch.shape]
            request.infer([np.ascontiguousarray(batch)])
            return np.array(request.get_output_tensor(0).data, np.float32)

    return run


def available_cores() -> int:
    """Cores that this process may use, which a container's limits can make fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _damaged(path: Path, expected: str, error: Exception) -> WeightsError:
    lines = str(error).strip().splitlines()
    return WeightsError(
        f"{path} cannot be opened",
        got=lines[0] if lines else "",
        expected=expected,
        do="export the model again",
    )
