"""The real FiftyOne on the real mongod."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.datasets.versions.made import MadeRun, made_run

from labelmill.datasets import mongod
from labelmill.datasets.fiftyone_window import Window
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.documents import VOLATILE
from labelmill.datasets.versions.mirror import differences
from labelmill.datasets.versions.publish import Published, publish
from labelmill.datasets.versions.pull.pull import Format, pull
from labelmill.datasets.versions.restore import restore
from labelmill.datasets.versions.show import compare
from labelmill.datasets.versions.store import VersionStore
from labelmill.errors import ServiceError, VersionError
from labelmill.files import digest_bytes

pytestmark = [
    pytest.mark.server,
    # FiftyOne's own imports and connection, not ours to mend
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def publish_shown(run: MadeRun, config: DatasetConfig | None = None) -> Published:
    with run.workspace.lock():
        return publish(run.workspace, config or DatasetConfig(), run.origin(), Window(run.workspace))


def documents_of(dataset: Any) -> list[dict[str, Any]]:
    """A dataset's raw documents without what differs between two writings."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(part) for key, part in value.items() if key not in (*VOLATILE, "_rand")}
        return [clean(part) for part in value] if isinstance(value, list) else value

    return [clean(document) for document in dataset._sample_collection.find().sort("_id")]


def test_raw_documents_are_what_fiftyone_itself_writes(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = publish_shown(run).version
    window = Window(run.workspace)
    fo = window.fo
    ours = window.load(version.manifest)
    theirs = fo.Dataset()
    for sample in ours.iter_samples():
        fields = {
            name: sample[name]
            for name in sample.field_names
            if name not in ("id", "created_at", "last_modified_at")
        }
        copy = fo.Sample(**{key: value for key, value in fields.items() if key != "regions"})
        copy["regions"] = fo.Detections(
            detections=[
                fo.Detection(
                    **{key: part[key] for key in part.field_names if key != "id" and part[key] is not None}
                )
                for part in sample.regions.detections
            ]
        )
        theirs.add_sample(copy)
    expected, got = documents_of(theirs), documents_of(ours)
    assert len(got) == 40

    def shape(document: Any) -> Any:
        if isinstance(document, dict):
            return {k: shape(v) for k, v in document.items() if v is not None and k != "_id"}
        return [shape(part) for part in document] if isinstance(document, list) else document

    by_frame = {document["frame_id"]: document for document in expected}
    for document in got:
        assert shape(document) == shape(by_frame[document["frame_id"]])


def test_frames_are_samples_and_regions_detections(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = publish_shown(run).version
    dataset = Window(run.workspace).load(version.manifest)
    assert (dataset.name, dataset.persistent, len(dataset)) == ("bench-v1", True, 40)
    assert dataset.count("regions.detections") == 40
    assert dataset.count_values("regions.detections.label") == {"left": 16, "right": 16, "NG": 8}
    sample = dataset.match({"source": "footage/1.mp4", "frame_index": 1}).first()
    frame = version.frames.filter((version.frames["frame_id"].to_pandas() == sample.frame_id).to_numpy())
    assert Path(sample.filepath) == run.workspace.media.path(frame["media_digest"][0].as_py())
    assert sample.tags == [sample.split]
    row = next(row for row in run.regions if row["frame_index"] == 1 and row["source"] == "footage/1.mp4")
    found = next(part for part in sample.regions.detections if part.region_id == row["region_id"])
    assert found.bounding_box == pytest.approx([4 / 64, 4 / 48, 20 / 64, 32 / 48])
    assert (found.label, found.similarity, found.margin, found.route, found.crop) == (
        row["label"],
        row["similarity"],
        0.125,
        "accepted",
        row["crop_digest"],
    )
    assert found.ng_similarity is None
    assert len(dataset.to_patches("regions")) == 40
    identity = Window(run.workspace).identity("bench-v1")
    assert identity is not None
    assert identity["digest"] == version.digest
    assert json.loads(version.manifest.to_bytes())["dataset"] == "bench"


def test_two_workspaces_do_not_meet(tmp_path: Path) -> None:
    first, second = made_run(tmp_path / "a"), made_run(tmp_path / "b", sources=1)
    publish_shown(first)
    publish_shown(second)
    assert len(Window(second.workspace).load(VersionStore(second.workspace).resolve("v1").manifest)) == 20
    assert len(Window(first.workspace).load(VersionStore(first.workspace).resolve("v1").manifest)) == 40


def test_the_database_keeps_versions_over_processes_and_ends_with_them(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    code = (
        "import sys; from pathlib import Path; from labelmill.datasets.fiftyone_window import Window;"
        "from labelmill.datasets.workspace import Workspace;"
        "w = Window(Workspace(Path(sys.argv[1]))); print(w.names(), flush=True)"
    )
    first = mongod.Client(tmp_path / "fiftyone")
    assert first.connect().startswith("mongodb://127.0.0.1:")
    port = mongod.running_port(tmp_path / "fiftyone")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("FIFTYONE_DATABASE_URI", None)
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stdout.strip() == "[]"
    assert mongod.running_port(tmp_path / "fiftyone") == port
    pid = mongod.running_pid(tmp_path / "fiftyone")
    first.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert mongod.running_port(tmp_path / "fiftyone") is None
    assert run.workspace.root == tmp_path


def test_a_killed_mongod_comes_back_with_its_data(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = publish_shown(run).version
    pid = mongod.running_pid(tmp_path / "fiftyone")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert _gone(pid)
    assert len(Window(run.workspace).load(version.manifest)) == 40


def test_a_killed_keeper_leaves_no_stuck_folder(tmp_path: Path) -> None:
    client = mongod.Client(tmp_path)
    client.connect()
    pid = mongod.running_pid(tmp_path)
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    assert _gone(keeper)
    client.close()
    again = mongod.Client(tmp_path)
    again.connect()
    assert mongod.running_pid(tmp_path) not in (None, pid)
    again.close()


def test_a_mongod_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "mongod"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ServiceError, match=r"the embedded database did not start, got .*status 3"):
        mongod.Client(tmp_path / "db", broken).connect()


def test_a_stranger_with_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    Window(run.workspace).fo.Dataset("bench-v1", persistent=True)
    with pytest.raises(VersionError, match="the database has another dataset named bench-v1"):
        publish_shown(run)
    assert VersionStore(run.workspace).datasets() == []
    assert Window(run.workspace).names() == ["bench-v1"]


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_what_people_find_in_the_app(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    publish_shown(run)
    labelled = [row for row in run.regions if row["label"] == "left"]
    at = pa.scalar(0, pa.timestamp("us", tz="UTC")).as_py()
    base = {"annotator": "ann", "decided_at": at}
    run.decide(
        [
            base | {"decision_id": "1", "region_id": labelled[0]["region_id"], "label": "right"},
            base | {"decision_id": "2", "region_id": labelled[1]["region_id"], "label": "left"},
        ]
    )
    second = publish_shown(run).version
    dataset = Window(run.workspace).load(second.manifest)
    assert sorted(dataset.list_saved_views()) == sorted(
        ["NG", "changed since v1", "closest to λ", "corrected by people", "disagreements"]
        + [f"split {split}" for split in set(second.frames["split"].to_pylist())]
    )
    for split in set(second.frames["split"].to_pylist()):
        assert len(dataset.load_saved_view(f"split {split}")) == second.frames["split"].to_pylist().count(
            split
        )
    assert len(dataset.load_saved_view("NG")) == 8
    assert [patch.regions.region_id for patch in dataset.load_saved_view("corrected by people")] == [
        labelled[0]["region_id"]
    ]
    assert len(dataset.load_saved_view("disagreements")) == 1
    closest = [abs(patch.regions.similarity - 0.5) for patch in dataset.load_saved_view("closest to λ")]
    assert closest == sorted(closest)
    assert len(closest) == 40
    (changed,) = dataset.load_saved_view("changed since v1")
    (before,) = changed.before_v1.detections
    assert (before.label, before.region_id) == ("left", labelled[0]["region_id"])
    now = next(part for part in changed.regions.detections if part.region_id == before.region_id)
    assert (now.label, now.machine_label, now.decided_by, now.corrected) == ("right", "left", "person", True)
    config = dataset.app_config
    assert [group.name for group in config.sidebar_groups][:3] == ["labels", "split", "footage"]
    colours = {row["value"]: row["color"] for row in config.color_scheme.fields[0]["valueColors"]}
    assert len(set(colours.values())) == 3
    assert dataset.default_classes == ["left", "right", "NG"]


def test_crops_are_sorted_by_similarity_and_drawn_from_stored_embeddings(tmp_path: Path) -> None:
    run = MadeRun(made_run(tmp_path, sources=1, frames=1).workspace)
    rng = np.random.default_rng(0)
    same = rng.normal(size=32)
    run.add_frame("a.mp4", 0, embedding=same)
    run.add_frame("b.mp4", 0, embedding=same + 0.01 * rng.normal(size=32))
    for number in range(20):
        run.add_frame(f"c{number}.mp4", 0)
    version = publish_shown(run.write()).version
    dataset = Window(run.workspace).load(version.manifest)
    assert sorted(dataset.list_brain_runs()) == ["crops", "crops_similarity"]
    patches = dataset.to_patches("regions")
    ids = {
        sample.source: sample.regions.detections[0].id for sample in dataset.iter_samples() if sample.regions
    }
    nearest = patches.sort_by_similarity(ids["a.mp4"], k=2, brain_key="crops_similarity")
    assert [patch.id for patch in nearest] == [ids["a.mp4"], ids["b.mp4"]]
    points = dataset.load_brain_results("crops")
    assert points.points.shape == (22, 2)
    assert set(points.label_ids) == set(ids.values())


def test_fiftyone_reads_its_own_format(tmp_path: Path) -> None:
    run = made_run(tmp_path / "w", sources=6)
    version = publish_shown(run).version
    window = Window(run.workspace)
    out = tmp_path / "out"
    result = pull(run.workspace, version, Format.FIFTYONE, str(out), window=window, splits=["train"])
    names = [name for name in version.frames["split"].to_pylist() if name == "train"]
    assert result["frames"] == {"train": len(names)}
    kind = window.fo.types.FiftyOneDataset
    loaded = window.fo.Dataset.from_dir(str(out), dataset_type=kind, progress=False)
    assert len(loaded) == len(names)
    ours = window.load(version.manifest).match_tags("train")
    assert loaded.count_values("regions.detections.label") == ours.count_values("regions.detections.label")
    for sample in loaded:
        assert Path(sample.filepath).is_relative_to(out)
        assert digest_bytes(Path(sample.filepath).read_bytes()) == Path(sample.filepath).stem
    whole = pull(run.workspace, version, Format.FIFTYONE, str(out), window=window)
    assert whole["kept"] >= len(names)
    loaded = window.fo.Dataset.from_dir(str(out), dataset_type=kind, progress=False)
    assert len(loaded) == version.frames.num_rows
    assert loaded.list_saved_views() == window.load(version.manifest).list_saved_views()


def test_restore_after_the_loss_of_the_database(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    first = publish_shown(run).version
    run.add_frame("other.mp4", 0)
    second = publish_shown(run.write()).version
    window = Window(run.workspace)
    expected = documents_of(window.load(second.manifest))
    window.fo.delete_datasets("*")
    assert differences(run.workspace, window.folder, second) is None
    with pytest.raises(VersionError, match="no dataset bench-v2; run labelmill restore bench@v2"):
        window.load(second.manifest)
    with run.workspace.lock():
        for version in (first, second):
            restore(run.workspace, version, window, lambda *_: None)
    assert window.names() == ["bench-v1", "bench-v2"]
    assert documents_of(window.load(second.manifest)) == expected
    assert "changed since v1" in window.load(second.manifest).list_saved_views()
    assert differences(run.workspace, window.folder, second) == []


def test_what_people_do_in_fiftyone_is_told_apart_from_its_rows(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    version = publish_shown(run).version
    window = Window(run.workspace)
    dataset = window.load(version.manifest)
    dataset.limit(3).tag_samples("look again")
    dataset.limit(3).tag_labels("look again")
    dataset.add_sample_field("mine", window.fo.IntField)
    assert differences(run.workspace, window.folder, version) == []
    sample = dataset.match(window.fo.ViewField("regions.detections").length() > 0).first()
    sample.regions.detections[0].label = "edited"
    sample.save()
    assert differences(run.workspace, window.folder, version) == [sample.frame_id]
    dataset.delete_samples([sample.id])
    assert differences(run.workspace, window.folder, version) == [sample.frame_id]
    with run.workspace.lock():
        restore(run.workspace, version, window, lambda *_: None)
    assert differences(run.workspace, window.folder, version) == []


def test_any_two_versions_are_compared_in_fiftyone(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    first = publish_shown(run).version
    for number in range(2):
        run.add_frame(f"other{number}.mp4", 0)
        third = publish_shown(run.write()).version
    window = Window(run.workspace)
    dataset = window.load(third.manifest)
    assert len(dataset.load_saved_view("changed since v2")) == 1
    comparison = compare((first.manifest, first.frames, first.regions), third.frames, third.regions)
    for _ in range(2):  # a second time changes nothing
        window.compare(dataset, third.frames, comparison)
        assert len(dataset.load_saved_view("changed since v1")) == 2


@pytest.mark.parametrize(
    "names", [("left", "Left"), ("links/rechts", "a b", "schön 手", "..", "$left", "a.b")]
)
def test_odd_class_names_are_shown(tmp_path: Path, names: tuple[str, ...]) -> None:
    run = MadeRun(made_run(tmp_path, sources=1, frames=1).workspace)
    for number, name in enumerate(names):
        run.add_frame(f"{number}.mp4", 0, 0.0, (name,))
    version = publish_shown(run.write()).version
    dataset = Window(run.workspace).load(version.manifest)
    assert dataset.count_values("regions.detections.label") == dict.fromkeys(names, 1)
    assert version.manifest.classes == sorted(names)


def test_fiftyone_is_imported_after_dask_and_mlflow(tmp_path: Path) -> None:
    """Both import importlib_metadata, which stays in charge for good: so in a process of its own."""
    code = """
import importlib_metadata
from labelmill.datasets.fiftyone_window import import_eta
import_eta()
import eta.constants, importlib.metadata
assert eta.constants.AUTHOR is None
assert importlib.metadata.metadata("numpy")["Name"] == "numpy"
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
