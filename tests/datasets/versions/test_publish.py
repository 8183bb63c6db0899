from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tests.datasets.versions.made import MadeRun, made_run

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.publish import Published, publish
from labelmill.datasets.versions.store import VersionStore
from labelmill.datasets.versions.tables import rows_digest
from labelmill.datasets.workspace import Workspace
from labelmill.errors import SourceError, VersionError, WorkspaceFullError
from labelmill.files import digest_bytes, digest_file


def publish_files(run: MadeRun, config: DatasetConfig | None = None, message: str = "") -> Published:
    with run.workspace.lock():
        return publish(run.workspace, config or DatasetConfig(), run.origin(), None, message=message)


def test_a_version_is_named_by_the_digest_of_its_manifest(tmp_path: Path) -> None:
    result = publish_files(made_run(tmp_path))
    folder = result.version.folder
    assert result.created
    assert result.version.manifest.name == "bench@v1"
    assert result.version.digest == digest_file(folder / "manifest.json")
    assert (folder / "manifest.sha256").read_text() == f"{result.version.digest}  manifest.json\n"
    assert sorted(path.name for path in folder.iterdir()) == [
        "frames.parquet",
        "line.yaml",
        "manifest.json",
        "manifest.sha256",
        "regions.parquet",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["v1"]


def test_the_same_content_is_the_same_version_and_decodes_nothing(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    first = publish_files(run)
    assert run.decoded == 40
    again = publish_files(run, message="another message")
    assert (again.created, again.version.digest, run.decoded) == (False, first.version.digest, 40)
    run.add_frame("footage/2.mp4", 0)
    third = publish_files(run.write())
    assert (third.created, third.version.manifest.number, run.decoded) == (True, 2, 41)
    assert third.version.manifest.parent is not None
    assert third.version.manifest.parent.digest == first.version.digest


def test_media_are_stored_once_by_digest(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = publish_files(run).version
    for digest in version.frames["media_digest"].to_pylist():
        assert digest_bytes(run.workspace.media.path(digest).read_bytes()) == digest
    assert len(set(version.frames["media_digest"].to_pylist())) == 40
    lost = version.frames["media_digest"][0].as_py()
    run.workspace.media.path(lost).unlink()
    assert not publish_files(replace(run, workspace=Workspace(tmp_path))).created
    assert run.workspace.media.path(lost).exists()


def test_pending_regions_stay_out_and_are_counted(tmp_path: Path) -> None:
    run = MadeRun(made_run(tmp_path, sources=1, frames=1).workspace)
    run.add_frame("a.mp4", 0, labels=("left", "right"), route="review")
    run.add_frame("a.mp4", 1, labels=(NG,))
    run.add_frame("a.mp4", 2, labels=(), status="repeat")
    version = publish_files(run.write()).version
    assert version.frames["frame_index"].to_pylist() == [0, 1]
    assert version.frames["pending"].to_pylist() == [2, 0]
    assert version.regions["label"].to_pylist() == [NG]


def test_the_latest_standing_decision_rules(tmp_path: Path) -> None:
    run = MadeRun(made_run(tmp_path, sources=1, frames=1).workspace)
    relabelled, unsure, boxed = (
        run.add_frame("a.mp4", index, labels=("left",), route="review")[0] for index in range(3)
    )
    at = pa.scalar(0, pa.timestamp("us", tz="UTC")).as_py()
    later = pa.scalar(60_000_000, pa.timestamp("us", tz="UTC")).as_py()
    base = {"annotator": "ann@example.com", "decided_at": at, "seconds": 2.5}
    run.write().decide(
        [
            base | {"decision_id": "1", "region_id": relabelled, "label": NG, "annotator": "bo@example.com"},
            base | {"decision_id": "2", "region_id": relabelled, "label": "right", "decided_at": later},
            base | {"decision_id": "3", "region_id": relabelled, "label": NG, "superseded": True},
            base | {"decision_id": "4", "region_id": unsure, "label": "not sure"},
            base | {"decision_id": "5", "region_id": boxed, "label": "left", "xyxy": [8.0, 8.0, 24.0, 16.0]},
        ]
    )
    version = publish_files(run).version
    rows = {row["region_id"]: row for row in version.regions.to_pylist()}
    assert set(rows) == {relabelled, boxed}
    assert (rows[relabelled]["label"], rows[relabelled]["machine_label"]) == ("right", "left")
    assert rows[relabelled]["machine_xyxy"] is None
    assert rows[relabelled]["decided_by"] == "person"
    assert rows[boxed]["xyxy"] == [8.0, 8.0, 24.0, 16.0]
    assert rows[boxed]["machine_xyxy"] == [4.0, 4.0, 24.0, 36.0]
    assert version.frames["pending"].to_pylist() == [0, 1, 0]
    (ledger,) = version.manifest.lineage.reviewers
    assert (ledger.annotator, ledger.decisions, ledger.changed, ledger.seconds) == (
        "ann@example.com",
        2,
        2,
        5.0,
    )
    import cv2

    crop = cv2.imread(str(run.workspace.media.path(rows[boxed]["crop_digest"])))
    assert crop is not None
    assert crop.shape == (8, 16, 3)


def test_a_decision_about_an_unknown_region_is_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    at = pa.scalar(0, pa.timestamp("us", tz="UTC")).as_py()
    run.decide(
        [{"decision_id": "1", "region_id": "gone", "label": "left", "annotator": "a", "decided_at": at}]
    )
    with pytest.raises(VersionError, match="1 reviewed regions are not in this run, got gone"):
        publish_files(run)


def test_no_table_is_nothing_to_publish(tmp_path: Path) -> None:
    run = MadeRun(made_run(tmp_path).workspace)
    run.workspace.table("regions").unlink()
    with pytest.raises(VersionError, match="nothing to publish"):
        publish_files(run)
    run.add_frame("a.mp4", 0, status="repeat")
    with pytest.raises(VersionError, match="nothing to publish, got 1 frames, none kept"):
        publish_files(run.write())


def test_footage_that_no_longer_gives_a_frame_is_named(tmp_path: Path) -> None:
    run = made_run(tmp_path, sources=1, frames=3)
    short = replace(
        run.origin(), frame_images=lambda rows: (item for item in run.frame_images(rows) if item[1] < 2)
    )
    with run.workspace.lock(), pytest.raises(SourceError, match=r"no frame 2 from footage/0\.mp4"):
        publish(run.workspace, DatasetConfig(), short, None)
    assert VersionStore(run.workspace).datasets() == []


def test_a_gone_crop_stops_publishing(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    run.workspace.media.path(str(run.regions[0]["crop_digest"])).unlink()
    with pytest.raises(VersionError, match="1 crops are gone"):
        publish_files(run)


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    path = publish_files(run).version.folder / "manifest.json"
    path.chmod(0o644)
    document = json.loads(path.read_text())
    document["counts"]["frames"]["train"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(VersionError, match="the manifest of bench@v1 was edited"):
        VersionStore(run.workspace).resolve("bench@v1")


@pytest.mark.parametrize("spec", ["bench@v1", "bench@1", "bench", "bench@latest", "v1", "latest"])
def test_ways_to_name_a_version(tmp_path: Path, spec: str) -> None:
    run = made_run(tmp_path, sources=1, frames=2)
    version = publish_files(run).version
    store = VersionStore(run.workspace)
    assert store.resolve(spec).digest == version.digest
    assert store.resolve(f"bench@sha256:{version.digest[:8]}").digest == version.digest


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bench@v2", "bench has no version 'v2', expected v1"),
        ("bensch@v1", "did you mean 'bench'"),
        ("bench@sha256:00000000", "0 versions of bench have this digest"),
        ("a b", "cannot read the version's name"),
    ],
)
def test_versions_that_are_not_there(tmp_path: Path, spec: str, message: str) -> None:
    run = made_run(tmp_path, sources=1, frames=2)
    publish_files(run)
    with pytest.raises(VersionError, match=message):
        VersionStore(run.workspace).resolve(spec)


def test_splits_without_frames_are_told(tmp_path: Path) -> None:
    short = made_run(tmp_path / "short", sources=1, frames=4)  # one time block
    (warning,) = publish_files(short).warnings
    assert warning.startswith("no frames in test and val: this footage gives one group of frames that must")
    assert (
        publish_files(made_run(tmp_path / "two", sources=2, frames=4))
        .warnings[0]
        .startswith("no frames in test: this footage gives 2 groups")
    )
    given = tmp_path / "given.csv"
    given.write_text("source,split\nfootage/0.mp4,train\n")
    (warning,) = publish_files(made_run(tmp_path / "given"), DatasetConfig(assignments=given)).warnings
    assert warning == "no frames in test and val: dataset.assignments puts none there"
    assert publish_files(made_run(tmp_path / "long", sources=8)).warnings == []


def test_rows_digest_sees_values_and_order_but_not_chunks() -> None:
    table = pa.table({"a": pa.array(["x", None, "y"]), "b": pa.array([1.5, 2.5, None], pa.float32())})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert rows_digest(table) == rows_digest(chunked)
    assert rows_digest(table.slice(1)) == rows_digest(
        pa.Table.from_pylist(table.to_pylist()[1:], table.schema)
    )
    others = [
        table.take([1, 0, 2]),
        table.set_column(0, "a", pa.array(["x", "", "y"])),
        table.set_column(0, "a", pa.array([None, "x", "y"])),
        table.rename_columns(["a", "c"]),
    ]
    assert len({rows_digest(other) for other in [table, *others]}) == 5


def test_a_full_disk_leaves_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_run(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labelmill.datasets.versions.publish.write_table", full)
    with pytest.raises(WorkspaceFullError, match="no space left"):
        publish_files(run)
    assert VersionStore(run.workspace).datasets() == []
    assert not (tmp_path / "versions" / "bench").exists()
