"""What every neural encoder does around its forward pass: scale, normalise, batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from labelmill.annotators.crops import Fit, stack_crops
from labelmill.annotators.similarity import unit_rows
from labelmill.annotators.types import Embeddings, Image

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]
"""Crops of one size, RGB, shape (n, size_px, size_px, 3)."""


View = Literal["squash", "pad", "both"]
"""How a crop meets the model's square: stretched to fill it, scaled whole and padded, or once each."""

_TURNS = 4
"""Quarter turns in a whole one."""


def embed(
    crops: Sequence[Image],
    *,
    size_px: int,
    fit: View,
    turned: bool,
    batch_size: int,
    forward: Callable[[Pixels], Embeddings],
    dim: int,
) -> Embeddings:
    """Embed crops in batches; the next batch is scaled while one is with the model.

    Args:
        crops: RGB, any sizes.
        size_px: Side of the model's square.
        fit: With "both" a crop is embedded twice and the mean of the two directions taken: the one shows
            detail, the other true proportions.
        turned: Embed each view as it is and by a quarter, a half and three quarters of a turn, and take the
            mean of the directions.
        batch_size: Crops in one forward pass.
        forward: Pixels to embeddings, shape (n, dim).
        dim: Length of an embedding.

    Returns:
        Float32, shape (len(crops), dim).
    """
    fits: tuple[Fit, ...] = ("squash", "pad") if fit == "both" else (fit,)
    turns = range(_TURNS if turned else 1)
    views = len(fits) * len(turns)
    embeddings = np.zeros((len(crops), dim), np.float32)
    for one in fits:
        row = 0
        for pixels in _ahead(crops, batch_size, partial(stack_crops, size_px=size_px, fit=one)):
            own = slice(row, row + len(pixels))
            row = own.stop
            for turn in turns:
                found = forward(np.ascontiguousarray(np.rot90(pixels, turn, axes=(1, 2))))
                embeddings[own] += found if views == 1 else unit_rows(found) / np.float32(views)
    return embeddings


def _ahead(
    crops: Sequence[Image], batch_size: int, prepare: Callable[[Sequence[Image]], Pixels]
) -> Iterator[Pixels]:
    """Prepare batches of crops, each while the one before it is being used."""
    batches = [crops[start : start + batch_size] for start in range(0, len(crops), batch_size)]
    if len(batches) < 2:
        yield from map(prepare, batches)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="crops") as pool:
        coming = pool.submit(prepare, batches[0])
        for batch in batches[1:]:
            ready, coming = coming.result(), pool.submit(prepare, batch)
            yield ready
        yield coming.result()


def to_numpy(tensor: torch.Tensor) -> Embeddings:
    """A tensor of any device and number format as float32."""
    array: Embeddings = tensor.float().cpu().numpy()
    return array


class Normaliser:
    """Turns pixels into the tensor that a model was trained on: `(x / 255 - mean) / std`, channels first.

    Args:
        mean: Of each channel, in units of the full range 0 to 1.
        std: Likewise.
        device: Where the tensor goes; pixels travel there as bytes.
        dtype: Number format of the tensor.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], device: torch.device, dtype: torch.dtype
    ) -> None:
        import torch

        spread = torch.tensor(std, dtype=torch.float32, device=device).view(1, 1, 1, 3)
        self._scale = 1 / (255 * spread)
        self._shift = torch.tensor(mean, dtype=torch.float32, device=device).view(1, 1, 1, 3) / spread
        self.device, self._dtype = device, dtype

    def __call__(self, pixels: Pixels) -> torch.Tensor:
        """Normalise; the result is (n, 3, size_px, size_px) in channels-last memory, as it came."""
        import torch

        tensor = torch.from_numpy(pixels).to(self.device).float()
        return tensor.mul_(self._scale).sub_(self._shift).to(self._dtype).permute(0, 3, 1, 2)
