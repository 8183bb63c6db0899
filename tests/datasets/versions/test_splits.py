from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.datasets.versions.made import MadeRun, made_run

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.frames import encode_jpeg
from labelmill.datasets.versions.gate import find_leaks
from labelmill.datasets.versions.publish import publish
from labelmill.datasets.versions.similar import linkage, near_pairs
from labelmill.datasets.versions.splits import Crops, Splits, assign, set_aside, time_blocks
from labelmill.datasets.versions.stills import BITS, Stills, load_stills
from labelmill.datasets.versions.tables import ASIDE, FRAMES, REGIONS, frame_id
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError

CONFIG = DatasetConfig()


def frames_at(times_s: dict[str, list[float]]) -> pa.Table:
    """Frames of some sources at some times."""
    rows = [
        {
            "frame_id": frame_id(source, index),
            "source": source,
            "source_digest": source,
            "frame_index": index,
            "timestamp_s": seconds,
            "split": "",
            "media_digest": "",
        }
        for source, seconds_list in times_s.items()
        for index, seconds in enumerate(seconds_list)
    ]
    return pa.Table.from_pylist(rows, schema=FRAMES)


def regions_on(frames: pa.Table, labels: list[str]) -> pa.Table:
    """One region a frame."""
    rows = [
        {"region_id": f"r{row}", "frame_id": name, "label": label, "crop_digest": f"c{row}"}
        for row, (name, label) in enumerate(zip(frames["frame_id"].to_pylist(), labels, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=REGIONS)


def crops_of(vectors: np.ndarray) -> Crops:
    """A crop a frame."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.arange(len(vectors), dtype=np.int64)
    return Crops(unit.astype(np.float32), rows, rows)


NO_CROPS = Crops(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))


def test_blocks_follow_time_within_each_source() -> None:
    frames = frames_at({"a": [0.0, 4.9, 5.0, 9.0], "b": [0.0, 0.0]})
    assert time_blocks(frames, 5.0).tolist() == [0, 0, 1, 1, 2, 2]
    long = frames_at({"a": [0.0, 29.0, 31.0, 600.0]})
    assert time_blocks(long, None).tolist() == [0, 0, 1, 2]  # a twentieth of 600 s is 30 s


@pytest.mark.parametrize(
    ("times_s", "split", "expected"),
    [
        ([0.0, 0.4, 1.2], [0, 0, 1], [False, True, False]),
        ([0.0, 0.4, 0.8], [0, 0, 0], [False, False, False]),
        ([0.0, 0.4, 1.5], [1, 1, 0], [False, False, False]),
        ([0.0, 0.5, 0.9], [1, 0, 2], [True, True, False]),  # 0 gives way to both, then 1 and 2 meet
    ],
)
def test_frames_between_two_splits_are_set_aside(
    times_s: list[float], split: list[int], expected: list[bool]
) -> None:
    out = set_aside(frames_at({"a": times_s}), np.array(split), 1.0).tolist()
    assert out == expected


def test_near_duplicates_of_two_sources_stay_together() -> None:
    rng = np.random.default_rng(0)
    frames = frames_at({f"s{n}": [0.0] for n in range(40)})
    vectors = rng.normal(size=(40, 64))
    vectors[30] = vectors[3] + 0.01 * rng.normal(size=64)
    result = assign(frames, regions_on(frames, ["x"] * 40), crops_of(vectors), CONFIG, {})
    assert result.group[30] == result.group[3]
    assert result.split[30] == result.split[3]
    assert result.near_duplicate == 0.95
    assert len(set(result.group)) == 39


def test_shares_are_kept_class_by_class() -> None:
    frames = frames_at({f"s{n}": [0.0] for n in range(200)})
    labels = ["common"] * 160 + ["rare"] * 40
    result = assign(frames, regions_on(frames, labels), NO_CROPS, CONFIG, {})
    for name, part in (("common", result.split[:160]), ("rare", result.split[160:])):
        shares = {split: part.count(split) / len(part) for split in CONFIG.splits}
        assert shares == pytest.approx(CONFIG.splits, abs=0.03), name


def test_every_split_gets_something_where_it_can() -> None:
    frames = frames_at({"a": [0.0], "b": [0.0], "c": [0.0]})
    result = assign(frames, regions_on(frames, ["x"] * 3), NO_CROPS, CONFIG, {})
    assert sorted(result.split) == ["test", "train", "val"]


def test_auto_goes_up_where_one_group_would_swallow_everything() -> None:
    rng = np.random.default_rng(0)
    frames = frames_at({f"s{n}": [0.0] for n in range(30)})
    base = np.ones(64)
    vectors = base + 0.19 * rng.normal(size=(30, 64))  # cosines of about 0.965
    result = assign(frames, regions_on(frames, ["x"] * 30), crops_of(vectors), CONFIG, {})
    assert result.near_duplicate is not None
    assert result.near_duplicate > 0.95
    assert result.largest_share <= 0.4
    fixed = DatasetConfig(near_duplicate=0.9)
    assert assign(frames, regions_on(frames, ["x"] * 30), crops_of(vectors), fixed, {}).largest_share == 1


def test_a_sample_keeps_its_split_unless_its_group_must_move() -> None:
    frames = frames_at({f"s{n}": [0.0] for n in range(40)})
    regions = regions_on(frames, ["x"] * 40)
    first = assign(frames, regions, NO_CROPS, CONFIG, {})
    earlier = dict(zip(frames["frame_id"].to_pylist(), first.split, strict=True))
    more = frames_at({f"s{n}": [0.0] for n in range(60)})
    second = assign(more, regions_on(more, ["x"] * 60), NO_CROPS, CONFIG, earlier)
    assert second.split[:40] == first.split
    assert second.moved == 0
    train, val = first.split.index("train"), first.split.index("val")
    vectors = np.random.default_rng(0).normal(size=(60, 64))
    vectors[val] = vectors[train]
    third = assign(more, regions_on(more, ["x"] * 60), crops_of(vectors), CONFIG, earlier)
    assert third.moved == 1
    assert third.split[val] == third.split[train] == "train"  # trained on once, never evaluated on
    assert [s for n, s in enumerate(third.split[:40]) if n != val] == [
        s for n, s in enumerate(first.split) if n != val
    ]


def test_shares_hold_for_frames_also_where_groups_differ_in_size() -> None:
    frames = frames_at({f"s{n}": [0.0] for n in range(300)})
    crowded = np.repeat(np.arange(60), 10)  # 60 frames with ten regions each, 240 with one
    rows = [
        {"region_id": f"r{n}", "frame_id": frames["frame_id"][int(row)].as_py(), "label": "x"}
        for n, row in enumerate([*crowded.tolist(), *range(60, 300)])
    ]
    result = assign(frames, pa.Table.from_pylist(rows, schema=REGIONS), NO_CROPS, CONFIG, {})
    for part in (result.split, result.split[:60]):
        shares = {split: part.count(split) / len(part) for split in CONFIG.splits}
        assert shares == pytest.approx(CONFIG.splits, abs=0.03)


def stills_of(hashes: np.ndarray) -> Stills:
    """A picture a frame, and its mirrored hash, which is like nothing else here."""
    mirrored = np.random.default_rng(99).random(hashes.shape) < 0.5
    signs = 2 * np.concatenate([hashes, mirrored]).astype(np.float32) - 1
    return Stills(signs / np.float32(16), np.tile(np.arange(len(hashes)), 2))


def test_stills_of_the_same_picture_stay_together() -> None:
    frames = frames_at({f"s{n}": [0.0] for n in range(60)})
    hashes = np.random.default_rng(0).random((60, BITS)) < 0.5
    hashes[[7, 40]] = hashes[3]
    hashes[7, :10] ^= True
    hashes[40, :11] ^= True  # one bit too many from 3, and one from 7
    hashes[50] = hashes[20]
    hashes[50, :11] ^= True
    regions = regions_on(frames, ["x"] * 60)
    result = assign(frames, regions, NO_CROPS, CONFIG, {}, stills=stills_of(hashes))
    assert result.near_duplicate_bits == 10
    assert result.group[3] == result.group[7] == result.group[40]
    assert result.group[50] != result.group[20]
    assert len(set(result.group)) == 58


def test_stills_of_a_fixed_camera_are_told_apart_by_their_crops_alone() -> None:
    frames = frames_at({f"s{n}": [0.0] for n in range(30)})
    stills = stills_of(np.zeros((30, BITS), bool))
    result = assign(frames, regions_on(frames, ["x"] * 30), NO_CROPS, CONFIG, {}, stills=stills)
    assert result.near_duplicate_bits is None
    assert len(set(result.group)) == 30
    told = DatasetConfig(near_duplicate_bits=0)
    together = assign(frames, regions_on(frames, ["x"] * 30), NO_CROPS, told, {}, stills=stills)
    assert together.largest_share == 1


def test_the_gate_finds_a_mirrored_still_in_another_split(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    rng = np.random.default_rng(0)
    scene = np.repeat(np.repeat(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8), 12, 0), 12, 1)
    other = np.repeat(np.repeat(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8), 12, 0), 12, 1)
    pictures = [scene, np.ascontiguousarray(scene[:, ::-1]), other, scene, scene]
    media = [
        workspace.media.put(encode_jpeg(picture, quality)) for quality, picture in enumerate(pictures, 90)
    ]
    frames = frames_at({"a": [0.0], "b": [0.0], "c": [0.0], "film": [0.0, 60.0]})
    for name, values in (("media_digest", media), ("split", ["train", "val", "val", "val", "val"])):
        frames = frames.set_column(FRAMES.get_field_index(name), name, pa.array(values))
    stills = load_stills(workspace, frames)
    assert stills.frame.tolist() == [0, 1, 2] * 2  # a film's frames are no stills
    leaks = find_leaks(
        frames, regions_on(frames, ["x"] * 5), NO_CROPS, threshold=None, guard_s=1, stills=stills, bits=10
    )
    assert (leaks.near_duplicates, leaks.pictures, leaks.neighbours) == (0, 1, 0)
    assert {leaks.worst[0].left.source, leaks.worst[0].right.source} == {"a", "b"}
    workspace.media.path(media[0]).unlink()
    assert np.array_equal(load_stills(workspace, frames).vectors, stills.vectors)  # hashed once


def check_no_leak(
    frames: pa.Table, regions: pa.Table, crops: Crops, result: Splits, config: DatasetConfig
) -> None:
    frames = frames.set_column(FRAMES.get_field_index("split"), FRAMES.field("split"), pa.array(result.split))
    leaks = find_leaks(frames, regions, crops, threshold=result.near_duplicate, guard_s=config.guard_s)
    assert not leaks, leaks


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 120), min_size=1, max_size=30), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.5, 2.0, 10.0]),
    st.sampled_from([None, 3.0, 20.0]),
)
def test_our_splits_never_leak(
    times: list[list[float]], seed: int, guard_s: float, block_s: float | None
) -> None:
    rng = np.random.default_rng(seed)
    config = DatasetConfig(guard_s=guard_s, time_block_s=block_s)
    frames = frames_at({f"s{n}": sorted(seconds) for n, seconds in enumerate(times)})
    vectors = rng.normal(size=(frames.num_rows, 16))
    copies = rng.integers(0, frames.num_rows, frames.num_rows // 3)
    vectors[rng.integers(0, frames.num_rows, len(copies))] = vectors[copies] + 0.02 * rng.normal(
        size=(len(copies), 16)
    )
    labels = rng.choice(["x", "y", NG], frames.num_rows).tolist()
    regions, crops = regions_on(frames, labels), crops_of(vectors)
    first = assign(frames, regions, crops, config, {})
    check_no_leak(frames, regions, crops, first, config)
    part = frames.slice(0, max(1, frames.num_rows // 2))
    few = regions.slice(0, part.num_rows)
    rows = part.num_rows
    part_crops = Crops(crops.vectors[:rows], crops.frame[:rows], crops.region[:rows])
    begun = assign(part, few, part_crops, config, {})
    earlier = {
        name: split
        for name, split in zip(part["frame_id"].to_pylist(), begun.split, strict=True)
        if split != ASIDE
    }
    again = assign(frames, regions, crops, config, earlier, begun.near_duplicate)
    check_no_leak(frames, regions, crops, again, config)
    repeated = assign(frames, regions, crops, config, earlier, begun.near_duplicate)
    assert repeated == again


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([3, 40, 300]), st.floats(0.5, 0.99))
def test_near_pairs_are_exactly_those_above_the_threshold(
    seed: int, count: int, dim: int, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dim)) + rng.normal(size=dim) * 2
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cosine = unit @ unit.T
    expected = {(i, j) for i, j in zip(*np.triu_indices(count, 1), strict=True) if cosine[i, j] >= threshold}
    unsure = {
        (i, j)
        for i, j in zip(*np.triu_indices(count, 1), strict=True)
        if abs(cosine[i, j] - threshold) < 2e-4
    }
    found = {
        pair for i, j, _ in near_pairs(unit, threshold) for pair in zip(i.tolist(), j.tolist(), strict=True)
    }
    assert found ^ expected <= unsure


def test_near_pairs_through_the_projection_miss_nothing() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(300, 200))
    vectors = np.repeat(centres, 5, axis=0) + 0.1 * rng.normal(size=(1500, 200))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    upper = np.triu(unit @ unit.T, 1)
    found = sum(len(i) for i, _, _ in near_pairs(unit, 0.97))
    assert found == np.count_nonzero(upper >= 0.97 - 1e-4)
    assert 1000 < found <= 3000


def test_linkage_connects_what_all_pairs_connect() -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(80, 6))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    units = rng.integers(0, 40, 80)
    first, second, cosine = linkage(unit, units, 40, 0.6)
    assert len(first) < 40
    for threshold in (0.6, 0.7, 0.8, 0.9, 0.95):
        near = cosine >= threshold
        forest = coo_matrix((np.ones(near.sum()), (first[near], second[near])), shape=(40, 40))
        i, j = np.nonzero(np.triu(unit @ unit.T, 1) >= threshold)
        whole = coo_matrix((np.ones(len(i)), (units[i], units[j])), shape=(40, 40))
        ours, theirs = (connected_components(graph, directed=False)[1] for graph in (forest, whole))
        assert len(set(zip(ours, theirs, strict=True))) == len(set(ours)) == len(set(theirs))


def test_published_splits_are_recorded_and_stay(tmp_path: Path) -> None:
    run = made_run(tmp_path, sources=12, frames=6)
    with run.workspace.lock():
        first = publish(run.workspace, CONFIG, run.origin(), None).version
    assert set(first.frames["split"].to_pylist()) == {"train", "val", "test"}
    assert first.manifest.splits["near_duplicate"] == 0.95
    assert first.manifest.splits["embedded_crops"] == len(run.regions)
    before = dict(zip(first.frames["frame_id"].to_pylist(), first.frames["split"].to_pylist(), strict=True))
    run.add_frame("footage/new.mp4", 0)
    with run.workspace.lock():
        second = publish(run.write().workspace, CONFIG, run.origin(), None).version
    after = dict(zip(second.frames["frame_id"].to_pylist(), second.frames["split"].to_pylist(), strict=True))
    assert {name: after[name] for name in before} == before


def test_the_gate_refuses_given_splits_that_leak_and_shows_the_pairs(tmp_path: Path) -> None:
    run = MadeRun(made_run(tmp_path / "w", sources=1, frames=1).workspace)
    same = np.random.default_rng(0).normal(size=32)
    run.add_frame("a.mp4", 0, 0.0, embedding=same)
    run.add_frame("a.mp4", 1, 0.5)
    run.add_frame("b.mp4", 0, 0.0, embedding=same)
    run.write()
    given_splits = tmp_path / "splits.csv"

    def write(rows: list[tuple[str, str, str]]) -> None:
        with given_splits.open("w", newline="") as file:
            csv.writer(file).writerows([("source", "frame_index", "split"), *rows])

    config = DatasetConfig(assignments=given_splits)
    write([("a.mp4", "0", "train"), ("a.mp4", "1", "val"), ("b.mp4", "", "val")])
    with run.workspace.lock(), pytest.raises(VersionError) as refused:
        publish(run.workspace, config, run.origin(), None)
    assert "1 near-duplicate crops, 0 of the same picture, 1 neighbouring frames" in refused.value.line
    assert "a.mp4 frame 0 (train) and b.mp4 frame 0 (val), cosine 1.000" in refused.value.line
    page = (run.workspace.tables / "leaks.html").read_text()
    assert page.count("<img") == 4
    assert "../media/" in page
    assert not (run.workspace.versions / "bench").exists()
    write([("a.mp4", "", "train"), ("b.mp4", "", "train")])
    with run.workspace.lock():
        version = publish(run.workspace, config, run.origin(), None).version
    assert version.frames["split"].to_pylist() == ["train"] * 3
    assert version.manifest.splits["given"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "source,split\na.mp4,holdout\n",
            "names an unknown split, got holdout, expected train, val",
        ),
        ("file,split\na.mp4,train\n", "gives no splits, expected columns source"),
        ("source,split\nelsewhere.mp4,train\n", "names none of the frames, got elsewhere.mp4"),
    ],
)
def test_assignments_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    run = made_run(tmp_path / "w")
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with run.workspace.lock(), pytest.raises(VersionError, match=message):
        publish(run.workspace, DatasetConfig(assignments=path), run.origin(), None)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.5, "val": 0.4}, "must add up to 1, got 0.9"),
        ({"train": 1.5, "val": -0.5}, "must be between 0 and 1"),
        ({"aside": 1.0}, "cannot be a split's name"),
    ],
)
def test_shares_that_make_no_sense(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetConfig(splits=shares)
