"""Writing small videos for tests."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from labelmill.images import Image


def write_video(
    path: Path,
    frames: Iterable[Image],
    fps: int | Fraction = 10,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write frames of one size as a video; the container follows the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = None
        for image in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=fps, options=options or {})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = pix_fmt
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))
    return path


def numbered(number: int, size_wh: tuple[int, int] = (160, 96)) -> Image:
    """A picture that carries its number in eight black or white bars, and a red square that moves."""
    width, height = size_wh
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(8):
        image[8:24, width // 8 * bit + 4 : width // 8 * (bit + 1) - 4] = 230 if number >> bit & 1 else 20
    left = (number * 5) % (width - 20)
    image[50:80, left : left + 20] = (220, 40, 40)
    return image


def number_of(image: Image) -> int:
    """Read the number of a picture made by `numbered`, after whatever a codec did to it."""
    width = image.shape[1]
    return sum(int(image[16, width // 8 * bit + width // 16].mean() > 128) << bit for bit in range(8))
