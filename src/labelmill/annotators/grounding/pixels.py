"""Frames as Grounding DINO reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from labelmill.annotators.types import Image

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in 0 to 1: what every Swin backbone of the two makers was trained with."""


def target_hw(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Size after scaling the shorter side to `shortest`, unless the longer one would exceed `longest`.

    Follows transformers' `get_size_with_aspect_ratio` to the pixel. The original package's transform rounds
    once more and differs by one pixel for some shapes; both makers use this one.

    Args:
        height: In pixels, of the frame.
        width: In pixels, of the frame.
        shortest: Wanted length of the shorter side, in pixels.
        longest: Greatest length of the longer side, in pixels.
    """
    small, large = min(height, width), max(height, width)
    exact = float(shortest)
    if large / small * shortest > longest:
        exact = longest * small / large
    side = round(exact)
    if small == side:
        return height, width
    other = int(exact * large / small)
    return (side, other) if height <= width else (other, side)


def places(height: int, width: int) -> int:
    """How many places of a scaled frame may become boxes: feature maps have strides of 8, 16, 32, 64."""
    return sum(-(-height // stride) * -(-width // stride) for stride in (8, 16, 32, 64))


class PixelReader:
    """Scales and normalises frames of one size.

    On the CPU the result equals transformers' image processor to 1e-6: bilinear with antialiasing, rounded
    to whole grey levels, as Pillow does in the original. On an accelerator frames travel as bytes, are scaled
    there in float32 and rounded: within one grey level (0.02 after normalising).

    Args:
        device: Where the model is.
        shortest_px: See `target_hw`.
        longest_px: See `target_hw`.
    """

    def __init__(self, device: torch.device, shortest_px: int, longest_px: int) -> None:
        import torch

        self._device = device
        self._limits = shortest_px, longest_px
        std = torch.tensor(STD, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        mean = torch.tensor(MEAN, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), mean / std

    def __call__(self, images: Sequence[Image]) -> torch.Tensor:
        """Make a batch.

        Args:
            images: RGB, all of one shape.

        Returns:
            Float32, shape (len(images), 3, height_px, width_px), on the device.
        """
        import torch

        height, width = images[0].shape[:2]
        size = target_hw(height, width, *self._limits)
        pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        if size != (height, width):
            if self._device.type != "cpu":  # bytes are interpolated on the CPU only
                pixels = pixels.float()
            pixels = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
            if pixels.is_floating_point():
                pixels = pixels.round_().clamp_(0, 255)
        return pixels.float().mul_(self._scale).sub_(self._shift).contiguous()
