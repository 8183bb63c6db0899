from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.footage import numbered, write_video

from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.selection import RepeatFilter, sample
from labelmill.datasets.sources.config import RepeatsConfig, SelectionConfig, SourceConfig
from labelmill.datasets.sources.footage import open_footage
from labelmill.images import Image


@dataclass
class Clock:
    """Footage that is nothing but its times."""

    seconds: npt.NDArray[np.float64]
    fps_applies: bool = True

    def __len__(self) -> int:
        return len(self.seconds)

    def timestamps_s(self) -> npt.NDArray[np.float64]:
        return self.seconds

    def slice(self, positions: object) -> object:
        raise NotImplementedError


def ticking(rate: float, frames: int, rounded_s: float = 0.0) -> Clock:
    seconds = np.arange(frames) / rate
    return Clock(np.rint(seconds / rounded_s) * rounded_s if rounded_s else seconds)


def chosen(clock: Clock, **settings: float) -> list[int]:
    found: list[int] = sample(clock, SelectionConfig.model_validate(settings)).tolist()  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("frames", "stride", "expected"),
    [(7, 1, [0, 1, 2, 3, 4, 5, 6]), (7, 3, [0, 3, 6]), (7, 7, [0]), (7, 100, [0]), (0, 2, [])],
)
def test_stride(frames: int, stride: int, expected: list[int]) -> None:
    assert chosen(ticking(25, frames), stride=stride) == expected


@pytest.mark.parametrize(
    ("rate", "fps", "expected"),
    [
        (30, 10, [0, 3, 6, 9, 12]),
        (30000 / 1001, 10, [0, 3, 6, 9, 12]),
        (25, 10, [0, 3, 5, 8, 10, 13]),
        (29.83, 29.83, list(range(15))),
        (25, 100, list(range(15))),
        (10, 2.5, [0, 4, 8, 12]),
        (30, 0.1, [0]),
    ],
)
def test_fps(rate: float, fps: float, expected: list[int]) -> None:
    assert chosen(ticking(rate, 15), fps=fps) == expected


@pytest.mark.parametrize("rate", [29.97, 30000 / 1001, 59.94, 23.976, 25, 60, 120])
def test_the_cameras_own_rate_takes_every_frame_though_matroska_rounds(rate: float) -> None:
    assert chosen(ticking(rate, 500, rounded_s=0.001), fps=rate) == list(range(500))


@given(
    rate=st.floats(1, 120),
    share=st.floats(0.01, 2),
    frames=st.integers(2, 2000),
    rounded_s=st.sampled_from([0.0, 0.001, 1 / 90000]),
)
def test_the_rate_holds_on_average(rate: float, share: float, frames: int, rounded_s: float) -> None:
    clock = ticking(rate, frames, rounded_s)
    taken = chosen(clock, fps=rate * share)
    assert taken[0] == 0
    assert all(a < b for a, b in pairwise(taken))
    intervals = float(clock.seconds[-1]) * rate * share
    assert len(taken) <= intervals + 1.1
    if share <= 0.5:  # each interval holds a frame
        assert len(taken) == int(intervals + 0.1) + 1
    if share * (1 - rounded_s * rate) > 1 + 1e-6:  # rounded frames are still an interval apart
        assert len(taken) == frames


@given(st.lists(st.floats(0.001, 3), min_size=1, max_size=60), st.floats(0.2, 50))
def test_a_stuttering_camera_gives_one_frame_an_interval(gaps: list[float], fps: float) -> None:
    clock = Clock(np.concatenate([[0.0], np.cumsum(gaps)]))
    taken = chosen(clock, fps=fps)
    intervals = np.floor(clock.seconds * fps + 0.1)
    assert intervals[taken].tolist() == np.unique(intervals).tolist()


def test_still_images_have_no_rate() -> None:
    assert chosen(Clock(np.zeros(5), fps_applies=False), fps=2) == [0, 1, 2, 3, 4]
    assert chosen(Clock(np.zeros(5), fps_applies=False), stride=2) == [0, 2, 4]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_real_file_at_an_odd_rate(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", map(numbered, range(60)), Fraction(30000, 1001))
    with Catalogue(":memory:") as catalogue:
        (video,), problems = open_footage([SourceConfig(video=path)], catalogue, tmp_path)
    assert problems == []
    assert sample(video, SelectionConfig(fps=29.97)).tolist() == list(range(60))
    assert sample(video, SelectionConfig(fps=15)).tolist() == list(range(0, 60, 2))
    assert sample(video, SelectionConfig(fps=5)).tolist() == list(range(0, 60, 6))


def grey(level: float, shape: tuple[int, int] = (120, 160)) -> Image:
    return np.full((*shape, 3), level, np.uint8)


def reasons(pictures: list[Image], config: RepeatsConfig | None) -> list[str]:
    repeats = RepeatFilter(config)
    return [repeats.repeat_reason(picture, f"frame {number}") for number, picture in enumerate(pictures)]


def test_a_repeat_names_the_frame_it_repeats() -> None:
    found = reasons([grey(100), grey(103), grey(104), grey(105), grey(106)], RepeatsConfig())
    assert found == [
        "",
        "repeat of frame 0: largest change 3.0 <= 4",
        "repeat of frame 0: largest change 4.0 <= 4",
        "",
        "repeat of frame 3: largest change 1.0 <= 4",
    ]


def test_slow_drift_adds_up() -> None:
    kept = [
        n
        for n, reason in enumerate(reasons([grey(100 + n) for n in range(21)], RepeatsConfig()))
        if not reason
    ]
    assert kept == [0, 5, 10, 15, 20]


def test_a_small_thing_is_no_repeat_though_the_mean_is_the_same() -> None:
    moved = grey(100)
    moved[40:48, 40:48] = 160  # 0.3 % of the picture: its mean changes by 0.2 grey levels
    assert reasons([grey(100), moved], RepeatsConfig()) == ["", ""]


def test_noise_is_a_repeat() -> None:
    noise = np.random.default_rng(0).normal(0, 4, (2, 120, 160, 3))
    pictures = [np.clip(100 + layer, 0, 255).astype(np.uint8) for layer in noise]
    assert reasons(pictures, RepeatsConfig())[1].startswith("repeat of frame 0")


def test_another_size_is_no_repeat() -> None:
    assert reasons([grey(100), grey(100, (90, 160)), grey(100, (90, 160))], RepeatsConfig())[:2] == ["", ""]


def test_repeats_may_be_kept() -> None:
    assert reasons([grey(100), grey(100)], None) == ["", ""]
    assert reasons([grey(100), grey(100)], RepeatsConfig(threshold=0)) == [
        "",
        "repeat of frame 0: largest change 0.0 <= 0",
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 39), (2000, 41)])
def test_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    assert reasons([grey(10, shape), grey(10, shape), grey(90, shape)], RepeatsConfig())[2] == ""
