"""What every encoder around a neural backbone is: settings, a model loaded when needed, batches, travel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import Field

from labelmill.annotators.devices import Dtype, choose_batch_size, choose_device, choose_dtype, memory_errors
from labelmill.annotators.encoders.batches import Normaliser, Pixels, View, embed, to_numpy
from labelmill.annotators.types import Embeddings, Image
from labelmill.config import MakerConfig

if TYPE_CHECKING:
    import torch

Triple = tuple[float, float, float]
"""One number for each RGB channel."""


class BackboneConfig(MakerConfig):
    """Settings of every backbone.

    Attributes:
        fit: "squash" stretches a crop to the model's square, "pad" keeps its aspect ratio, "both" takes the
            mean of the two at twice the cost.
        turned: Take the mean over a crop's four quarter turns too, for things that lie at any angle; at four
            times the cost.
        batch_size: Crops in one forward pass; 16 on a CPU and 128 elsewhere when absent.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" is half precision where the hardware has units for it; "float32", "bfloat16", "float16".
    """

    fit: View = "squash"
    turned: bool = False
    batch_size: int | None = Field(default=None, ge=1)
    device: str = "auto"
    dtype: Dtype = "auto"

    not_in_key: ClassVar[frozenset[str]] = frozenset({"batch_size", "device"})

    def key_fields(self) -> dict[str, Any]:
        """As for every maker, with the number format that `auto` stands for on this machine."""
        return {**super().key_fields(), "dtype": str(choose_dtype(self.dtype, choose_device(self.device)))}


class SightConfig(BackboneConfig):
    """Settings of a backbone whose own preprocessing a line may overrule.

    Attributes:
        size_px: Side of the square that a crop is scaled to; the model's own when absent.
        mean: Of each RGB channel in units of the full range; the model's own when absent.
        std: Likewise.
    """

    size_px: int | None = Field(default=None, ge=16, le=4096)
    mean: Triple | None = None
    std: Triple | None = None


class Loaded(NamedTuple):
    """A model on its device, and what it wants to see.

    Attributes:
        model: The network, ready for inference.
        look: Normalised pictures, shape (n, 3, size_px, size_px), to embeddings, shape (n, dim).
        normalise: Pixels to what `look` takes.
        size_px: Side of the square.
    """

    model: Any
    look: Callable[[torch.Tensor], torch.Tensor]
    normalise: Normaliser
    size_px: int


ConfigT = TypeVar("ConfigT", bound=BackboneConfig)


class Backbone(ABC, Generic[ConfigT]):
    """An encoder around a neural backbone; a base class that a maker completes with `load`.

    The model is loaded when it is first needed, so that a run whose shards exist already loads none.

    Args:
        config: Settings.
    """

    version = 1

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings, and load there."""
        return type(self), (self.config,)

    @abstractmethod
    def load(self) -> Loaded:
        """Load the model.

        Raises:
            LabelmillError: The package, the weights or the device cannot be used.
        """

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        import numpy as np

        size = self._loaded.size_px
        return int(self._forward(np.zeros((1, size, size, 3), np.uint8)).shape[1])

    def encode(self, crops: Sequence[Image]) -> Embeddings:
        """Embed crops.

        Returns:
            Float32, shape (len(crops), dim), not normalised.
        """
        loaded = self._loaded
        return embed(
            crops,
            size_px=loaded.size_px,
            fit=self.config.fit,
            turned=self.config.turned,
            batch_size=choose_batch_size(self.config.batch_size, loaded.normalise.device),
            forward=self._forward,
            dim=self.dim,
        )

    def _forward(self, pixels: Pixels) -> Embeddings:
        import torch

        with torch.inference_mode(), memory_errors(self.config.kind):
            return to_numpy(self._loaded.look(self._loaded.normalise(pixels)))

    @cached_property
    def _loaded(self) -> Loaded:
        with memory_errors(self.config.kind):
            return self.load()
