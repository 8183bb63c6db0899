from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labelmill.annotators.crops import stack_crops


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
