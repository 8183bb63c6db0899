"""The real-time runtime: queue, lost cameras, tracks, events, and the whole watch."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import moving_square
from tests.footage import write_video

from labelmill.annotators.model_folder import ModelInfo
from labelmill.annotators.yolo.detector import Detector
from labelmill.errors import SourceError
from labelmill.training.classifiers.predictor import CropClassifier
from labelmill.training.runtime.events import EventLog
from labelmill.training.runtime.latency import Stopwatch
from labelmill.training.runtime.stream import FrameQueue, Grabbed, Stream, is_live
from labelmill.training.runtime.tracker import Tracker
from labelmill.training.runtime.watch import Watch, WatchSettings

BLANK = np.zeros((4, 4, 3), np.uint8)


def frame(index: int, time_s: float = 0.0) -> Grabbed:
    return Grabbed(index, time_s, time.perf_counter(), BLANK)


def test_a_full_queue_drops_the_oldest() -> None:
    queue = FrameQueue(2, "drop")
    for index in range(5):
        assert queue.put(frame(index))
    assert queue.dropped == 3
    assert [found.index for found in (queue.get(0), queue.get(0)) if found] == [3, 4]
    assert queue.get(0) is None
    queue.close()
    assert queue.finished
    assert not queue.put(frame(9))


def test_a_waiting_queue_loses_nothing() -> None:
    queue = FrameQueue(1, "wait")
    feeder = threading.Thread(target=lambda: [queue.put(frame(index)) for index in range(20)])
    feeder.start()
    assert [found.index for _ in range(20) if (found := queue.get(2))] == list(range(20))
    feeder.join()
    assert queue.dropped == 0


def test_closing_frees_a_reader_that_waits() -> None:
    queue = FrameQueue(1, "wait")
    queue.put(frame(0))
    taken: list[bool] = []
    feeder = threading.Thread(target=lambda: taken.append(queue.put(frame(1))))
    feeder.start()
    queue.close()
    feeder.join(2)
    assert taken == [False]


@pytest.mark.parametrize(
    ("source", "live"),
    [("0", True), ("/dev/video2", True), ("rtsp://camera/1", True), ("day.mp4", False), ("./0.mp4", False)],
)
def test_what_is_live(source: str, live: bool) -> None:
    assert is_live(source) is live


def test_every_frame_of_a_file_is_read_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [moving_square(number) for number in range(20)], fps=10)
    stream = Stream(str(path), queue_frames=2)
    stream.start()
    found = []
    while not stream.queue.finished:
        if (one := stream.queue.get(1)) is not None:
            found.append(one)
    assert [one.index for one in found] == list(range(20))
    assert [one.time_s for one in found] == pytest.approx([number / 10 for number in range(20)])
    stream.stop()


def test_a_file_played_in_real_time_drops_what_a_slow_worker_misses(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [moving_square(number) for number in range(30)], fps=60)
    stream = Stream(str(path), queue_frames=1, realtime=True)
    stream.start()
    found = []
    while not stream.queue.finished:
        if (one := stream.queue.get(1)) is not None:
            found.append(one.index)
            time.sleep(0.15)
    assert len(found) + stream.queue.dropped == 30
    assert stream.queue.dropped > 10
    assert found == sorted(found)
    stream.stop()


def test_no_source_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such source .*absent.mp4"):
        Stream(str(tmp_path / "absent.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(SourceError, match="cannot open"):
        Stream(str(tmp_path / "text.mp4"))


class Camera:
    """Serves a video over TCP, once for each connection, as fast as it is read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._listen()

    def _listen(self, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(self._socket,), daemon=True)
        self._thread.start()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(self._data)
                except OSError:
                    continue

    def go_away(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a connection
        self._socket.close()

    def come_back(self) -> None:
        self._listen(self.port)


@pytest.fixture
def footage(tmp_path: Path) -> bytes:
    path = write_video(tmp_path / "clip.ts", [moving_square(number) for number in range(15)], fps=15)
    return path.read_bytes()


def test_a_camera_that_goes_away_is_found_again(footage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    camera = Camera(footage)
    stream = Stream(f"tcp://127.0.0.1:{camera.port}", queue_frames=100)
    stream.start()
    happened: list[str] = []
    seen: list[int] = []
    deadline = time.monotonic() + 20
    while happened.count("found") < 2 and time.monotonic() < deadline:
        if (one := stream.queue.get(0.2)) is not None:
            seen.append(one.index)
        happened += [what for what, _, _ in stream.take_losses()]
    stream.stop()
    camera.go_away()
    assert happened[:3] == ["lost", "found", "lost"]
    assert seen == list(range(len(seen)))  # counted on over the gap
    assert len(seen) > 15
    assert "is lost" in caplog.text
    assert "is back" in caplog.text


def test_a_camera_that_stays_away_ends_the_watch(footage: bytes) -> None:
    camera = Camera(footage)
    stream = Stream(f"tcp://127.0.0.1:{camera.port}", queue_frames=100, give_up_s=1.0)
    camera.go_away()
    stream.start()
    deadline = time.monotonic() + 20
    while not stream.queue.finished and time.monotonic() < deadline:
        stream.queue.get(0.2)
    assert stream.queue.finished
    assert [what for what, _, _ in stream.take_losses()] == ["lost", "given up"]
    stream.stop()


def seen(tracker: Tracker, time_s: float, box: Sequence[float], label: int, score: float = 0.9) -> Any:
    probabilities = np.full((1, 2), 0.2)
    probabilities[0, label] = 0.8
    tracks, over = tracker.update(time_s, np.array([box], np.float32), np.array([score]), probabilities)
    return tracks[0], over


def test_a_track_keeps_its_identity_and_ignores_one_wrong_label() -> None:
    tracker = Tracker(2, min_hits=2)
    labels = []
    for number in range(20):
        wrong = number == 10
        track, _ = seen(tracker, number / 30, (5 * number, 0, 5 * number + 40, 40), 1 if wrong else 0)
        assert track.identity == 1
        labels.append(track.label)
    assert labels == [-1] + [0] * 19


def test_a_lasting_change_is_taken_after_a_moment() -> None:
    tracker = Tracker(2, min_hits=1, half_life_s=0.1, settle_s=0.1)
    labels = [seen(tracker, number / 30, (0, 0, 40, 40), int(number >= 15))[0].label for number in range(40)]
    assert labels[:15] == [0] * 15
    assert labels[-1] == 1
    changed = labels.index(1)
    assert 18 <= changed <= 24


def test_a_track_survives_a_gap_and_ends_after_a_second() -> None:
    tracker = Tracker(2, min_hits=1, forget_s=1.0)
    first, _ = seen(tracker, 0.0, (0, 0, 40, 40), 0)
    again, _ = seen(tracker, 0.8, (2, 0, 42, 40), 0, score=0.3)  # unsure, but where it should be
    assert again is first
    other, over = seen(tracker, 2.0, (2, 0, 42, 40), 0)
    assert over == []
    assert other is first  # nobody looked in between: it is seen again before it is forgotten
    tracks, over = tracker.update(3.5, np.empty((0, 4), np.float32), np.empty(0), np.empty((0, 2)))
    assert tracks == []
    assert over == [first]


def test_an_unsure_box_begins_no_track() -> None:
    assert seen(Tracker(2), 0.0, (0, 0, 9, 9), 0, score=0.3) == (None, [])


def test_events_are_whole_lines_also_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write("start", source="x")
    with path.open("a") as file:
        file.write('{"event": "cut of')
    with EventLog(path) as log:
        log.write("end", frames=3)
    lines = path.read_text().splitlines()
    assert json.loads(lines[0])["event"] == "start"
    assert json.loads(lines[2]) | {"at": ""} == {"event": "end", "at": "", "frames": 3}


def test_speed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 10.1, 10.2, 10.4])
    monkeypatch.setattr("labelmill.training.runtime.latency.time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    watch.begin()
    for arrived in (10.0, 10.1, 10.2):
        watch.end(arrived)
    speed = watch.speed(dropped=5)
    assert speed.fps == pytest.approx(3 / 0.4)
    assert speed.p50_ms == pytest.approx(100)
    assert speed.dropped == 5
    assert Stopwatch().speed(0).frames == 0


def red_detector() -> Detector:
    """Finds the red square of the drawn footage by its colour, behind the real decoding."""
    info = ModelInfo(kind="detector", architecture="yolov5n", classes=("thing",), image_px=160)

    def graph(batch: np.ndarray) -> np.ndarray:
        found = np.zeros((len(batch), 5, 1), np.float32)
        for row, (red, green, _) in zip(found, batch, strict=True):
            y, x = np.nonzero((red > 0.7) & (green < 0.3))
            if len(x):
                row[:, 0] = (x.mean(), y.mean(), np.ptp(x) + 1, np.ptp(y) + 1, 0.9)
        return found

    return Detector(info, graph)


def side_classifier() -> CropClassifier:
    """Calls a crop by its redness: certain of `red`."""
    info = ModelInfo(kind="classifier", architecture="none", classes=("red", "blue"), image_px=16)
    return CropClassifier(
        info, lambda batch: np.stack([9 * batch[:, 0].mean((1, 2)), 9 * batch[:, 2].mean((1, 2))], 1)
    )


def test_a_watch_writes_what_happens(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [moving_square(number) for number in range(40)], fps=10)
    watch = Watch(red_detector(), side_classifier(), WatchSettings(every_frame=True))
    watch.warm_up(moving_square(0))
    with EventLog(tmp_path / "events.jsonl") as log:
        speed = watch.run(Stream(str(path)), log)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] != "frame"] == [
        "start",
        "appear",
        "leave",
        "end",
    ]
    appeared = next(event for event in events if event["event"] == "appear")
    assert appeared["label"] == "red"
    assert appeared["frame"] == 12  # the square comes with frame 10 and counts when seen three times
    assert appeared["xyxy"] == pytest.approx([10, 30, 40, 60], abs=2)
    frames = [event for event in events if event["event"] == "frame"]
    assert [len(event["boxes"]) for event in frames] == [0] * 10 + [1] * 30
    assert speed.frames == events[-1]["frames"] == 40
    assert speed.dropped == 0


def test_a_watch_stops_when_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [moving_square(number) for number in range(40)], fps=10)
    count = 0

    def show(_: object) -> bool:
        nonlocal count
        count += 1
        return count < 3

    assert Watch(red_detector(), None).run(Stream(str(path)), EventLog(None), show=show).frames == 3
    limited = Watch(red_detector(), None, WatchSettings(frames=5))
    assert limited.run(Stream(str(path)), EventLog(None)).frames == 5


def test_an_annotated_video_has_every_frame(tmp_path: Path) -> None:
    import av

    from labelmill.training.runtime.overlay import Painter, VideoFile

    path = write_video(tmp_path / "clip.mp4", [moving_square(number) for number in range(20)], fps=10)
    watch = Watch(red_detector(), None)
    painter, out = Painter(watch.labels), VideoFile(tmp_path / "seen.mp4", 10)

    def show(look: Any) -> bool:
        out.write(painter.paint(look.frame.image, look.boxes, look.tracks), look.frame.time_s)
        return True

    watch.run(Stream(str(path)), EventLog(None), show=show)
    out.close()
    with av.open(str(tmp_path / "seen.mp4")) as container:
        times = [float(picture.time) for picture in container.decode(video=0)]
    assert times == pytest.approx([number / 10 for number in range(20)], abs=0.002)
