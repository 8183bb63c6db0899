"""The whole chain, from a line file to the final tables."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.conftest import make_bench, moving_square, save
from tests.footage import write_video

from labelmill.annotators.encoders.hog import Hog
from labelmill.annotators.types import Embeddings
from labelmill.datasets import collectors, tables
from labelmill.datasets.annotate import annotate, open_run
from labelmill.datasets.collectors import region_id
from labelmill.datasets.shards import ShardStore
from labelmill.datasets.workspace import Workspace
from labelmill.errors import LabelmillError, SourceError, TemplateError, WeightsError
from labelmill.files import digest_file
from labelmill.images import Image
from labelmill.line import load_line

RED, BLUE, GREY = (220, 40, 40), (40, 60, 220), (128, 128, 128)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench with the boxes of its square beside it, and its finished workspace."""
    folder = make_bench(tmp_path_factory.mktemp("made"))
    labels = folder / "labels"
    labels.mkdir()
    for number in range(10, 40):
        centre = (4 + 3 * (number - 10) + 15) / 160
        (labels / f"clip_{number:03}.txt").write_text(
            f"0 {centre:.9f} {45 / 96:.9f} {30 / 160:.9f} {30 / 96:.9f}\n"
        )
    run(folder)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "line"))


def run(folder: Path, workspace: str = "w", **sections: Any) -> dict[str, Any]:
    text = (folder / "line.yaml").read_text()
    document = yaml.safe_load(text) | {"matching": {"lambda": 0.4}} | sections
    (folder / "edited.yaml").write_text(yaml.safe_dump(document))
    return annotate(load_line(folder / "edited.yaml"), Workspace(folder / workspace))


def rows(folder: Path, name: str, workspace: str = "w") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / workspace / "tables" / f"{name}.parquet").to_pylist()
    return found


def digests(root: Path) -> dict[str, str]:
    """Everything that a run leaves behind, by name and bytes."""
    return {
        path.relative_to(root).as_posix(): digest_file(path)
        for folder in ("shards", "media", "tables")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


BOXES = {"kind": "boxes", "labels": "labels"}


def test_the_chain_on_the_bench(made: Path) -> None:
    """A red square that enters at frame 10 of 40: every frame of it is found, and none before."""
    summary = json.loads((made / "w" / "tables" / "summary.json").read_text())
    assert summary["classes"] == ["blue", "red"]
    assert summary["lambda"] == 0.4
    assert summary["counts"] == {
        "frames": 40,
        "kept": 40,
        "repeat": 0,
        "unreadable": 0,
        "ng_frames": 10,
        "quarantined": 0,
        "regions": 30,
        "accepted": 30,
        "review": 0,
        "ng": 0,
    }
    frames = rows(made, "frames")
    assert [row["frame_index"] for row in frames] == list(range(40))
    assert [row["regions"] for row in frames] == [0] * 10 + [1] * 30
    assert {row["source"] for row in frames} == {"clip.mp4"}
    assert {row["source_digest"] for row in frames} == {digest_file(made / "clip.mp4")}
    assert {(row["width_px"], row["height_px"]) for row in frames} == {(160, 96)}
    assert [row["timestamp_s"] for row in frames] == pytest.approx([n / 10 for n in range(40)])
    regions = rows(made, "regions")
    assert [row["frame_index"] for row in regions] == list(range(10, 40))
    for row in regions:
        left = 4 + 3 * (row["frame_index"] - 10)
        np.testing.assert_allclose(row["xyxy"], [left, 30, left + 30, 60], atol=3)
        assert (row["label"], row["route"], row["phrase"]) == ("red", "accepted", "motion")
        assert 0 < row["score"] <= 1
        assert row["region_id"] == region_id(row["source_digest"], row["frame_index"], row["xyxy"], "motion")
        assert (made / "w" / "media" / row["crop_digest"][:2] / f"{row['crop_digest']}.jpg").is_file()
    assert rows(made, "quarantine") == []


def test_tables_have_the_columns_they_promise(made: Path) -> None:
    folder = made / "w" / "tables"
    assert pq.read_schema(folder / "frames.parquet").equals(tables.FRAMES)
    assert pq.read_schema(folder / "regions.parquet").equals(tables.REGIONS)
    assert pq.read_schema(folder / "quarantine.parquet").equals(tables.QUARANTINE)


def test_crops_are_what_lies_in_the_boxes(made: Path) -> None:
    from PIL import Image as Pillow

    for row in rows(made, "regions")[::7]:
        x1, y1, x2, y2 = row["xyxy"]
        with Pillow.open(made / "w" / "media" / row["crop_digest"][:2] / f"{row['crop_digest']}.jpg") as crop:
            assert crop.size == (round(x2 - x1), round(y2 - y1))
            middle = np.asarray(crop)[10:20, 10:20].reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(middle, RED, atol=12)


def test_a_second_run_computes_nothing_and_changes_nothing(place: Path) -> None:
    before = digests(place / "w")
    times = {path: path.stat().st_mtime_ns for path in (place / "w").rglob("*.parquet")}
    summary = run(place)
    assert summary["shards"] == {"computed": 0, "reused": 3}
    assert digests(place / "w") == before
    assert {path: path.stat().st_mtime_ns for path in (place / "w").rglob("*.parquet")} == times


def test_two_workspaces_come_to_the_same_bytes(place: Path) -> None:
    run(place, "again")
    assert digests(place / "again") == digests(place / "w")


def test_a_line_without_templates_leaves_everything_to_people(place: Path) -> None:
    summary = run(place, "n", templates=None, proposer=BOXES)
    assert summary["classes"] == []
    assert summary["counts"]["review"] == 30
    assert {row["reason"] for row in rows(place, "regions", "n")} == {"no templates yet"}


def test_one_template_a_class_sends_doubt_to_people(place: Path) -> None:
    (place / "one" / "red").mkdir(parents=True)
    (place / "one" / "blue").mkdir()
    for name in ("red", "blue"):
        first = min((place / "templates" / name).iterdir())
        shutil.copy(first, place / "one" / name)
    blend = tuple((a + b) // 2 for a, b in zip(RED, BLUE, strict=True))
    sections = stills(place, a=halves((blend[0], blend[1], blend[2]), (1, 1, 1)))
    sections |= {"templates": {"folder": "one"}, "matching": {}}
    run(place, "o", **sections)
    row = rows(place, "regions", "o")[0]
    assert (row["label"], row["route"]) == ("NG", "review")
    assert "a λ from too few templates" in row["reason"]


def test_another_lambda_only_matches_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Embeddings:
        raise AssertionError("nothing is to be encoded")

    monkeypatch.setattr(Hog, "encode", never)
    summary = run(place, matching={"lambda": 1})
    assert summary["shards"] == {"computed": 3, "reused": 0}
    assert summary["counts"]["ng"] + summary["counts"]["review"] == 30
    assert summary["by_class"]["red"] == {"accepted": 0, "review": 0, "ng": 0}
    assert {row["label"] for row in rows(place, "regions")} == {"NG"}
    assert len(list((place / "w" / "shards" / "encode").iterdir())) == 3
    assert len(list((place / "w" / "shards" / "match").iterdir())) == 6


@pytest.mark.parametrize(("proposer", "sizes"), [(BOXES, (1, 7, 16)), ({"kind": "motion"}, (7, 16))])
def test_results_do_not_depend_on_how_footage_is_cut(
    place: Path, proposer: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    def result(size: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
        name = f"cut{size}"
        counts = run(place, name, proposer=proposer, selection={"repeats": False, "shard_frames": size})
        return rows(place, "regions", name), rows(place, "frames", name), counts["counts"]

    whole = result(1000)
    assert whole[2]["regions"] == 30
    for size in sizes:
        assert result(size) == whole, size


def test_boxes_of_a_file_are_taken_as_they_are(place: Path) -> None:
    summary = run(place, "b", proposer=BOXES)
    assert summary["counts"]["regions"] == 30
    assert summary["counts"]["ng_frames"] == 10
    for row in rows(place, "regions", "b"):
        left = 4 + 3 * (row["frame_index"] - 10)
        assert row["xyxy"] == [left, 30, left + 30, 60]
        assert (row["phrase"], row["score"]) == ("0", 1.0)


def test_repeats_are_kept_out_with_their_reason(place: Path) -> None:
    summary = run(place, "r", selection={"repeats": True, "shard_frames": 100})
    frames = rows(place, "frames", "r")
    assert [row["status"] for row in frames[:12]] == ["kept"] + ["repeat"] * 9 + ["kept"] * 2
    assert frames[5]["reason"].startswith("repeat of frame 0: largest change")
    assert summary["counts"]["repeat"] == 9
    assert summary["counts"]["ng_frames"] == 1
    assert summary["counts"]["regions"] == 30


def test_sampling(place: Path) -> None:
    summary = run(place, "s", selection={"repeats": False, "fps": 2.5}, proposer=BOXES)
    assert [row["frame_index"] for row in rows(place, "frames", "s")] == list(range(0, 40, 4))
    assert summary["counts"]["ng_frames"] == 3  # 0, 4 and 8
    assert summary["counts"]["regions"] == 7


@pytest.mark.parametrize("stage", ["select", "propose", "encode", "match", "templates"])
@pytest.mark.parametrize("harm", ["empty", "cut", "turned", "gone"])
def test_a_damaged_shard_is_computed_anew(
    place: Path, stage: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = digests(place / "w")
    path = sorted((place / "w" / "shards" / stage).iterdir())[0]
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "turned":
        # Near the front, where the first column is: of an encode shard, the join reads no embeddings.
        path.write_bytes(data[:40] + bytes([data[40] ^ 255]) + data[41:])
    else:
        path.write_bytes(data[: len(data) // 2] if harm == "cut" else b"")
    # The tables stand and are whole; what made them is looked at when they are made again.
    (place / "w" / "tables" / "summary.json").unlink()
    with caplog.at_level(logging.WARNING):
        run(place)
    assert digests(place / "w") == before
    if harm == "turned" and stage != "templates":
        assert f"the {stage} shard {path.stem} cannot be read; computing it anew" in caplog.text


def test_a_damaged_shard_that_a_later_stage_needs(place: Path) -> None:
    """λ changes: only the match stage is missing, and finds its encode shard broken within."""
    for path in (place / "w" / "shards" / "encode").iterdir():
        data = bytearray(path.read_bytes())
        data[40] ^= 255
        path.write_bytes(data)
    before = digests(place / "w")
    assert run(place, matching={"lambda": 0.9})["shards"]["computed"] == 3
    for name in before:
        if name.startswith("shards/encode/"):
            assert digest_file(place / "w" / name) != before[name]
    fresh = run(place, "fresh", matching={"lambda": 0.9})
    assert fresh["counts"] == json.loads((place / "w" / "tables" / "summary.json").read_text())["counts"]
    assert rows(place, "regions", "fresh") == rows(place, "regions")


@pytest.mark.parametrize("name", ["frames", "regions", "quarantine", "summary"])
def test_a_lost_table_is_joined_again(place: Path, name: str) -> None:
    before = digests(place / "w")
    suffix = "json" if name == "summary" else "parquet"
    (place / "w" / "tables" / f"{name}.{suffix}").unlink()
    assert run(place)["shards"]["computed"] == 0
    assert digests(place / "w") == before


def test_tables_of_another_line_are_not_taken_for_ones_own(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its first table and its summary, a run leaves tables that belong to nobody."""
    from labelmill.datasets import annotate as module

    before = digests(place / "w")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            run(place, matching={"lambda": 1})
    assert rows(place, "regions")[0]["label"] == "NG"
    run(place)
    after = digests(place / "w")
    assert {name: after[name] for name in before} == before


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many crops each call of the encoder gets."""
    calls: list[int] = []
    encode = Hog.encode

    def counted(self: Hog, crops: Sequence[Image]) -> Embeddings:
        calls.append(len(crops))
        return encode(self, crops)

    monkeypatch.setattr(Hog, "encode", counted)
    return calls


def stills(folder: Path, **pictures: Image) -> dict[str, Any]:
    """A folder of images, and boxes on the left half of each."""
    (folder / "labels2").mkdir(exist_ok=True)
    for name, picture in pictures.items():
        save(folder / "stills" / f"{name}.png", picture)
        (folder / "labels2" / f"{name}.txt").write_text("0 0.25 0.5 0.5 1\n")
    return {
        "sources": [{"images": "stills"}],
        "proposer": {"kind": "boxes", "labels": "labels2"},
        "selection": {"repeats": False, "shard_frames": 100},
    }


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Image:
    image = np.empty((32, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = left, right
    return image


def test_the_same_crop_is_stored_and_encoded_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = stills(
        place,
        a=halves(RED, (1, 1, 1)),
        b=halves(RED, (2, 2, 2)),
        c=halves(BLUE, (3, 3, 3)),
        d=halves(RED, (4, 4, 4)),
    )
    calls = counting(monkeypatch)
    summary = run(place, "s", **sections)
    assert calls == [2, 3]  # two crops that differ; three templates
    assert summary["by_class"]["red"]["accepted"] == 3
    assert summary["by_class"]["blue"]["accepted"] == 1
    regions = rows(place, "regions", "s")
    assert Counter(row["crop_digest"] for row in regions).most_common(1)[0][1] == 3
    assert len(list((place / "s" / "media").rglob("*.jpg"))) == 2
    assert len({row["region_id"] for row in regions}) == 4


def test_templates_are_compared_at_every_quarter_turn(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops lie on their sides and on their heads; their template stands."""
    upright = np.kron(np.array([[1, 1], [0, 1], [0, 1], [0, 1]], np.uint8), np.full((8, 16), 255, np.uint8))
    turns: list[Image] = [np.repeat(np.rot90(upright, turn)[:, :, None], 3, axis=2) for turn in range(4)]
    pictures: dict[str, Image] = {
        f"p{number}": np.pad(turn, ((0, 0), (0, turn.shape[1]), (0, 0))) for number, turn in enumerate(turns)
    }
    sections = stills(place, **pictures)
    save(place / "hooks" / "hook" / "1.png", turns[0])
    save(place / "not" / "1.png", np.full((32, 32, 3), 90, np.uint8))
    calls = counting(monkeypatch)
    templates = {"folder": "hooks", "ng": "not"}
    run(place, "plain", **sections, templates=templates)
    run(place, "turned", **sections, templates=templates | {"turned": True})
    assert calls == [4, 2, 4, 8]
    found = {
        name: [row["similarity"] for row in rows(place, "regions", name)] for name in ("plain", "turned")
    }
    assert found["plain"][0] > 0.99
    assert max(found["plain"][1:]) < 0.9
    assert min(found["turned"]) > 0.99


def test_crops_that_only_look_the_same_once_stored_keep_their_own_embeddings(place: Path) -> None:
    """A JPEG swallows small differences; which crop came first must not decide the other's embedding."""
    other = halves(RED, (1, 1, 1))
    other[3, 3] = (219, 40, 40)
    alone = stills(place, b=other)
    run(place, "alone", **alone)
    run(place, "both", **stills(place, a=halves(RED, (1, 1, 1))))
    both = rows(place, "regions", "both")
    assert both[0]["crop_digest"] == both[1]["crop_digest"]
    assert both[1] == rows(place, "regions", "alone")[0]


def test_large_crops_are_encoded_a_few_at_a_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = stills(place, **{f"i{n}": halves((n * 20, 40, 40), (1, 1, 1)) for n in range(10)})
    calls = counting(monkeypatch)
    monkeypatch.setattr(collectors, "BYTES_PER_CALL", 4 * 32 * 32 * 3)
    run(place, "s", **sections)
    assert calls == [4, 4, 2, 3]


def test_bad_images_are_quarantined_and_the_run_goes_on(place: Path) -> None:
    sections = stills(
        place,
        a=halves(RED, (1, 1, 1)),
        b=halves(BLUE, (2, 2, 2)),
    )
    folder = place / "stills"
    (folder / "0empty.jpg").write_bytes(b"")
    (folder / "lying.jpg").write_text("I am a text file")
    (folder / "sub").mkdir()
    save(folder / "sub" / "whole.png", halves(RED, (9, 9, 9)))
    data = (folder / "sub" / "whole.png").read_bytes()
    (folder / "sub" / "whole.png").write_bytes(data[: len(data) // 2])
    shutil.copy(folder / "a.png", folder / "z-copy.png")
    (folder / "notes.txt").write_text("no image by its name: not looked at")
    summary = run(place, "s", **sections)
    assert summary["counts"]["frames"] == 5
    assert summary["counts"]["kept"] == 2
    assert summary["counts"]["unreadable"] == 3
    assert summary["counts"]["quarantined"] == 4
    assert summary["counts"]["regions"] == 2
    found = {row["source"]: row["reason"] for row in rows(place, "quarantine", "s")}
    assert found.pop("stills/sub/whole.png").startswith("damaged image: ")
    assert found == {
        "stills/z-copy.png": "the same bytes as stills/a.png: taken once",
        "stills/0empty.jpg": "the file is empty",
        "stills/lying.jpg": "the content is no image",
    }
    frames = rows(place, "frames", "s")
    assert [row["source"] for row in frames] == [
        "stills/0empty.jpg",
        "stills/a.png",
        "stills/b.png",
        "stills/lying.jpg",
        "stills/sub/whole.png",
    ]
    assert [(row["width_px"], row["status"]) for row in frames][:2] == [(0, "unreadable"), (64, "kept")]


def test_a_video_that_was_cut_off_gives_its_good_part(place: Path) -> None:
    path = write_video(place / "cut.mkv", [moving_square(n) for n in range(40)], options={"g": "10"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    summary = run(place, "c", sources=[{"video": "cut.mkv"}, {"video": "clip.mp4"}])
    assert 40 + 10 < summary["counts"]["frames"] < 40 + 35
    (row,) = (row for row in rows(place, "quarantine", "c") if "declares" in row["reason"])
    assert row["source"] == "cut.mkv"
    assert row["frame_index"] == summary["counts"]["frames"] - 40
    assert row["reason"].endswith("of the 4.0 s that it declares")


def test_one_unreadable_video_among_others(place: Path) -> None:
    (place / "zero.mp4").write_bytes(b"")
    (place / "words.mp4").write_text("I am text")
    videos = [{"video": "zero.mp4"}, {"video": "clip.mp4"}, {"video": "words.mp4"}]
    summary = run(place, "z", sources=videos)
    assert summary["counts"]["frames"] == 40
    assert [(row["source"], row["frame_index"]) for row in rows(place, "quarantine", "z")] == [
        ("zero.mp4", None),
        ("words.mp4", None),
    ]


def test_nothing_readable_at_all_is_an_error(place: Path) -> None:
    (place / "zero.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match=r"no source can be read: cannot open zero\.mp4"):
        run(place, "z", sources=[{"video": "zero.mp4"}])


def test_images_of_nothing_but_rubbish_finish_in_quarantine(place: Path) -> None:
    (place / "stills").mkdir()
    (place / "stills" / "a.jpg").write_text("text")
    summary = run(place, "s", sources=[{"images": "stills"}])
    assert summary["counts"]["unreadable"] == 1
    assert summary["counts"]["regions"] == 0
    assert rows(place, "regions", "s") == []


def test_names_that_are_no_utf8_do_not_stop_a_run(place: Path) -> None:
    folder = place / "stills"
    save(folder / "a.png", halves(RED, (1, 1, 1)))
    shutil.move(folder / "a.png", folder / os.fsdecode(b"caf\xe9.png"))
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"")
    summary = run(place, "s", sources=[{"images": "stills"}], selection={"repeats": True})
    assert summary["counts"]["kept"] == 1
    assert rows(place, "frames", "s")[0]["source"] == "stills/caf\ufffd.png"


def test_a_template_that_is_no_image(place: Path) -> None:
    (place / "templates" / "red" / "b.jpg").write_bytes(b"")
    with pytest.raises(TemplateError, match=r"template .*b\.jpg cannot be read, got the file is empty"):
        run(place, "t")
    shutil.rmtree(place / "templates" / "blue")
    (place / "templates" / "blue").mkdir()
    with pytest.raises(TemplateError, match="class 'blue' has no images"):
        run(place, "t")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_an_encoder_gone_wrong_is_not_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def broken(self: Hog, crops: Sequence[Image]) -> Embeddings:
        return np.full((len(crops), self.dim), value, np.float32)

    monkeypatch.setattr(Hog, "encode", broken)
    said = re.escape(
        f"embeddings that cannot be kept, got a value of {value:g}, expected numbers up to 65504"
    )
    with pytest.raises(WeightsError, match=said):
        run(place, "e")
    assert not (place / "e" / "shards" / "encode").exists()


def test_a_proposer_that_skips_frames_is_a_bug(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelmill.annotators.proposers.boxes import Boxes

    propose = Boxes.propose

    def lazy(self: Boxes, frames: Any) -> Any:
        yield from list(propose(self, (frame for frame, _ in zip(frames, range(3), strict=False))))

    monkeypatch.setattr(Boxes, "propose", lazy)
    with pytest.raises(RuntimeError, match="'boxes' left 13 frames unanswered"):
        run(place, "l", proposer=BOXES)
    assert not (place / "l" / "shards" / "select").exists()


@pytest.mark.parametrize("stage", ["select", "propose", "encode", "match", "templates", "tables"])
def test_a_run_that_was_broken_off_goes_on_to_the_same_bytes(
    place: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Broken off at the first write of each stage, and run again."""
    expected = digests(place / "w")
    write = ShardStore.write

    def breaking(self: ShardStore, name: str, key: str, table: pa.Table) -> None:
        if name == stage:
            raise KeyboardInterrupt
        write(self, name, key, table)

    def no_tables(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "write", breaking)
        if stage == "tables":
            patch.setattr("labelmill.datasets.join.join_tables", no_tables)
        with pytest.raises(KeyboardInterrupt):
            run(place, "b")
    run(place, "b")
    assert digests(place / "b") == expected


def test_progress_counts_frames_to_the_end(place: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    path = place / "line.yaml"
    annotate(load_line(path), Workspace(place / "p"), lambda *step: seen.append(step))
    counts = [step[0] for step in seen]
    assert counts == sorted(counts)
    assert set(counts) == set(range(41))  # within a shard too: one of 512 frames can take half an hour
    assert {step[1] for step in seen} == {40}


def test_a_run_knows_what_is_left(place: Path) -> None:
    line = load_line(place / "edited.yaml")
    with open_run(line, Workspace(place / "w")) as work:
        assert work.todo() == []
        shard = work.plan.shards[1]
        work.store.path("encode", shard.keys["encode"]).unlink()
        assert [left.number for left in work.todo()] == [1]
        assert shard.missing(work.store) == ["encode"]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (("s", 1, [0, 0, 1, 1], "p"), ("s", 1, [0.1, 0, 1, 1.1], "p"), True),
        (("s", 1, [0, 0, 1, 1], "p"), ("s", 1, [0.25, 0, 1, 1], "p"), False),
        (("s", 1, [0, 0, 1, 1], "p"), ("t", 1, [0, 0, 1, 1], "p"), False),
        (("s", 1, [0, 0, 1, 1], "p"), ("s", 2, [0, 0, 1, 1], "p"), False),
        (("s", 1, [0, 0, 1, 1], "p"), ("s", 1, [0, 0, 1, 1], "q"), False),
        (("s", 1, [-0.0, 0, 1, 1], "p"), ("s", 1, [0, 0, 1, 1], "p"), True),
    ],
)
def test_region_ids(a: Any, b: Any, same: bool) -> None:
    assert (region_id(*a) == region_id(*b)) == same
    assert region_id(*a) == region_id(*a)
    assert len(region_id(*a)) == 24


def test_region_ids_stay_what_they_were() -> None:
    """Reviews and versions name regions by them: this value is for ever."""
    assert region_id("ab" * 32, 7, [1.0, 2.25, 30.5, 40.75], "hand") == "638fd3acfe15e27c7dcda046"


def test_regions_that_round_to_the_same_box_are_one(place: Path) -> None:
    (place / "labels" / "clip_020.txt").write_text(
        "0 0.5 0.5 0.25 0.5\n0 0.5001 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.0001 0.5\n"
    )
    run(place, "d", proposer=BOXES)
    at_20 = [row for row in rows(place, "regions", "d") if row["frame_index"] == 20]
    assert [(row["xyxy"], row["phrase"]) for row in at_20] == [
        ([60, 24, 100, 72], "0"),
        ([60, 24, 100, 72], "1"),
    ]


def test_every_error_of_the_chain_is_the_users(place: Path) -> None:
    """No workspace is left locked, and no table half there, after each of the errors above."""
    with pytest.raises(LabelmillError):
        run(place, "x", sources=[{"video": "gone.mp4"}])
    assert run(place, "x")["shards"]["computed"] == 3
