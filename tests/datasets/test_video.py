"""Videos as cameras and people leave them: every container, order and break, read frame by frame."""

from __future__ import annotations

import gc
import random
import struct
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.footage import number_of, numbered, write_video

from labelmill.datasets.sources.video import UNDECODABLE, VideoIndex, index_video, read_video
from labelmill.errors import SourceError
from labelmill.images import Image

FRAMES = 60
CLOSED = {"x264-params": "keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0:log-level=none"}
OPEN = {"x264-params": CLOSED["x264-params"] + ":open-gop=1"}
REFRESH = {"x264-params": "keyint=12:bframes=0:intra-refresh=1:log-level=none"}
GOP = {"g": "12", "bf": "2"}

SOUND = [
    ("open-gop.mp4", "libx264", OPEN),
    ("closed-gop.mp4", "libx264", CLOSED),
    ("open-gop.mkv", "libx264", OPEN),
    ("open-gop.ts", "libx264", OPEN),
    ("closed-gop.ts", "libx264", CLOSED),
    ("refresh.mp4", "libx264", REFRESH),
    ("open-gop.mov", "libx264", OPEN),
    ("hevc.mp4", "libx265", {"x265-params": "keyint=12:open-gop=1:log-level=none"}),
    ("program-stream.mpg", "mpeg2video", GOP),
    ("mpeg2.ts", "mpeg2video", GOP),
    ("b-frames.mp4", "mpeg4", GOP),
    ("plain.avi", "mpeg4", {"g": "12"}),
    ("intra.avi", "mjpeg", {}),
    ("hidden.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"}),
]
# AVI has no presentation times: these are read from the beginning.
WITHOUT_TIMES = [("b-frames.avi", "mpeg4", GOP), ("open-gop.avi", "libx264", OPEN)]


def clip(
    folder: Path,
    name: str,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    frames: int = FRAMES,
) -> Path:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    pictures = (numbered(number) for number in range(frames))
    return write_video(folder / name, pictures, 25, codec, options, pix_fmt)


def whole(path: Path, index: VideoIndex) -> list[Image | str]:
    return part(path, index, 0, len(index.pts))


def part(path: Path, index: VideoIndex, start: int, stop: int) -> list[Image | str]:
    wanted = index.pts[start:stop].tolist()
    return list(read_video(path, wanted, index.starts(wanted[0])))


def numbers(pictures: list[Image | str]) -> list[int]:
    return [-1 if isinstance(picture, str) else number_of(picture) for picture in pictures]


def sequential(path: Path) -> list[Image]:
    """What a plain decoder gives out, in its order: the definition of a frame's index."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(("name", "codec", "options"), SOUND + WITHOUT_TIMES)
def test_every_frame_from_every_start_is_that_of_a_sequential_decode(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = clip(tmp_path, name, codec, options)
    index = index_video(path)
    truth = sequential(path)
    assert len(index.pts) == FRAMES
    assert index.problem == ""
    assert [number_of(picture) for picture in truth] == list(range(FRAMES))
    assert (index.keys is None) == ((name, codec, options) in WITHOUT_TIMES)
    for start in range(FRAMES):
        for shift, picture in enumerate(part(path, index, start, min(start + 3, FRAMES))):
            assert not isinstance(picture, str), f"frame {start + shift} read from {start}: {picture}"
            np.testing.assert_array_equal(
                picture, truth[start + shift], err_msg=f"{start + shift} from {start}"
            )


def test_frames_far_apart_are_read_in_one_pass(tmp_path: Path) -> None:
    path = clip(tmp_path, "a.mp4", options=OPEN)
    index = index_video(path)
    wanted = [1, 2, 13, 31, 59]
    pictures = list(read_video(path, index.pts[wanted].tolist(), index.starts(int(index.pts[1]))))
    assert numbers(pictures) == wanted
    assert list(read_video(path, [], None)) == []


def opens(path: Path, index: VideoIndex, start: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many pictures a decoder makes for three frames."""
    from labelmill.datasets.sources import video

    made = [0]
    plain = video._decode

    def counting(container: object) -> Iterator[object]:
        for picture in plain(container):
            made[0] += 1
            yield picture

    with monkeypatch.context() as patch:
        patch.setattr(video, "_decode", counting)
        assert numbers(part(path, index, start, start + 3)) == [start, start + 1, start + 2]
    return made[0]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_read_costs_no_more_near_the_end(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path, name, options=CLOSED, frames=240)
    index = index_video(path)
    assert opens(path, index, 230, monkeypatch) < 80


def test_the_index_says_when(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", map(numbered, range(31)), Fraction(30000, 1001), options=OPEN)
    index = index_video(path)
    np.testing.assert_allclose(index.timestamps_s(), np.arange(31) * 1001 / 30000, atol=1e-9)


def test_a_trimmed_file_begins_where_it_is_shown(tmp_path: Path) -> None:
    """An edit list hides the frames before the cut: they are stored, and are no frames of the video."""
    source = clip(tmp_path, "a.mp4", options={"g": "30", "bf": "2"})
    path = tmp_path / "trimmed.mp4"
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        early = round(15 / 25 / given.streams.video[0].time_base)
        for packet in given.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - early, packet.dts - early, stream
                made.mux(packet)
    index = index_video(path)
    assert index.problem == ""
    assert numbers(whole(path, index)) == list(range(15, FRAMES))
    assert numbers(part(path, index, 20, 23)) == [35, 36, 37]


def turned(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix into an MP4's track header (ISO 14496-12, 8.3.2), as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1), ((1, 0, 0, 1), 0)]
)
def test_rotation_is_applied(tmp_path: Path, matrix: tuple[int, int, int, int], turns: int) -> None:
    """(0, 1, -1, 0) takes x to y and y to -x: a quarter turn clockwise."""
    path = clip(tmp_path, "a.mp4", frames=3)
    plain = whole(path, index_video(path))[0]
    assert not isinstance(plain, str)
    turned(path, matrix)
    upright = whole(path, index_video(path))[0]
    np.testing.assert_array_equal(upright, np.rot90(plain, turns))


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize(
    ("name", "codec", "options", "problem"),
    [
        ("a.mp4", "libx264", {**CLOSED, "movflags": "+faststart"}, "of the 60 frames that it declares"),
        ("a.mkv", "libx264", CLOSED, "s of the 2.4 s that it declares"),
        ("a.avi", "mpeg4", {"g": "12"}, "of the 60 frames that it declares"),
        ("a.ts", "libx264", CLOSED, ""),  # a transport stream declares nothing
    ],
)
def test_a_file_that_was_cut_off_keeps_its_good_part(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], problem: str
) -> None:
    path = cut(faststart(clip(tmp_path, name, codec, options)), 0.6)
    index = index_video(path)
    assert 10 < len(index.pts) < FRAMES - 5
    assert index.problem.endswith(problem)
    assert bool(index.problem) == bool(problem)
    read = numbers(whole(path, index))
    good = len(index.pts) - 3  # those at the edge may be half there
    assert read[:good] == list(range(good))
    assert numbers(part(path, index, good - 2, good)) == [good - 2, good - 1]


def faststart(path: Path) -> Path:
    """Move an MP4's header to its beginning, as cameras that stream do; other files stay."""
    if path.suffix != ".mp4":
        return path
    made = path.with_name("fast.mp4")
    with av.open(str(path)) as given, av.open(str(made), "w", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return made


def test_an_mp4_without_its_header_cannot_be_opened(tmp_path: Path) -> None:
    path = cut(clip(tmp_path, "a.mp4"), 0.6)
    with pytest.raises(SourceError, match=r"cannot open a\.mp4 as a video, got invalid data"):
        index_video(path)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "got an empty file"), (b"I am text.\n" * 50, "got invalid data")]
)
def test_what_is_no_video(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=reason):
        index_video(path)


def test_a_file_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot open gone\.mp4 as a video, got no such file"):
        index_video(tmp_path / "gone.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match=r"a\.mp4 has no video stream"):
        index_video(path)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", CLOSED),
        ("a.mkv", "libx264", OPEN),
        ("a.avi", "mjpeg", {}),
        ("a.ts", "mpeg2video", GOP),
    ],
)
def test_damage_in_the_middle_costs_what_is_damaged(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = clip(tmp_path, name, codec, options)
    data = bytearray(path.read_bytes())
    chance = random.Random(7)
    for _ in range(12):
        at = len(data) // 3 + chance.randrange(len(data) // 3)
        data[at : at + 4] = chance.randbytes(4)
    path.write_bytes(data)
    index = index_video(path)
    pictures = whole(path, index)
    assert len(pictures) == len(index.pts)
    read = numbers(pictures)
    assert read[:5] == list(range(5))  # before the damage
    assert read[-5:] == list(range(FRAMES - 5, FRAMES))  # after it
    again = whole(path, index)
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))


def test_a_frame_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    path = clip(tmp_path, "a.mp4", options=CLOSED)
    index = index_video(path)
    wanted = sorted([*index.pts[:3].tolist(), int(index.pts[1]) + 1, int(index.pts[-1]) + 99])
    read = list(read_video(path, wanted, index.starts(0)))
    assert numbers(read) == [0, 1, -1, 2, -1]
    assert read[2] == read[4] == UNDECODABLE


def test_reading_streams(tmp_path: Path) -> None:
    """A picture of 160 x 96 has 45 KiB; 200 of them held would be 9 MiB."""
    path = clip(tmp_path, "a.mp4", options=CLOSED, frames=200)
    index = index_video(path)
    part(path, index, 0, 5)  # what is imported at first use
    gc.collect()
    tracemalloc.start()
    count = sum(1 for _ in read_video(path, index.pts.tolist(), index.starts(0)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200
    assert peak < 1 << 20


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.mpg", "a.webm"])
def test_damage_anywhere_is_frames_or_a_reason(tmp_path: Path, name: str) -> None:
    """A seeded sweep: bytes turned and ends cut off, often in the headers, where demuxers are led astray."""
    codec = {"a.avi": "mpeg4", "a.mpg": "mpeg2video", "a.webm": "libvpx"}.get(name, "libx264")
    path = clip(tmp_path, name, codec, {"g": "6"}, frames=12)
    whole_file = path.read_bytes()
    chance = random.Random(name)
    opened = 0
    for _ in range(40):
        data = bytearray(whole_file)
        for _ in range(chance.choice([1, 3, 20])):
            reach = min(len(data), 900) if chance.random() < 0.5 else len(data)
            data[chance.randrange(reach)] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(1, len(data)) :]
        path.write_bytes(data)
        try:
            index = index_video(path)
        except SourceError:
            continue
        opened += 1
        assert len(whole(path, index)) == len(index.pts)
        middle = len(index.pts) // 2
        assert len(part(path, index, middle, len(index.pts))) == len(index.pts) - middle
    assert opened > 3


def test_tags_in_another_encoding_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Strasse"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 160, 96
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert data.count(b"Strasse") == 1
    path.write_bytes(data.replace(b"Strasse", b"Stra\xdfe "))  # Latin-1
    assert numbers(whole(path, index_video(path))) == [0, 1, 2]


def test_an_unknown_codec(tmp_path: Path) -> None:
    path = clip(tmp_path, "a.mp4", frames=3)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))
    with pytest.raises(SourceError, match=r"a\.mp4 is of an unknown codec, expected what FFmpeg decodes"):
        index_video(path)
