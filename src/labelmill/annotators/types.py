"""What passes between the parts of the annotators' room, and what a maker must offer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from labelmill.images import Image as Image  # part of this vocabulary

if TYPE_CHECKING:
    import supervision as sv

Boxes = npt.NDArray[np.float32]
"""Corners x1, y1, x2, y2 in pixels of the frame, shape (n, 4)."""

Embeddings = npt.NDArray[np.float32]
"""One row a crop, shape (n, dim)."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        source_digest: Content digest of the source that it came from.
        index: Position in the source, counted in decoding order from 0; 0 for a still image.
        timestamp_s: Seconds from the start of the source; 0.0 for a still image.
        image: RGB, shape (height_px, width_px, 3), uint8.
        name: Name of a still image within its folder; empty for a video frame.
    """

    source_digest: str
    index: int
    timestamp_s: float
    image: Image
    name: str = ""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"frame image must be (height, width, 3) uint8, got {self.image.shape} {self.image.dtype}"
            )


class Proposer(Protocol):
    """Finds regions worth looking at (LRIAR, eq. 1: `B_t = D_GD(I_t, T)`).

    Attributes:
        Config: Settings model of this kind.
        version: Raised when the same settings give other boxes than before; part of every shard key.
        sees_repeats: Whether frames dropped as repeats are fed too (a background model needs them).
    """

    Config: Any
    version: int
    sees_repeats: bool

    def propose(self, frames: Iterator[Frame]) -> Iterator[sv.Detections]:
        """Yield one `Detections` for each frame, in order.

        A maker may read ahead (to batch, or to look into the future) and yields as early as it can;
        whoever calls keeps every frame that was read and not yet answered, so the distance must be bounded.
        One maker serves several threads: keep what belongs to a stream in the call.

        Each `Detections` has `xyxy` (float32 pixels inside the frame), `confidence` (0 to 1) and
        `data["phrase"]` (array of str: the text or class name that the box answers to).
        """
        ...


class Encoder(Protocol):
    """Turns crops into embeddings (the ψ of LRIAR, eq. 2).

    Attributes:
        Config: Settings model of this kind.
        version: Raised when the same settings give other embeddings than before; part of every shard key.
    """

    Config: Any
    version: int

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def encode(self, crops: Sequence[Image]) -> Embeddings:
        """Embed crops of any size, RGB uint8; may be called from several threads at once.

        Returns:
            Float32, shape (len(crops), dim), one row a crop; not necessarily normalised.
        """
        ...
