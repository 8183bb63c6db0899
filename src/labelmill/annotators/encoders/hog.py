"""Shape and colour without any weights: histograms of oriented gradients beside histograms of colour.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection" (CVPR 2005), as OpenCV computes it,
then three steps that make the cosine tell crops apart:

- the square root of every count (the Hellinger kernel: Arandjelovic and Zisserman, "Three things everyone
  should know to improve object retrieval", CVPR 2012), so that one strong edge does not drown the rest;
- the descriptor's own mean taken away, which turns the cosine into a correlation: counts are never negative,
  so that two unrelated crops would have a cosine of about 0.6 instead of 0.1;
- shape and colour each of unit length before they are joined, so that neither rules by its dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from labelmill.annotators.crops import stack_crops
from labelmill.annotators.types import Embeddings, Image
from labelmill.config import MakerConfig

_CELL_PX = 8
_BLOCK_CELLS = 2
_ORIENTATIONS = 9  # over 180°: Dalal and Triggs, section 6.3
_COLOUR_GRID = 2  # quarters of the crop, so that "red above" differs from "red below"
_HUES, _SATURATIONS = 12, 4


class HogConfig(MakerConfig):
    """Settings of the `hog` encoder.

    Attributes:
        size_px: Side of the square that a crop is scaled to; a multiple of 8.
        colour_weight: Length of the colour part beside a shape part of length 1; 0 leaves colour out.
    """

    kind: Literal["hog"] = "hog"
    size_px: int = Field(default=64, ge=16, le=512, multiple_of=_CELL_PX)
    colour_weight: float = Field(default=0.7, ge=0, le=10)


class Hog:
    """HOG and hue-saturation histograms of a crop; the default that needs no download."""

    Config = HogConfig
    version = 1

    def __init__(self, config: HogConfig) -> None:
        self.config = config
        self._descriptor = _descriptor(config.size_px)
        self._shape_dim = int(self._descriptor.getDescriptorSize())
        colour_dim = _COLOUR_GRID**2 * _HUES * _SATURATIONS if config.colour_weight else 0
        self.dim = self._shape_dim + colour_dim

    def encode(self, crops: Sequence[Image]) -> Embeddings:
        """Embed crops.

        Returns:
            Float32, shape (len(crops), dim), rows of unit length; a crop of one even colour has no shape
            part.
        """
        pictures = stack_crops(crops, self.config.size_px)
        shape = np.empty((len(pictures), self._shape_dim), np.float32)
        for row, picture in zip(shape, pictures, strict=True):
            row[:] = self._descriptor.compute(picture).ravel()
        parts = [_unit(_centred_root(shape))]
        if self.config.colour_weight:
            colour = _unit(_centred_root(_colours(pictures)))
            parts.append(np.float32(self.config.colour_weight) * colour)
        return _unit(np.hstack(parts))

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings: OpenCV's descriptor cannot be pickled."""
        return type(self), (self.config,)


def _descriptor(size_px: int) -> Any:
    import cv2

    block = _BLOCK_CELLS * _CELL_PX
    return cv2.HOGDescriptor(
        (size_px, size_px), (block, block), (_CELL_PX, _CELL_PX), (_CELL_PX, _CELL_PX), _ORIENTATIONS
    )


def _colours(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Hue-saturation histograms of each quarter, shape (n, 192), in shares of a quarter's pixels."""
    import cv2

    n, size = pictures.shape[:2]
    if not n:
        return np.empty((0, _COLOUR_GRID**2 * _HUES * _SATURATIONS), np.float32)
    hsv = cv2.cvtColor(pictures.reshape(n * size, size, 3), cv2.COLOR_RGB2HSV).reshape(pictures.shape)
    hue = hsv[..., 0].astype(np.intp) * _HUES // 180  # OpenCV's 8-bit hue runs from 0 to 179
    saturation = hsv[..., 1].astype(np.intp) * _SATURATIONS // 256
    half = np.arange(size) * _COLOUR_GRID // size
    quarter = half[:, None] * _COLOUR_GRID + half[None, :]
    bins = (quarter * _HUES + hue) * _SATURATIONS + saturation
    per_picture = _COLOUR_GRID**2 * _HUES * _SATURATIONS
    bins += np.arange(n)[:, None, None] * per_picture
    counts = np.bincount(bins.ravel(), minlength=n * per_picture).reshape(n, per_picture)
    shares: npt.NDArray[np.float32] = (counts / (size * size / _COLOUR_GRID**2)).astype(np.float32)
    return shares


def _centred_root(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    rooted = np.sqrt(values)
    centred: npt.NDArray[np.float32] = rooted - rooted.mean(axis=1, keepdims=True)
    return centred


def _unit(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return unit
