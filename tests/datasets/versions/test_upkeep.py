"""verify, explain and prune."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.datasets.versions.made import MadeRun, made_run

from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.explain import as_text, explain, to_json
from labelmill.datasets.versions.prune import find_prunable, prune
from labelmill.datasets.versions.publish import publish
from labelmill.datasets.versions.store import Version, VersionStore
from labelmill.datasets.versions.verify import verify
from labelmill.errors import VersionError
from labelmill.files import digest_bytes


def published(run: MadeRun) -> Version:
    with run.workspace.lock():
        return publish(run.workspace, DatasetConfig(), run.origin(), None).version


def again(run: MadeRun) -> Version:
    return VersionStore(run.workspace).resolve("v1")


def test_a_fresh_version_is_proved(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    seen: list[tuple[int, int]] = []
    result = verify(
        run.workspace, published(run), progress=lambda done, total, what: seen.append((done, total))
    )
    assert (result.ok, result.faults, result.rows) == (True, [], 80)
    pictures = len(list((tmp_path / "media").rglob("*.jpg")))
    assert result.media == pictures
    assert seen[-1] == (pictures, pictures)


def test_an_altered_and_a_lost_picture_are_named(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = published(run)
    altered = run.workspace.media.path(version.frames["media_digest"][0].as_py())
    lost = run.workspace.media.path(version.regions["crop_digest"][0].as_py())
    altered.write_bytes(altered.read_bytes() + b"!")
    lost.unlink()
    result = verify(run.workspace, version)
    assert not result.ok
    assert sorted(result.faults) == sorted(
        [
            f"{altered} was altered: its bytes have digest {digest_bytes(altered.read_bytes())[:16]}…",
            f"{lost} is gone",
        ]
    )
    assert verify(run.workspace, version, media=False).faults == [f"{lost} is gone"]


@pytest.mark.parametrize("name", ["frames", "regions"])
def test_an_edited_table_is_named(tmp_path: Path, name: str) -> None:
    run = made_run(tmp_path)
    version = published(run)
    path = version.folder / f"{name}.parquet"
    table = pq.read_table(path)
    path.chmod(0o644)
    pq.write_table(table.slice(1), path)
    (first, *_) = verify(run.workspace, again(run)).faults
    assert first.startswith(f"{path} was altered")
    path.write_bytes(b"no parquet")
    (first, *_) = verify(run.workspace, again(run)).faults
    assert first.startswith(f"{path} was altered")
    path.unlink()
    (first, *_) = verify(run.workspace, again(run)).faults
    assert first == f"{path} is gone"


def test_rows_that_do_not_match_are_found_behind_a_right_file_digest(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = published(run)
    path = version.folder / "manifest.json"
    document = json.loads(path.read_text())
    document["regions"]["rows_digest"] = "0" * 64
    document["counts"]["frames"]["train"] += 1
    data = json.dumps(document).encode()
    for file in (path, version.folder / "manifest.sha256"):
        file.chmod(0o644)
    path.write_bytes(data)
    (version.folder / "manifest.sha256").write_text(f"{digest_bytes(data)}  manifest.json\n")
    assert verify(run.workspace, again(run)).faults == [
        "the rows of regions.parquet are not those that were published",
        "the manifest's counts are not those of its rows",
    ]


def test_an_edited_line_file_is_found(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    path = published(run).folder / "line.yaml"
    path.chmod(0o644)
    path.write_text("name: other\n")
    (fault,) = verify(run.workspace, again(run)).faults
    assert fault == f"{path} is not the line file that was published"


def test_explain_says_who_or_what_decided(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    published(run)
    machine, person = (str(row["region_id"]) for row in run.regions[:2])
    at = pa.scalar(90_000_000, pa.timestamp("us", tz="UTC")).as_py()
    label = str(run.regions[1]["label"])
    other = "right" if label == "left" else "left"
    run.decide(
        [
            {
                "decision_id": "d1",
                "region_id": person,
                "label": other,
                "annotator": "ann@example.com",
                "decided_at": at,
                "seconds": 4.0,
            }
        ]
    )
    published(run)
    versions = VersionStore(run.workspace).all("bench")
    by_machine = explain(versions, machine)
    assert by_machine.because() == "the machine said so (accepted): made so"
    assert by_machine.history == [
        ("bench@v1", by_machine.region["label"]),
        ("bench@v2", by_machine.region["label"]),
    ]
    by_person = explain(versions, person[:10])
    assert by_person.region["region_id"] == person
    assert by_person.because() == (
        f"ann@example.com said so on 1970-01-01 00:01 UTC, where the machine had said {label}"
    )
    assert by_person.history == [("bench@v1", label), ("bench@v2", other)]
    text = as_text(by_person, run.workspace)
    for part in (
        f"{person} is {other!r} in bench@v2",
        "λ 0.500",
        "encode: made",
        "d1 by ann@example.com, 4.0 s",
    ):
        assert part in text
    document = json.loads(json.dumps(to_json(by_person, run.workspace)))
    assert document["line"]["name"] == "bench"
    assert Path(document["crop"]).exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no region 'nothing' in bench@v1"),
        ("", "no region '' in bench@v1"),
        ("3f9c2", "'3f9c2' is too short to find a region by, expected an id, or its first 6 characters"),
    ],
)
def test_regions_that_are_not_there(tmp_path: Path, name: str, message: str) -> None:
    run = made_run(tmp_path, sources=1, frames=2)
    with pytest.raises(VersionError, match=message):
        explain([published(run)], name)


def test_prune_keeps_what_versions_and_the_last_run_name(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = published(run)
    orphan = run.workspace.media.path(run.workspace.media.put(b"orphan"))
    before = set((tmp_path / "media").rglob("*.jpg"))
    found = find_prunable(run.workspace)
    assert (found.media, found.shards, found.bytes, found.kept) == ([orphan], [], 6, len(before) - 1)
    assert orphan.exists()
    prune(run.workspace, found)
    assert set((tmp_path / "media").rglob("*.jpg")) == before - {orphan}
    assert verify(run.workspace, version).ok


def test_prune_drops_shards_that_would_promise_a_lost_crop(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    published(run)
    later = MadeRun(run.workspace)
    later.add_frame("other.mp4", 0)
    later.write()
    (tmp_path / "versions" / "bench").rename(tmp_path / "elsewhere")
    found = find_prunable(run.workspace)
    assert len(found.media) == 80
    assert found.shards == []  # the shard was replaced by the later run's
    old = MadeRun(run.workspace, run.frames, run.regions, run.embeddings)
    tables = {name: (tmp_path / "tables" / f"{name}.parquet").read_bytes() for name in ("frames", "regions")}
    old.write()
    for name, data in tables.items():
        (tmp_path / "tables" / f"{name}.parquet").write_bytes(data)
    found = find_prunable(run.workspace)
    assert [path.name for path in found.shards] == ["made.parquet"]
    prune(run.workspace, found)
    assert find_prunable(run.workspace).media == []


def test_prune_stops_at_a_damaged_version(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    (published(run).folder / "manifest.sha256").unlink()
    with pytest.raises(VersionError, match="bench@v1 is not whole"):
        find_prunable(run.workspace)
