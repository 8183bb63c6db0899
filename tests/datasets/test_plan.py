"""What a change to a line, its footage or its weights causes to be computed again, and what not."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.conftest import make_bench, moving_square, save, square
from tests.footage import write_video

from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.plan import STAGES, Plan, make_plan
from labelmill.datasets.sources.footage import Video
from labelmill.datasets.sources.video import VideoIndex
from labelmill.errors import SourceError, TemplateError, WeightsError
from labelmill.line import load_line


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench, made once: tests work on copies."""
    return make_bench(tmp_path_factory.mktemp("made"))


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "line"))


def plan_of(folder: Path, **sections: object) -> Plan:
    path = folder / "line.yaml"
    document = yaml.safe_load(path.read_text()) | sections
    (folder / "edited.yaml").write_text(yaml.safe_dump(document))
    with Catalogue(":memory:") as catalogue:
        return make_plan(load_line(folder / "edited.yaml"), catalogue)


def changed(before: Plan, after: Plan) -> set[str]:
    """Stages of which some shard has another key."""
    assert len(before.shards) == len(after.shards)
    return {
        stage
        for a, b in zip(before.shards, after.shards, strict=True)
        for stage in STAGES
        if a.keys[stage] != b.keys[stage]
    }


def test_a_video_is_cut_into_shards_with_what_the_proposer_looks_at(place: Path) -> None:
    write_video(place / "long.mp4", [moving_square(n % 40) for n in range(100)])
    plan = plan_of(
        place,
        sources=[{"video": "long.mp4"}],
        proposer={"kind": "motion", "history_frames": 64, "lookahead_frames": 4, "rest_frames": 16},
        selection={"repeats": False, "shard_frames": 40},
    )
    own = [[ref.index for ref in shard.refs] for shard in plan.shards]
    assert own == [list(range(40)), list(range(40, 80)), list(range(80, 100))]
    assert [len(shard) for shard in plan.shards] == [40, 40, 20]
    seen = [[ref.index for ref in shard.slice.refs] for shard in plan.shards]
    assert seen == [list(range(44)), list(range(84)), list(range(16, 100))]
    assert [shard.number for shard in plan.shards] == [0, 1, 2]
    assert len({key for shard in plan.shards for key in shard.keys.values()}) == 12


def test_the_same_line_has_the_same_keys(place: Path) -> None:
    first, second = plan_of(place), plan_of(place)
    assert changed(first, second) == set()
    assert first.digest == second.digest


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"matching": {"lambda": 0.5}}, {"match"}),
        ({"matching": {"margin": 0.1}}, {"match"}),
        ({"matching": {"review_band": 0.1}}, {"match"}),
        ({"encoder": {"kind": "hog", "size_px": 32}}, {"encode", "match"}),
        ({"crop": {"margin": 0.1}}, {"encode", "match"}),
        ({"crop": {"square": True}}, {"encode", "match"}),
        ({"proposer": {"kind": "motion", "contrast": 30}}, {"propose", "encode", "match"}),
        ({"selection": {"repeats": True, "shard_frames": 16}}, set(STAGES)),
        ({"selection": {"repeats": {"threshold": 9}, "shard_frames": 16}}, set(STAGES)),
        ({"runner": {"workers": 7, "retries": 0}}, set()),
        ({"name": "another"}, set()),
    ],
)
def test_a_setting_changes_the_stages_that_it_decides(
    place: Path, sections: dict[str, object], expected: set[str]
) -> None:
    before, after = plan_of(place), plan_of(place, **sections)
    assert changed(before, after) == expected
    assert (before.digest == after.digest) == (expected == set())


def test_sampling_names_other_frames(place: Path) -> None:
    plans = [
        plan_of(place, selection={"repeats": False, "shard_frames": 16, **rule})
        for rule in ({}, {"stride": 2}, {"fps": 5}, {"fps": 10})
    ]
    keys = [{shard.keys["select"] for shard in plan.shards} for plan in plans]
    assert keys[1] == keys[2]  # every second frame of ten a second
    assert keys[0] == keys[3]
    assert not keys[0] & keys[1]


def test_another_shard_size_recomputes_only_what_it_cuts_otherwise(place: Path) -> None:
    settings = {"kind": "motion", "history_frames": 64, "lookahead_frames": 0, "rest_frames": 16}
    coarse = plan_of(place, proposer=settings, selection={"repeats": False, "shard_frames": 32})
    fine = plan_of(place, proposer=settings, selection={"repeats": False, "shard_frames": 16})
    assert coarse.shards[1].keys == fine.shards[2].keys


def test_another_source_leaves_the_others_shards(place: Path) -> None:
    before = plan_of(place)
    write_video(place / "more.mp4", [moving_square(n + 7) for n in range(20)])
    after = plan_of(place, sources=[{"video": "clip.mp4"}, {"video": "more.mp4"}])
    assert [s.keys for s in after.shards[:3]] == [s.keys for s in before.shards]
    assert len(after.shards) == 5
    turned = plan_of(place, sources=[{"video": "more.mp4"}, {"video": "clip.mp4"}])
    assert {s.keys["match"] for s in turned.shards} == {s.keys["match"] for s in after.shards}
    assert turned.digest != after.digest


def test_moving_files_recomputes_nothing(place: Path, tmp_path: Path) -> None:
    before = plan_of(place)
    (place / "clip.mp4").rename(place / "monday.mp4")
    (place / "templates").rename(place / "classes")
    after = plan_of(
        place,
        sources=[{"video": "monday.mp4"}],
        templates={"folder": "classes", "ng": "templates_ng"},
    )
    assert changed(before, after) == set()
    assert before.digest != after.digest  # the tables name the file
    elsewhere = Path(shutil.copytree(place, tmp_path / "elsewhere"))
    moved = plan_of(
        elsewhere,
        sources=[{"video": "monday.mp4"}],
        templates={"folder": "classes", "ng": "templates_ng"},
    )
    assert moved.digest == after.digest


def test_a_touched_file_recomputes_nothing(place: Path) -> None:
    before = plan_of(place)
    os.utime(place / "clip.mp4", ns=(1, 1))
    assert changed(before, plan_of(place)) == set()


@pytest.mark.parametrize(
    "edit",
    [
        lambda place: save(place / "templates" / "red" / "b.png", square((200, 0, 0))),
        lambda place: save(place / "templates" / "red" / "a.png", square((200, 0, 0))),
        lambda place: save(place / "templates" / "green" / "a.png", square((0, 200, 0))),
        lambda place: (place / "templates" / "red").rename(place / "templates" / "rouge"),
        lambda place: save(place / "templates_ng" / "b.png", square((1, 2, 3))),
    ],
)
def test_templates_decide_the_match_alone(place: Path, edit: Callable[[Path], object]) -> None:
    before = plan_of(place)
    edit(place)
    assert changed(before, plan_of(place)) == {"match"}


def test_a_templates_new_name_recomputes_nothing(place: Path) -> None:
    before = plan_of(place)
    (place / "templates" / "red" / "a.png").rename(place / "templates" / "red" / "first.png")
    assert changed(before, plan_of(place)) == set()


def test_a_frame_of_the_footage_decides_everything(place: Path) -> None:
    before = plan_of(place)
    write_video(place / "clip.mp4", [moving_square(n) for n in range(39)] + [moving_square(0)], fps=10)
    assert changed(before, plan_of(place)) == set(STAGES)


def weights(path: Path, value: float) -> Path:
    from safetensors.numpy import save_file

    save_file({"w": np.full(3, value, np.float32)}, path)
    return path


def test_weights_count_by_their_bytes_not_their_name(place: Path) -> None:
    def plan(name: str) -> Plan:
        return plan_of(place, encoder={"kind": "timm", "weights": name})

    weights(place / "a.safetensors", 1)
    before = plan("a.safetensors")
    shutil.copy(place / "a.safetensors", place / "copy.safetensors")
    assert changed(before, plan("copy.safetensors")) == set()
    weights(place / "a.safetensors", 2)
    assert changed(before, plan("a.safetensors")) == {"encode", "match"}


def test_how_fast_a_model_runs_is_in_no_key(place: Path) -> None:
    weights(place / "a.safetensors", 1)
    base = {"kind": "timm", "weights": "a.safetensors"}
    before = plan_of(place, encoder=base)
    assert changed(before, plan_of(place, encoder={**base, "batch_size": 3, "device": "cpu"})) == set()
    assert changed(before, plan_of(place, encoder={**base, "dtype": "bfloat16"})) == {"encode", "match"}


def test_box_files_count_by_their_bytes(place: Path) -> None:
    labels = place / "labels"
    labels.mkdir()
    (labels / "f_1.txt").write_text("0 .5 .5 .2 .2\n")
    before = plan_of(place, proposer={"kind": "boxes", "labels": "labels"})
    (labels / "f_1.txt").write_text("0 .5 .5 .3 .2\n")
    after = plan_of(place, proposer={"kind": "boxes", "labels": "labels"})
    assert changed(before, after) == {"propose", "encode", "match"}


def test_what_is_not_there(place: Path) -> None:
    with pytest.raises(SourceError, match=r"no file .*gone\.mp4, expected a video file or a folder; mend"):
        plan_of(place, sources=[{"video": "gone.mp4"}])
    with pytest.raises(SourceError, match=r"no folder .*gone, expected a folder of images; mend"):
        plan_of(place, sources=[{"images": "gone"}])
    with pytest.raises(TemplateError, match=r"no template folder .*gone"):
        plan_of(place, templates={"folder": "gone"})
    with pytest.raises(
        WeightsError, match=r"no file .*gone\.safetensors, expected what the encoder 'timm' needs"
    ):
        plan_of(place, encoder={"kind": "timm", "weights": "gone.safetensors"})
    (place / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no video in .*empty, expected files ending in"):
        plan_of(place, sources=[{"video": "empty"}])
    with pytest.raises(SourceError, match="no source can be read: no image in this folder"):
        plan_of(place, sources=[{"images": "empty"}])


def test_a_source_that_cannot_be_read_is_a_problem_of_the_plan(place: Path) -> None:
    (place / "broken.mp4").write_bytes(b"")
    plan = plan_of(place, sources=[{"video": "broken.mp4"}, {"video": "clip.mp4"}, {"video": "clip.mp4"}])
    assert len(plan.shards) == 3
    assert [(p.source, p.frame_index, p.reason) for p in plan.problems] == [
        (
            "broken.mp4",
            None,
            "cannot open broken.mp4 as a video, got an empty file, expected a video file; export it again",
        ),
        ("clip.mp4", None, "the same bytes as clip.mp4: taken once"),
    ]


def test_a_plan_of_long_footage_is_small(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour at 30 frames a second: what is kept of a frame are three numbers, not objects."""
    frames = 54_000
    index = VideoIndex(np.arange(frames), 1 / 30, np.arange(0, frames, 250))
    video = Video(place / "clip.mp4", "clip.mp4", "0" * 64, index)
    monkeypatch.setattr("labelmill.datasets.plan.open_footage", lambda *_: ([video], []))
    tracemalloc.start()
    plan = plan_of(place, selection={"repeats": False, "shard_frames": 512})
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sum(len(shard) for shard in plan.shards) == frames
    assert kept < 60 * frames


def test_a_folder_of_videos_is_taken_by_name(place: Path) -> None:
    folder = place / "days"
    folder.mkdir()
    for number, name in enumerate(("b.mp4", "a.mkv", "notes.txt", "c.AVI")):
        if name == "notes.txt":
            (folder / name).write_text("mine")
        else:
            codec = "mpeg4" if name.endswith("AVI") else "libx264"
            write_video(folder / name, [moving_square(n + number) for n in range(5)], codec=codec)
    plan = plan_of(place, sources=[{"video": "days"}])
    assert [shard.refs[0].source for shard in plan.shards] == ["days/a.mkv", "days/b.mp4", "days/c.AVI"]
