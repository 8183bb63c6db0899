"""What long work says of itself on stderr."""

from __future__ import annotations

import io
import sys

import pytest

from labelmill.verbs import common, train
from labelmill.verbs.common import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_lines_for_a_log(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("frames") as progress:
        for done in range(0, 2001, 100):
            progress(done, 2000, "annotating")
            clock[0] += 1
        progress(2000, 2000, "annotating")  # a shard's last frame, and then the shard
    assert capsys.readouterr().err.splitlines() == [
        "annotating: 500 of 2,000 frames, 100/s, 15 s left",
        "annotating: 1,000 of 2,000 frames, 100/s, 10 s left",
        "annotating: 1,500 of 2,000 frames, 100/s, 5 s left",
        "annotating: 2,000 of 2,000 frames, 100/s",
    ]


def test_the_first_frames_foretell_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("frames") as progress:
        for done in (0, 1, 2, 200):
            progress(done, 400, "annotating")
            clock[0] += 16
    assert capsys.readouterr().err.splitlines() == [
        "annotating: 1 of 400 frames",
        "annotating: 2 of 400 frames, 0.06/s, 6,368 s left",
        "annotating: 200 of 400 frames, 4.2/s, 48 s left",
    ]


def test_models_load_before_the_clock_starts(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("frames") as progress:
        progress(0, 40, "loading models …")
        clock[0] += 60
        progress(0, 40, "annotating")
        for done in (1, 2, 3):
            clock[0] += 5
            progress(done, 40, "annotating")
    assert capsys.readouterr().err.splitlines() == [
        "loading models …",
        "annotating: 1 of 40 frames, 0.20/s, 195 s left",
        "annotating: 2 of 40 frames, 0.20/s, 190 s left",
        "annotating: 3 of 40 frames, 0.20/s, 185 s left",
    ]


def test_models_load_under_a_bar_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("frames") as progress:
        progress(0, 4, "loading models …")
        for done in (0, 2, 4):
            progress(done, 4, "annotating")
    assert "loading models …" in screen.getvalue()
    last = screen.getvalue().rpartition("annotating")[2]  # of what stays on the screen, the only bar
    assert "4/4" in last
    assert "loading" not in last


def test_a_second_work_has_its_own_rate(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A version's frames are written, and then as many samples of FiftyOne."""
    with progress_bar("") as progress:
        progress(0, 10, "frames")
        clock[0] += 4
        progress(10, 10, "frames")
        clock[0] += 4
        progress(0, 10, "FiftyOne samples")
        clock[0] += 20
        progress(5, 10, "FiftyOne samples")
        clock[0] += 20
        progress(10, 10, "FiftyOne samples")
    assert capsys.readouterr().err.splitlines() == [
        "frames: 10 of 10, 2.5/s",
        "FiftyOne samples: 5 of 10, 0.25/s, 20 s left",
        "FiftyOne samples: 10 of 10, 0.25/s",
    ]


def test_a_bar_for_each_work_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("tasks") as progress:
        assert screen.getvalue().count("0/") == 0  # nothing before there is something to say
        for done in (0, 4):
            progress(done, 4, "epoch 1" if done == 0 else "epoch 2")
        for done in (0, 2, 4):
            progress(done, 4, "adding")
    last = [line for line in screen.getvalue().splitlines() if "4/4" in line][-2:]
    assert ["epoch 2" in last[0], "4/4" in last[0], "tasks" in last[0]] == [True] * 3
    assert ["adding" in last[1], "4/4" in last[1]] == [True] * 2


@pytest.mark.parametrize(("per_s", "text"), [(0.208, "0.21/s"), (3.44, "3.4/s"), (1234.5, "1,234/s")])
def test_a_rate(per_s: float, text: str) -> None:
    assert common._rate(per_s) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0166667, "0.017"), (1.0, "1.000"), (60, "60"), (None, "–"), ("test", "test")]
)
def test_a_figure_of_an_evaluation(value: object, text: str) -> None:
    assert train._figure(value) == text
