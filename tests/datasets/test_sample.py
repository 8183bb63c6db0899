"""The generated sample: its truth, its templates, and that it is made once and whole."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from labelmill.datasets.sample import LABELS, Sample, generate_sample
from labelmill.datasets.sample.generate import FPS, read_truth
from labelmill.datasets.sample.script import hand_at, smooth, write_script
from labelmill.errors import WorkspaceError
from labelmill.line import load_line

DURATION_S = 6.0


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return generate_sample(tmp_path_factory.mktemp("sample"), seed=4, duration_s=DURATION_S)


@pytest.fixture(scope="module")
def truth(sample: Sample) -> dict[str, Any]:
    return read_truth(sample.truth)


def digests(folder: Path) -> dict[str, str]:
    files: dict[str, str] = json.loads((folder / "sample.json").read_text())["files"]
    return files


def test_video_has_every_frame(sample: Sample, truth: dict[str, Any]) -> None:
    with av.open(str(sample.video)) as container:
        stream = container.streams.video[0]
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == FPS
    assert shapes == [(360, 640, 3)] * round(DURATION_S * FPS)
    assert len(truth["boxes"]) == len(shapes)


def test_truth_boxes_lie_inside_the_frame(truth: dict[str, Any]) -> None:
    boxes = [box for frame in truth["boxes"] for box in frame]
    assert len(boxes) > 20
    for x1, y1, x2, y2, label in boxes:
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 360
        assert label in LABELS
    assert {box[4] for box in boxes} == set(LABELS)
    assert [] in truth["boxes"]


def test_truth_is_where_the_skin_is(sample: Sample, truth: dict[str, Any]) -> None:
    """What is redder than the empty bench reaches to every side of its box, to a few pixels."""
    with av.open(str(sample.video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    empty = np.median([f for f, b in zip(frames, truth["boxes"], strict=True) if not b], axis=0)
    checked = 0
    for index, (frame, boxes) in enumerate(zip(frames, truth["boxes"], strict=True)):
        if index in truth["unclear"] or len(boxes) != 1:
            continue
        x1, y1, x2, y2, _ = boxes[0]
        redder = (frame[..., 0].astype(float) - frame[..., 2]) - (empty[..., 0] - empty[..., 2]) > 25
        redder[286:] = False  # the cart is yellow
        inside = redder[y1:y2, x1:x2]
        assert inside.mean() > 0.3
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        assert max(rows[0], columns[0], y2 - y1 - 1 - rows[-1], x2 - x1 - 1 - columns[-1]) <= 8
        checked += 1
    assert checked > 15


def test_events_and_unclear_frames_name_frames_with_hands(truth: dict[str, Any]) -> None:
    count = len(truth["boxes"])
    in_events = set()
    for first, last, name in truth["events"]:
        assert 0 <= first <= last < count
        assert name in {"take", "place", "move", "check"}
        in_events |= set(range(first, last + 1))
    with_hands = {index for index, boxes in enumerate(truth["boxes"]) if boxes}
    assert with_hands <= in_events
    assert set(truth["unclear"]) <= with_hands
    assert all(0 <= first <= last < count for first, last, _ in truth["distractions"])


def test_templates_are_crops_of_another_time(sample: Sample) -> None:
    names = {folder.name: sorted(folder.glob("*.png")) for folder in sample.templates.iterdir()}
    assert {name: len(paths) for name, paths in names.items()} == dict.fromkeys(LABELS, 8)
    ng = sorted(sample.templates_ng.rglob("*.png"))
    assert len(ng) >= 6
    with av.open(str(sample.video)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    for path in (p for paths in names.values() for p in paths):
        crop = cv2.imread(str(path))
        assert crop is not None
        assert min(crop.shape[:2]) > 40
        assert crop.std() > 15
        best = min(cv2.matchTemplate(frame, crop, cv2.TM_SQDIFF_NORMED).min() for frame in frames[::8])
        assert best > 0.003  # the same pixels, re-encoded, give less than 0.001


def test_line_file_is_valid_and_points_into_the_folder(sample: Sample) -> None:
    line = load_line(sample.line)
    assert line.sources[0].video == sample.video
    assert line.templates is not None
    assert line.templates.folder == sample.templates
    assert line.templates.ng == sample.templates_ng
    assert line.proposer.kind == "motion"
    assert line.encoder.kind == "hog"


def test_same_seed_gives_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    again = generate_sample(tmp_path / "again", seed=4, duration_s=DURATION_S)
    assert digests(again.folder) == digests(sample.folder)
    assert again.digest == sample.digest
    other = generate_sample(tmp_path / "other", seed=5, duration_s=0.2)
    assert digests(other.folder)["bench.mp4"] != digests(sample.folder)["bench.mp4"]


def test_a_whole_sample_is_not_made_again_and_a_damaged_one_is(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    made = generate_sample(tmp_path, duration_s=0.2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert generate_sample(tmp_path, duration_s=0.2, progress=lambda *_: pytest.fail("drawn again")) == made
    with made.video.open("ab") as file:
        file.write(b"x")
    assert generate_sample(tmp_path, duration_s=0.2) == made
    (tmp_path / "sample.json").write_text("{")
    stray = tmp_path / "notes.txt"
    stray.write_text("mine")
    assert generate_sample(tmp_path, duration_s=0.2) == made
    assert stray.read_text() == "mine"


def test_another_seed_replaces_the_sample(tmp_path: Path) -> None:
    generate_sample(tmp_path, duration_s=0.1)
    stale = tmp_path / "templates" / "old" / "1.png"
    stale.parent.mkdir()
    stale.write_bytes(b"")
    manifest = json.loads((tmp_path / "sample.json").read_text())
    manifest["files"]["templates/old/1.png"] = "0"
    (tmp_path / "sample.json").write_text(json.dumps(manifest))
    generate_sample(tmp_path, seed=1, duration_s=0.1)
    assert not stale.parent.exists()


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="is not a folder"):
        generate_sample(tmp_path / "file", duration_s=0.1)


def test_hands_move_without_jumps() -> None:
    script = write_script((3, 1), 30.0)
    assert {visit.name for visit in script.visits} >= {"take", "place", "move"}
    for visit in script.visits:
        times = np.arange(visit.start_s, visit.end_s - 0.02, 0.01)
        states = [state for time in times if (state := hand_at(visit, float(time)))]
        assert len(states) == len(times)
        way = np.array([state.xy for state in states])
        assert np.abs(np.diff(way, axis=0)).max() < 15
        held = [state.holds for state in states]
        assert sum(a != b for a, b in pairwise(held)) == len(visit.changes_s)


@pytest.mark.parametrize(("t", "expected"), [(-1, 0), (0, 0), (0.5, 0.5), (1, 1), (2, 1)])
def test_smooth_is_clamped(t: float, expected: float) -> None:
    assert smooth(t) == expected
