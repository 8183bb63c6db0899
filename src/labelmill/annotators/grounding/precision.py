"""Half precision where it costs nothing: in products of features, never in coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class _Exact(nn.Module):
    """Runs a part in float32, whatever surrounds it."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, hidden: torch.Tensor) -> Any:
        with torch.autocast(hidden.device.type, enabled=False):
            return self.part(hidden.float())


def _widen(module: nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    del module, arguments
    return output.float()


def lower_precision(model: nn.Module, dtype: torch.dtype, exact: Sequence[str]) -> None:
    """Store the weights of linear and convolution layers in half precision, to be run under autocast.

    Normalisations give float32, so that residuals, and the coordinates that take their format from them, keep
    it: bfloat16 has 8 significant bits, and a coordinate in it is off by up to 3 px of 1333.

    Args:
        model: Changed in place; run it under `torch.autocast` with the same dtype.
        dtype: bfloat16 or float16.
        exact: Names of parts that stay in float32: heads that give boxes and reference points.
    """
    parts = {name: model.get_submodule(name) for name in exact}
    spared = {id(module) for part in parts.values() for module in part.modules()}
    for module in model.modules():
        if id(module) in spared:
            continue
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.register_forward_hook(_widen)
        elif type(module) in (nn.Linear, nn.Conv2d):
            module.to(dtype)
    for name, part in parts.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _Exact(part))
