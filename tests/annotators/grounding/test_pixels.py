from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelmill.annotators.grounding.pixels import MEAN, STD, PixelReader, target_hw


@pytest.mark.parametrize(
    ("shape_hw", "expected"),
    [
        ((360, 640), (750, 1333)),
        ((1080, 1920), (750, 1333)),
        ((640, 360), (1333, 750)),
        ((480, 640), (800, 1066)),
        ((800, 1000), (800, 1000)),
        ((500, 500), (800, 800)),
    ],
)
def test_sizes(shape_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert target_hw(*shape_hw, 800, 1333) == expected


@given(height=st.integers(1, 4000), width=st.integers(1, 4000))
def test_sizes_are_those_of_transformers(height: int, width: int) -> None:
    from transformers.image_transforms import get_size_with_aspect_ratio

    assert target_hw(height, width, 800, 1333) == get_size_with_aspect_ratio((height, width), 800, 1333)


def images(count: int, shape_hw: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (*shape_hw, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("shape_hw", [(90, 160), (333, 500), (96, 160)])
def test_pixels_are_those_of_transformers(shape_hw: tuple[int, int]) -> None:
    from transformers import GroundingDinoImageProcessor

    batch = images(2, shape_hw)
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    expected = processor(images=batch, return_tensors="pt")["pixel_values"]
    found = PixelReader(torch.device("cpu"), 96, 160)(batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_pixels_are_those_of_the_original_within_a_grey_level() -> None:
    """The original scales with Pillow, whose fixed-point arithmetic rounds some values the other way."""
    from PIL import Image

    (image,) = images(1, (333, 500))
    height, width = target_hw(333, 500, 96, 160)
    scaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    expected = (scaled.astype(np.float32) / 255 - MEAN) / STD
    found = PixelReader(torch.device("cpu"), 96, 160)([image])[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1.01 / 255 / min(STD)


def test_float_scaling_as_on_an_accelerator_is_within_a_grey_level() -> None:
    (image,) = images(1, (333, 500))
    expected = PixelReader(torch.device("cpu"), 96, 160)([image])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    scaled = torch.nn.functional.interpolate(pixels, size=expected.shape[2:], mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    found = (scaled.round() / 255 - mean) / std
    assert (found - expected).abs().max() < 1.01 / 255 / min(STD)
