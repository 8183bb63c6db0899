from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from labelmill.annotators.encoders.hog import Hog, HogConfig
from labelmill.annotators.types import Encoder, Image
from labelmill.makers import ENCODERS


def stripes(height: int, width: int, *, vertical: bool, colour: tuple[int, int, int]) -> Image:
    rows, columns = np.mgrid[:height, :width]
    on = (columns if vertical else rows) // 8 % 2 == 0
    return np.where(on[..., None], np.array(colour), 20).astype(np.uint8)


def test_is_registered_and_meets_the_protocol() -> None:
    encoder: Encoder = ENCODERS.make(ENCODERS.config("hog")(kind="hog"))
    assert isinstance(encoder, Hog)
    assert encoder.dim == 7 * 7 * 4 * 9 + 2 * 2 * 12 * 4


def test_rows_are_float32_of_unit_length_for_any_size() -> None:
    crops = [
        stripes(*size, vertical=True, colour=(200, 30, 30))
        for size in ((1, 1), (3, 400), (64, 64), (300, 20))
    ]
    embeddings = Hog(HogConfig()).encode(crops)
    assert embeddings.shape == (4, 1956)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_no_crops() -> None:
    assert Hog(HogConfig()).encode([]).shape == (0, 1956)


def test_a_batch_gives_what_single_crops_give() -> None:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (40 + 7 * i, 90 - 5 * i, 3), np.uint8) for i in range(8)]
    encoder = Hog(HogConfig())
    singles = np.vstack([encoder.encode([crop]) for crop in crops])
    np.testing.assert_array_equal(encoder.encode(crops), singles)


def test_cosine_tells_shape_and_colour_apart() -> None:
    red, same_red, blue, flat_red = Hog(HogConfig()).encode(
        [
            stripes(64, 64, vertical=True, colour=(220, 30, 30)),
            stripes(128, 128, vertical=True, colour=(220, 30, 30))[:64, :64],
            stripes(64, 64, vertical=True, colour=(30, 30, 220)),
            stripes(64, 64, vertical=False, colour=(220, 30, 30)),
        ]
    )
    assert red @ same_red == pytest.approx(1, abs=1e-5)
    assert 0.6 < red @ blue < 0.85  # same shape
    assert red @ flat_red < 0.45  # same colour
    assert red @ flat_red > blue @ flat_red


def test_colour_can_be_left_out() -> None:
    encoder = Hog(HogConfig(colour_weight=0))
    red, blue = encoder.encode(
        [
            stripes(64, 64, vertical=True, colour=(220, 30, 30)),
            stripes(64, 64, vertical=True, colour=(30, 30, 220)),
        ]
    )
    assert encoder.dim == 1764
    assert red @ blue > 0.95


def test_an_even_picture_has_no_shape_part() -> None:
    (embedding,) = Hog(HogConfig()).encode([np.full((30, 30, 3), 90, np.uint8)])
    assert not embedding[:1764].any()
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


def test_travels_between_processes() -> None:
    encoder = pickle.loads(pickle.dumps(Hog(HogConfig(size_px=32))))  # noqa: S301
    assert encoder.config == HogConfig(size_px=32)


@pytest.mark.parametrize("size_px", [8, 60, 1000])
def test_sizes_that_do_not_tile_are_refused(size_px: int) -> None:
    with pytest.raises(ValidationError):
        HogConfig(size_px=size_px)
