"""Model weights from files, without ever running what a file says.

A PyTorch file is a pickle, and a pickle is a program. Files are read as safetensors, or by PyTorch's
restricted reader (`weights_only=True`), which builds tensors and plain containers and nothing else.
"""

from __future__ import annotations

import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmill.errors import WeightsError

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training scripts keep the tensors beside their own bookkeeping."""

_SHOWN = 3


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a weights file onto the CPU.

    Args:
        path: A `.safetensors` file, or a file that `torch.save` wrote; a state dict below one of the usual
            keys ("state_dict", "model") is unwrapped.

    Returns:
        Tensors by name, as stored.

    Raises:
        WeightsError: The file is absent, damaged, holds no tensors, or is a pickle of live objects.
    """
    if not path.is_file():
        raise WeightsError(
            f"weights {path} are absent" if not path.exists() else f"weights {path} are not a file",
            expected="a .safetensors file or a PyTorch state dict",
            do="check the path",
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    tensors = _unwrap(_read_restricted(path))
    if not tensors:
        raise WeightsError(
            f"weights {path} hold no state dict", expected="tensors by name", do="save model.state_dict()"
        )
    return tensors


def load_strictly(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Fill a model with exactly these tensors.

    Args:
        model: Where they go.
        tensors: By the model's own names.
        path: Where they came from, for the message.

    Raises:
        WeightsError: A name or a shape differs; the message shows the first few.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    problems = [f"{name} {list(wanted[name])} is missing" for name in wanted if name not in given]
    problems += [f"{name} is unknown" for name in given if name not in wanted]
    problems += [
        f"{name} is {list(given[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise WeightsError(
            f"weights {path} do not fit the model",
            got="; ".join(problems[:_SHOWN]) + more,
            expected=f"{len(wanted)} tensors",
            do="check the model's name and its arguments in the line file",
        )
    model.load_state_dict(dict(tensors), strict=True)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"weights {path} cannot be read", got=error, expected="a safetensors file", do="fetch it again"
        ) from error
    return tensors


def _read_restricted(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights {path} are a pickle of live objects, which could run any program",
            expected="safetensors, or a state dict of tensors only",
            do=f"convert it where you trust it: {conversion_command(path)}",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"weights {path} cannot be read",
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            expected="a .safetensors file or a PyTorch state dict",
            do="fetch the file again",
        ) from error


def conversion_command(path: Path) -> str:
    """The command that turns a pickled model or checkpoint into safetensors, on a machine that trusts it."""
    program = (
        "import sys, torch, safetensors.torch as s; "
        "c = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
        "c = c.get('state_dict', c.get('model', c)) if isinstance(c, dict) else c; "
        "c = c.state_dict() if hasattr(c, 'state_dict') else c; "
        "s.save_file({k: v.clone().contiguous() for k, v in c.items()}, sys.argv[2])"
    )
    # Beside a pytorch_model.bin, transformers reads model.safetensors and no other name.
    target = path.with_name(f"{path.stem.replace('pytorch_model', 'model')}.safetensors")
    return f'python -c "{program}" {shlex.quote(str(path))} {shlex.quote(str(target))}'


def _unwrap(loaded: Any) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(loaded, Mapping):
        return {}
    for key in _WRAPPERS:
        if isinstance(loaded.get(key), Mapping):
            return _unwrap(loaded[key])
    if not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        return {}
    return dict(loaded)
