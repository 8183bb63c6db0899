"""Where a model runs and in which number format, when a line file says `auto`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from labelmill.errors import LineFileError, MissingDependencyError
from labelmill.memory import reuse_large_blocks

if TYPE_CHECKING:
    import torch

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def require(package: str, extra: str = "foundation") -> None:
    """Say how to install an optional package that is absent.

    Raises:
        MissingDependencyError: It cannot be found.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingDependencyError(
            f"{package} is not installed", do=f'install it: pip install "labelmill[{extra}]"'
        )


def choose_device(name: str) -> torch.device:
    """Resolve `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        LineFileError: The device is unknown, or this machine has none.
        MissingDependencyError: torch is not installed.
    """
    require("torch")
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LineFileError(f"unknown device {name!r}", expected="auto, cpu, cuda, cuda:N or mps") from error
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        built = torch.version.cuda or getattr(torch.version, "hip", None)
        found = f"{torch.cuda.device_count()} that torch can use" if built else "a torch built without CUDA"
        raise LineFileError(
            f"this machine has no device {name!r}",
            got=found if device.type == "cuda" else None,
            do="write device: auto, or see whether nvidia-smi names one" if built else "write device: auto",
        )
    return device


def use_device(name: str) -> torch.device:
    """Resolve a device as `choose_device` does, and ready this process to run networks on it.

    Raises:
        LineFileError: The device is unknown, or this machine has none.
    """
    device = choose_device(name)
    if device.type == "cpu":
        reuse_large_blocks()
    return device


@contextmanager
def memory_errors(kind: str) -> Iterator[None]:
    """Say what to do when an accelerator's memory is full.

    Args:
        kind: Of the maker, for the message.

    Raises:
        LineFileError: A model or a batch does not fit.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise LineFileError(
            f"{kind!r} does not fit into the memory of its device",
            got=str(error).partition(". ")[0],
            do="write a smaller batch_size, or device: cpu; finished work is kept",
        ) from error


def choose_batch_size(wanted: int | None, device: torch.device) -> int:
    """Crops in one forward pass, where the line file leaves it open.

    On a CPU few: many more would only take more memory.
    """
    return wanted or (16 if device.type == "cpu" else 128)


def choose_dtype(name: Dtype, device: torch.device) -> torch.dtype:
    """Resolve `auto`: half precision where the hardware multiplies it natively, float32 elsewhere.

    On CUDA this is bfloat16 from compute capability 8.0 (Ampere) on, and float16 before. On a CPU it is
    bfloat16 only with AMX or AVX-512-BF16 units; without them every product is widened first and is slower.
    """
    import torch

    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    import torch

    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)) is not None)
