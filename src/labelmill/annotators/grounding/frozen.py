"""What a detector need not compute again: the text side of a fixed prompt, and an image's features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class TextOnce(nn.Module):
    """Stands for the text encoder: each prompt group is encoded at its first use, and never again.

    The output of BERT depends on the prompt alone; image and text meet only later, in the fusion layers.
    It is encoded in float32 whatever the rest runs in, for it costs nothing. When every group is known, the
    encoder's memory (440 MB for BERT-base) is given back.

    Args:
        encoder: The text encoder.
        groups: How many prompt groups there are.
    """

    def __init__(self, encoder: nn.Module, groups: int) -> None:
        super().__init__()
        self.encoder: nn.Module | None = encoder
        self.groups = groups
        self.current = 0
        self._known: dict[int, torch.Tensor] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Give the hidden states of the current group, repeated for each image of the batch."""
        from transformers.modeling_outputs import BaseModelOutput

        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        if self.current not in self._known and self.encoder is not None:
            with torch.autocast(tensors[0].device.type, enabled=False):
                encoded = self.encoder(*map(_first, args), **{key: _first(kwargs[key]) for key in kwargs})
            self._known[self.current] = encoded["last_hidden_state"]
            if len(self._known) == self.groups:
                self.encoder = None
        hidden = self._known[self.current]
        return BaseModelOutput(last_hidden_state=hidden.expand(len(tensors[0]), -1, -1))


def _first(value: Any) -> Any:
    return value[:1] if isinstance(value, torch.Tensor) else value


class ImageOnce(nn.Module):
    """Stands for the image backbone: the same batch of pixels, given again for the next group, is remembered.

    Args:
        backbone: Called with the pixels, or with something that holds them.
        pixels_of: Finds the pixels in the first argument.
    """

    def __init__(self, backbone: nn.Module, pixels_of: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.backbone = backbone
        self._pixels_of = pixels_of
        self._seen: torch.Tensor | None = None
        self._known: tuple[list[Any], list[Any]] = ([], [])

    def forward(self, images: Any, *args: Any) -> tuple[list[Any], list[Any]]:
        """Give the feature maps and their position embeddings, in lists that the caller may extend."""
        pixels = self._pixels_of(images)
        if self._seen is not pixels:
            features, positions = self.backbone(images, *args)
            self._seen, self._known = pixels, (list(features), list(positions))
        return list(self._known[0]), list(self._known[1])

    def forget(self) -> None:
        """Let go of the last batch."""
        self._seen, self._known = None, ([], [])

    def __getitem__(self, index: int) -> nn.Module:
        """The original model reaches for its backbone's second part, the position embedding."""
        part: nn.Module = self.backbone[index]  # type: ignore[index]
        return part

    @property
    def position_embedding(self) -> nn.Module:
        """The port reaches for it by name."""
        part: nn.Module = self.backbone.position_embedding  # type: ignore[assignment]
        return part
