from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmill.annotators.proposers.motion import Motion, MotionConfig
from labelmill.annotators.proposers.motion_boxes import (
    areas_of,
    drop_shadows,
    level_light,
    noise_of,
    skin_mask,
)
from labelmill.annotators.proposers.motion_scene import ordered
from labelmill.annotators.types import Frame
from labelmill.images import Image
from labelmill.training.evaluation import BoxSet, Tally, tally

Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 320, 180
GREY, RED, BLUE, SKIN = (128, 128, 128), (200, 20, 25), (40, 60, 200), (205, 140, 110)


def picture(
    *boxes: tuple[Box, Colour], size_wh: tuple[int, int] = (WIDTH, HEIGHT), ground: Colour = GREY
) -> Image:
    """A picture of one colour with coloured boxes on it."""
    image = np.full((size_wh[1], size_wh[0], 3), ground, np.uint8)
    for (x1, y1, x2, y2), colour in boxes:
        image[y1:y2, x1:x2] = colour
    return image


def frames(images: Iterable[Image], first: int = 0) -> Iterator[Frame]:
    for index, image in enumerate(images, start=first):
        yield Frame("source", index, index / 30, image)


def boxes(images: Iterable[Image], **settings: Any) -> list[list[Box]]:
    """What is proposed for each picture, rounded to whole pixels."""
    proposer = Motion(MotionConfig(**settings))
    return [
        [tuple(round(float(side)) for side in box) for box in found.xyxy]  # type: ignore[misc]
        for found in proposer.propose(frames(images))
    ]


def travelling(number: int) -> Box:
    """A square of 40 pixels that goes to and fro, 4 pixels a frame."""
    place = (4 * number) % 520
    left = 10 + min(place, 520 - place)
    return (left, 60, left + 40, 100)


def travel(count: int, colour: Colour = RED) -> list[Image]:
    return [picture((travelling(number), colour)) for number in range(count)]


# One thing at a time


def test_a_moving_square_is_boxed_to_the_pixel_from_the_first_frame_to_the_last() -> None:
    assert boxes(travel(200)) == [[travelling(number)] for number in range(200)]


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"history_frames": 64}, 0),
        ({"rest_frames": 48}, 0),
        ({"shadows": "keep"}, 0),
        ({"lookahead_frames": 16}, 40),  # until then too few frames are known to tell which are background
        ({"lookahead_frames": 0}, 40),
    ],
)
def test_a_moving_square_is_boxed_with_other_settings(settings: dict[str, Any], first: int) -> None:
    found = boxes(travel(150), **settings)
    assert found[first:] == [[travelling(number)] for number in range(first, 150)]
    assert all(x2 - x1 <= 120 for these in found for x1, _, x2, _ in these)  # never the whole frame


@pytest.mark.parametrize("size_wh", [(640, 360), (1281, 723), (321, 1001)])
def test_boxes_are_pixels_of_the_frame_whatever_its_size(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    side = min(size_wh) // 4
    truth = [(number * 8, height - side, number * 8 + side, height) for number in range(20)]
    still = [picture(size_wh=size_wh)] * 40
    found = boxes([*(picture((box, RED), size_wh=size_wh) for box in truth), *still])[:20]
    slack = 2 * max(size_wh) / MotionConfig().work_px
    assert [len(these) for these in found] == [1] * 20
    np.testing.assert_allclose(np.array(found)[:, 0], truth, atol=slack)
    assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for [(x1, y1, x2, y2)] in found)


def test_detections_say_what_and_how_sure() -> None:
    proposer = Motion(MotionConfig(phrase="hand"))
    faint, strong = (
        list(proposer.propose(frames(travel(40, colour))))[20] for colour in ((150, 128, 128), (250, 5, 5))
    )
    for found in (faint, strong):
        assert found.xyxy.dtype == np.float32
        assert found.confidence.dtype == np.float32
        assert found.data["phrase"].tolist() == ["hand"]
    assert float(faint.confidence[0]) == pytest.approx(1 - np.exp(-22 / 64), abs=0.01)
    assert float(strong.confidence[0]) == pytest.approx(1 - np.exp(-123 / 64), abs=0.01)


def test_nothing_in_nothing_out() -> None:
    assert boxes([]) == []


@pytest.mark.parametrize(("size_wh", "count"), [((1, 1), 3), ((2, 300), 20), ((WIDTH, HEIGHT), 1)])
def test_tiny_pictures_and_single_frames_have_no_boxes(size_wh: tuple[int, int], count: int) -> None:
    rng = np.random.default_rng(0)
    shape = (size_wh[1], size_wh[0], 3)
    assert boxes(rng.integers(0, 256, shape, np.uint8) for _ in range(count)) == [[]] * count


# What must not be boxed


def noisy(image: Image, rng: np.random.Generator, deviation: float) -> Image:
    noise = rng.normal(0, deviation, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


@pytest.mark.parametrize("deviation", [0, 4, 20])
def test_a_still_scene_has_no_boxes_however_noisy(deviation: float) -> None:
    rng = np.random.default_rng(1)
    still = picture(((50, 50, 90, 120), BLUE))
    assert boxes(noisy(still, rng, deviation) for _ in range(80)) == [[]] * 80


def test_flicker_neither_makes_boxes_nor_hides_them() -> None:
    gains = np.random.default_rng(2).uniform(0.8, 1.2, 120)

    def lit(image: Image, gain: float) -> Image:
        return np.asarray(np.clip(image * gain, 0, 255), np.uint8)

    still = picture(((200, 20, 240, 50), BLUE))
    assert boxes(lit(still, gain) for gain in gains) == [[]] * 120
    moving = [lit(image, gain) for image, gain in zip(travel(120), gains, strict=True)]
    assert boxes(moving) == [[travelling(number)] for number in range(120)]


@pytest.mark.parametrize("other", [(30, 30, 30), (240, 240, 240), (200, 60, 40)])
def test_another_light_or_view_is_no_motion(other: Colour) -> None:
    images = [picture() for _ in range(60)] + [picture(ground=other) for _ in range(60)]
    assert boxes(images) == [[]] * 120


def test_when_most_of_the_picture_changes_there_are_no_boxes() -> None:
    images = [picture() for _ in range(100)]
    images[50] = picture(((0, 0, 140, HEIGHT), RED))  # 0.44 of it
    assert boxes(images, max_changed=0.4)[50] == []
    assert boxes(images)[50] == [(0, 0, 140, HEIGHT)]


@pytest.mark.parametrize(
    ("shade", "shadows", "seen"),
    [
        ((90, 90, 90), "drop", False),  # darker, same colour
        ((90, 90, 90), "keep", True),
        ((150, 150, 150), "drop", False),  # a reflection
        ((40, 40, 40), "drop", True),  # too dark for a shadow
        ((90, 90, 130), "drop", True),  # another colour
    ],
)
def test_shadows(shade: Colour, shadows: str, seen: bool) -> None:
    found = boxes(travel(60, shade), shadows=shadows)
    assert found == [[travelling(number)] if seen else [] for number in range(60)]


def arriving(number: int) -> Box:
    """A square that comes in 8 pixels a frame, and stays where it is from frame 80 on."""
    left = 8 * min(max(number - 60, 0), 20)
    return (left, 60, left + 40, 100)


def test_a_thing_put_down_is_background_as_soon_as_it_stands() -> None:
    images = [picture((arriving(number), RED)) if number > 60 else picture() for number in range(240)]
    found = boxes(images)
    assert found[:61] == [[]] * 61
    assert found[61:76] == [[arriving(number)] for number in range(61, 76)]
    assert found[81:] == [[]] * 159


def test_a_thing_taken_away_leaves_no_ghost() -> None:
    images = [picture((arriving(200 - number), RED)) if number < 140 else picture() for number in range(300)]
    found = boxes(images)
    assert found[:120] == [[]] * 120
    # The rim of where it stood counts as disturbed: one pixel.
    for number in range(125, 140):
        np.testing.assert_allclose(found[number], [arriving(200 - number)], atol=1)
    assert found[140:] == [[]] * 160


def test_a_hand_that_pauses_stays_in_sight() -> None:
    places = [*range(0, 160, 8), *[160] * 24, *range(160, 0, -8)]
    images = [picture() for _ in range(60)]
    images += [picture(((left, 60, left + 40, 100), RED)) for left in places]
    images += [picture() for _ in range(100)]
    assert boxes(images) == [[]] * 60 + [[(left, 60, left + 40, 100)] for left in places] + [[]] * 100


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({}, True),
        ({"min_area": 0.03}, False),  # 1,600 of 57,600 pixels are 0.028
        ({"max_area": 0.027}, False),
        ({"contrast": 130}, False),
    ],
)
def test_limits(settings: dict[str, float], seen: bool) -> None:
    assert boxes(travel(40), **settings) == [[travelling(number)] if seen else [] for number in range(40)]


# Bare skin


def arm(number: int) -> list[tuple[Box, Colour]]:
    """A sleeve, a hand and a bottle that come down 6 pixels a frame, in one piece."""
    low = 30 + 6 * number
    return [
        ((100, 0, 140, low), RED),
        ((100, low, 140, low + 40), SKIN),
        ((110, low + 40, 130, low + 90), BLUE),
    ]


@pytest.mark.parametrize(
    ("skin", "hand", "glove"),
    [
        ("ignore", [(100, 0, 140, 150)], [(100, 0, 140, 150)]),
        ("prefer", [(100, 60, 140, 100)], [(100, 0, 140, 150)]),
        ("require", [(100, 60, 140, 100)], []),
    ],
)
def test_bare_skin(skin: str, hand: list[Box], glove: list[Box]) -> None:
    bare = [picture(*arm(number)) for number in range(10)]
    gloved = [
        picture(*[(box, BLUE if colour == SKIN else colour) for box, colour in arm(number)])
        for number in range(10)
    ]
    pause = [picture() for _ in range(40)]
    assert boxes([*pause, *bare, *pause], skin=skin)[45] == hand
    assert boxes([*pause, *gloved, *pause], skin=skin)[45] == glove


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 219, 195), True),  # light
        ((224, 172, 135), True),
        ((198, 134, 96), True),
        ((141, 85, 54), True),
        ((92, 58, 42), True),  # dark
        ((100, 45, 30), True),  # in deep shade
        ((128, 128, 128), False),  # grey
        ((230, 228, 222), False),  # a wall
        ((40, 60, 200), False),  # blue
        ((60, 140, 70), False),  # green
        ((230, 210, 40), False),  # yellow
        ((130, 20, 24), False),  # red cloth
        ((10, 8, 7), False),  # black
    ],
)
def test_skin_colours(colour: Colour, expected: bool) -> None:
    assert skin_mask(np.full((1, 1, 3), colour, np.uint8)).tolist() == [[255 if expected else 0]]


# Streams


def test_the_same_input_gives_the_same_output_also_interleaved() -> None:
    rng = np.random.default_rng(3)
    images = [noisy(image, rng, 6) for image in travel(90)]
    proposer = Motion(MotionConfig())
    once = list(proposer.propose(frames(images)))
    for one, two, three in zip(
        once, proposer.propose(frames(images)), proposer.propose(frames(images)), strict=True
    ):
        for other in (two, three):
            np.testing.assert_array_equal(one.xyxy, other.xyxy)
            np.testing.assert_array_equal(one.confidence, other.confidence)


@pytest.mark.parametrize(
    ("first", "stop", "stride"), [(256, 300, 1), (210, 240, 1), (123, 150, 1), (210, 230, 3), (40, 60, 10)]
)
def test_a_shard_gives_what_the_whole_source_gives(first: int, stop: int, stride: int) -> None:
    """Boxes and scores must not depend on where a shard begins, given its context and look-ahead."""
    rng = np.random.default_rng(4)
    config = MotionConfig()
    before, after = config.reach()
    every = [noisy(image[40:120:2, ::2], rng, 5) for image in travel(stop + after)]
    whole = [Frame("source", stride * n, stride * n / 30, image) for n, image in enumerate(every)]
    begin = max(0, first - before)
    shard = whole[begin : stop + after]
    proposer = Motion(config)
    expected = list(proposer.propose(iter(whole)))[first:stop]
    found = list(proposer.propose(iter(shard)))[first - begin : stop - begin]
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.xyxy, two.xyxy)
        np.testing.assert_array_equal(one.confidence, two.confidence)


def test_another_frame_size_starts_anew() -> None:
    def small(number: int) -> Box:
        return (2 * number, 10, 2 * number + 10, 20)

    found = boxes(
        [*travel(60), *(picture((small(n), RED), size_wh=(160, 90)) for n in range(60)), *travel(60)]
    )
    expected = [[travelling(number)] for number in range(60)]
    assert found == [*expected, *([small(number)] for number in range(60)), *expected]


def test_still_images_all_have_index_0() -> None:
    places = [((50 * number) % 250, 60, (50 * number) % 250 + 40, 100) for number in range(30)]
    stills = (Frame(f"picture {n}", 0, 0.0, picture((box, RED)), f"{n}.png") for n, box in enumerate(places))
    found = Motion(MotionConfig()).propose(stills)
    assert [these.xyxy.tolist() for these in found] == [[list(box)] for box in places]


@pytest.mark.parametrize("stride", [1, 7, 30])
@pytest.mark.parametrize("lookahead", [0, 16, 64])
def test_the_look_ahead_is_bounded_and_keeps_no_full_frames(lookahead: int, stride: int) -> None:
    alive: list[weakref.ref[Any]] = []
    read = 0

    def stream() -> Iterator[Frame]:
        nonlocal read
        for number in range(200):
            image = picture((travelling(number), RED))
            alive.append(weakref.ref(image))
            read += 1
            yield Frame("source", number * stride, 0.0, image)

    config = MotionConfig(lookahead_frames=lookahead)
    for answered, _ in enumerate(Motion(config).propose(stream()), start=1):
        assert read - answered <= -(-lookahead // stride) + 8
        assert read - answered <= lookahead
        assert sum(reference() is not None for reference in alive) <= 2
    assert read == 200


# The arithmetic


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 15, 32, 33])
def test_pictures_are_sorted_pixel_by_pixel(count: int) -> None:
    stack = np.random.default_rng(count).integers(0, 256, (count, 6, 7, 3), np.uint8)
    np.testing.assert_array_equal(ordered(list(stack)), np.sort(stack, axis=0))


def test_light_is_levelled_by_a_factor_a_channel() -> None:
    rng = np.random.default_rng(5)
    then = rng.integers(40, 120, (80, 120, 3), np.uint8)
    warmer = np.rint(then * np.array([1.5, 1.0, 0.8])).astype(np.uint8)
    warmer[20:60, 20:60] = 0  # something moves
    levelled = level_light(warmer, then)
    levelled[20:60, 20:60] = then[20:60, 20:60]
    assert np.abs(levelled.astype(int) - then).max() <= 3


def test_noise_is_estimated_without_shadows_and_moving_things() -> None:
    rng = np.random.default_rng(6)
    then = picture()
    shaded = then.copy()
    shaded[:, :150] = shaded[:, :150] // 2
    shaded[20:60, 200:260] = RED
    assert noise_of(shaded, then) == 0
    assert noise_of(noisy(shaded, rng, 5), then) == pytest.approx(5, abs=0.5)


def test_shadows_are_unmarked_in_place() -> None:
    then = np.full((1, 4, 3), (100, 120, 140), np.uint8)
    now = np.array([[[70, 84, 98], [120, 144, 168], [140, 120, 100], [20, 24, 28]]], np.uint8)
    mask = np.full((1, 4), 255, np.uint8)
    drop_shadows(mask, now, then, contrast=16)
    assert mask.tolist() == [[0, 0, 255, 255]]


@pytest.mark.parametrize(
    ("pieces", "merge_distance", "expected"),
    [
        ([], 0.04, []),
        ([(10, 10, 20, 20)], 0.04, [(10, 10, 20, 20)]),
        ([(10, 10, 20, 20), (28, 10, 40, 20)], 0.1, [(10, 10, 40, 20)]),  # gap 8, reach 10
        ([(10, 10, 20, 20), (31, 10, 40, 20)], 0.1, [(10, 10, 20, 20), (31, 10, 40, 20)]),  # gap 11
        ([(10, 10, 20, 20), (20, 20, 30, 30)], 0.0, [(10, 10, 30, 30)]),  # they touch at a corner
        ([(10, 10, 20, 20), (21, 10, 30, 20)], 0.0, [(10, 10, 20, 20), (21, 10, 30, 20)]),
        ([(0, 0, 10, 10), (90, 40, 100, 50)], 0.04, [(0, 0, 10, 10), (90, 40, 100, 50)]),
        ([(10, 10, 12, 12)], 0.04, []),  # 4 of 5,000 pixels: too small
        ([(10, 10, 12, 12), (14, 10, 24, 20)], 0.04, [(10, 10, 24, 20)]),  # but part of a thing
    ],
)
def test_areas(pieces: list[Box], merge_distance: float, expected: list[Box]) -> None:
    mask = np.zeros((50, 100), np.uint8)
    for x1, y1, x2, y2 in pieces:
        mask[y1:y2, x1:x2] = 255
    areas = areas_of(mask, MotionConfig(merge_distance=merge_distance))
    assert [(*area.low, *area.high) for area in areas] == expected
    assert all(mask[area.inside].all() for area in areas)


def test_thousands_of_speckles_are_no_burden(benchmark_s: Callable[[], float]) -> None:
    mask = np.zeros((180, 320), np.uint8)
    mask[::4, ::4] = 255
    areas_of(mask, MotionConfig(merge_distance=0))
    assert benchmark_s() < 2


@pytest.fixture
def benchmark_s() -> Callable[[], float]:
    import time

    started = time.process_time()
    return lambda: time.process_time() - started


# The real footage


@pytest.mark.footage
def test_bare_hands_on_the_real_footage(data: Path) -> None:
    """A floor below what was measured, so that a change which loses hands is noticed."""
    import av

    proposer = Motion(MotionConfig(skin="require"))
    truth = json.loads((data / "line" / "boxes.json").read_text())
    with av.open(str(data / "line" / "bottle-detection.mp4")) as container:
        images = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        found = [BoxSet(boxes.xyxy) for boxes in proposer.propose(frames(images))]
    total = Tally()
    for index, rows in truth.items():
        total += tally(found[int(index)], BoxSet.of([row[:4] for row in rows]), 0.4)
    assert len(found) == 1189
    assert total.recall >= 0.9
    assert total.precision >= 0.9
