from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labelmill.annotators.config import CropConfig
from labelmill.annotators.crops import cut, stack_crops


def coordinates(width: int = 20, height: int = 10) -> np.ndarray:
    """A picture whose red is the column and green the row, so that a crop says where it was cut."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(width)[None, :], np.arange(height)[:, None]
    return picture


@pytest.mark.parametrize(
    ("xyxy", "config", "left_top_right_bottom"),
    [
        ((2, 3, 6, 8), CropConfig(), (2, 3, 6, 8)),
        ((2.25, 3.75, 5.25, 7.5), CropConfig(), (2, 3, 6, 8)),  # every pixel that the box touches
        ((2, 3, 6, 8), CropConfig(margin=0.5), (0, 0, 8, 10)),
        ((8, 2, 12, 4), CropConfig(square=True), (8, 1, 12, 5)),
        ((8, 4, 10, 6), CropConfig(margin=0.5, square=True), (7, 3, 11, 7)),
        ((-5, -5, 3, 3), CropConfig(), (0, 0, 3, 3)),
        ((15, 5, 99, 99), CropConfig(), (15, 5, 20, 10)),
        ((4, 4, 4, 4), CropConfig(), (4, 4, 5, 5)),  # at least a pixel
        ((25, 15, 30, 20), CropConfig(), (19, 9, 20, 10)),
        ((0, 0, 20, 10), CropConfig(margin=2, square=True), (0, 0, 20, 10)),
    ],
)
def test_a_box_is_cut_out_with_its_margin_inside_the_frame(
    xyxy: tuple[float, ...], config: CropConfig, left_top_right_bottom: tuple[int, ...]
) -> None:
    (crop,) = cut(coordinates(), np.array([xyxy], np.float32), config)
    left, top = crop[0, 0, :2].tolist()
    right, bottom = crop[-1, -1, :2].tolist()
    assert (left, top, right + 1, bottom + 1) == left_top_right_bottom


def test_no_boxes_no_crops() -> None:
    assert cut(coordinates(), np.empty((0, 4), np.float32), CropConfig()) == []


def test_squash_fills_the_square_and_pad_keeps_the_aspect_ratio() -> None:
    wide = np.full((10, 40, 3), 200, np.uint8)
    assert (stack_crops([wide], 20) == 200).all()
    (padded,) = stack_crops([wide], 20, "pad")
    assert (padded[:7] == 127).all()
    assert (padded[7:12] == 200).all()
    assert (padded[12:] == 127).all()


def test_shrinking_averages_over_area() -> None:
    crop = np.zeros((8, 8, 3), np.uint8)
    crop[::2] = 200
    assert (stack_crops([crop], 4) == 100).all()


def test_each_axis_shrinks_or_grows_by_its_own_rule() -> None:
    tall = np.zeros((64, 2, 3), np.uint8)
    tall[::2] = 200  # bilinear sampling would see 0 or 200
    assert (stack_crops([tall], 8) == 100).all()


def test_same_size_is_untouched() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(stack_crops([crop], 16)[0], crop)


@pytest.mark.parametrize(
    "crop",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3)),
    ],
)
def test_what_is_no_crop_is_refused(crop: Any) -> None:
    with pytest.raises(ValueError, match="crop must be"):
        stack_crops([crop], 8)
