from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.datasets.versions.made import made_run

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.diff import as_text, diff, diff_tables
from labelmill.datasets.versions.publish import publish
from labelmill.datasets.versions.tables import FRAMES, REGIONS

Row = dict[str, Any]
LABELS = ("left", "right", "Left", "ein/aus", NG)


def rows_of(seed: int, frames: int) -> tuple[list[Row], list[Row]]:
    rng = random.Random(seed)
    frame_rows = [
        {
            "frame_id": f"f{n:03d}",
            "source": "a.mp4",
            "frame_index": n,
            "split": "train",
            "media_digest": f"m{n}",
        }
        for n in range(frames)
    ]
    region_rows = [
        {
            "region_id": f"r{n:03d}-{k}",
            "frame_id": f"f{n:03d}",
            "xyxy": [float(k), 0.0, k + 8.0, 8.0],
            "label": rng.choice(LABELS),
            "similarity": rng.random(),
            "decided_by": "machine",
            "route": "accepted",
        }
        for n in range(frames)
        for k in range(rng.randint(0, 3))
    ]
    return frame_rows, region_rows


def tables(rows: tuple[list[Row], list[Row]]) -> tuple[pa.Table, pa.Table]:
    return pa.Table.from_pylist(rows[0], schema=FRAMES), pa.Table.from_pylist(rows[1], schema=REGIONS)


EDIT = st.sampled_from(["none", "relabel", "move", "both", "rescore", "remove"])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    frames=st.integers(1, 12),
    edits=st.lists(EDIT, min_size=36, max_size=36),
    frame_edits=st.lists(
        st.sampled_from(["none", "none", "split", "redraw", "remove"]), min_size=12, max_size=12
    ),
    added=st.integers(0, 3),
)
def test_diff_finds_exactly_the_edits(
    seed: int, frames: int, edits: list[str], frame_edits: list[str], added: int
) -> None:
    rng = random.Random(seed + 1)
    old_frames, old_regions = rows_of(seed, frames)
    new_frames: list[Row] = []
    expected: dict[str, list[Any]] = {
        name: []
        for name in [
            "frames_added",
            "frames_removed",
            "frames_redrawn",
            "split_changed",
            "regions_added",
            "regions_removed",
            "relabelled",
            "moved",
            "rescored",
        ]
    }
    dropped = set()
    for row, edit in zip(old_frames, frame_edits, strict=False):
        new = dict(row)
        if edit == "remove":
            expected["frames_removed"].append(row["frame_id"])
            dropped.add(row["frame_id"])
            continue
        if edit == "split":
            new["split"] = "val"
            expected["split_changed"].append((row["frame_id"], "train", "val"))
        if edit == "redraw":
            new["media_digest"] = "other"
            expected["frames_redrawn"].append(row["frame_id"])
        new_frames.append(new)
    new_regions: list[Row] = []
    for row, edit in zip(old_regions, edits, strict=False):
        name = row["region_id"]
        if row["frame_id"] in dropped or edit == "remove":
            expected["regions_removed"].append((name, row["label"]))
            continue
        new = dict(row)
        if edit in ("relabel", "both"):
            new["label"] = rng.choice([label for label in LABELS if label != row["label"]])
            expected["relabelled"].append((name, row["label"], new["label"]))
        if edit in ("move", "both"):
            new["xyxy"] = [row["xyxy"][0] + 0.5, *row["xyxy"][1:]]
            expected["moved"].append((name, row["xyxy"], new["xyxy"]))
        if edit == "rescore":
            new["similarity"] = row["similarity"] + 1.5
            expected["rescored"].append(name)
        new_regions.append(new)
    for number in range(added):
        new_frames.append(
            {
                "frame_id": f"new{number}",
                "split": "test",
                "media_digest": "n",
                "source": "b",
                "frame_index": number,
            }
        )
        expected["frames_added"].append(f"new{number}")
        new_regions.append(
            {
                "region_id": f"new{number}",
                "frame_id": f"new{number}",
                "xyxy": [0, 0, 1, 1],
                "label": "left",
                "similarity": 0.5,
            }
        )
        expected["regions_added"].append((f"new{number}", "left"))
    rng.shuffle(new_frames)
    rng.shuffle(new_regions)
    found = diff_tables(tables((old_frames, old_regions)), tables((new_frames, new_regions)))
    assert {name: getattr(found, name) for name in expected} == {k: sorted(v) for k, v in expected.items()}
    for label in LABELS:
        before = sum(row["label"] == label for row in old_regions)
        after = sum(row["label"] == label for row in new_regions)
        assert found.counts.get(label, (0, 0)) == (before, after)
    assert bool(found) == any(expected.values())
    assert json.loads(json.dumps(found.to_json()))["summary"] == {k: len(v) for k, v in expected.items()}


def test_figures_that_become_null_are_rescored() -> None:
    row = {"region_id": "r", "frame_id": "f", "xyxy": [0, 0, 1, 1], "label": "left", "margin": 0.5}
    frames = [{"frame_id": "f", "split": "train"}]
    changed = diff_tables(tables((frames, [row])), tables((frames, [{**row, "margin": None}])))
    assert changed.rescored == ["r"]
    assert not diff_tables(tables((frames, [row])), tables((frames, [dict(row)])))


def test_the_text_says_what_a_person_asks(tmp_path: Path) -> None:
    run = made_run(tmp_path, sources=1, frames=5)
    with run.workspace.lock():
        first = publish(run.workspace, DatasetConfig(), run.origin(), None).version
    at = pa.scalar(0, pa.timestamp("us", tz="UTC")).as_py()
    region = next(str(row["region_id"]) for row in run.regions if row["label"] == "left")
    run.decide(
        [{"decision_id": "1", "region_id": region, "label": "right", "annotator": "ann", "decided_at": at}]
    )
    with run.workspace.lock():
        second = publish(run.workspace, DatasetConfig(), run.origin(), None).version
    changes = diff(first, second)
    assert changes.relabelled == [(region, "left", "right")]
    text = as_text(changes)
    assert "bench@v1 → bench@v2" in text
    assert "1 regions relabelled" in text
    assert "1 left → right" in text
    assert as_text(diff(first, first)) == "bench@v1 → bench@v1: no difference"


@pytest.mark.parametrize("count", [0, 1])
def test_empty_tables(count: int) -> None:
    frames = [{"frame_id": "f", "split": "train"}][:count]
    empty: tuple[list[Row], list[Row]] = ([], [])
    assert diff_tables(tables(empty), tables((frames, []))).frames_added == ["f"][:count]
