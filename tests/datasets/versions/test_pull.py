"""Pulled sets, read back by the libraries that trainers use."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.datasets.versions.made import HEIGHT_PX, WIDTH_PX, MadeRun, made_run

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.publish import publish
from labelmill.datasets.versions.pull import places
from labelmill.datasets.versions.pull.choose import Labels, NgAs, choose, folder_names
from labelmill.datasets.versions.pull.pull import Format, pull
from labelmill.datasets.versions.pull.transfer import MARKER
from labelmill.datasets.versions.store import Version
from labelmill.errors import VersionError, WorkspaceFullError, WorkspaceLockedError
from labelmill.files import digest_bytes

ODD = ("left", "Left", "links/rechts", "schön 手", "..")
"""Class names with case, a slash, other alphabets, and dots."""


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    made = MadeRun(made_run(tmp_path / "w", sources=1, frames=1).workspace)
    for source in range(10):
        for index, label in enumerate((*ODD, NG)):
            made.add_frame(f"shift {source}.mp4", index, float(index), (label, "left")[: 1 + index % 2])
        made.add_frame(f"shift {source}.mp4", 8, 8.0, ())
    made.add_frame("pending.mp4", 0, 0.0, ("left",), route="review")
    return made.write()


@pytest.fixture
def version(run: MadeRun) -> Version:
    with run.workspace.lock():
        return publish(run.workspace, DatasetConfig(), run.origin(), None).version


def truth(version: Version, split: str, *, ng: bool) -> dict[str, list[tuple[str, list[float]]]]:
    """Media digest to sorted labels and boxes, straight from the tables."""
    inside = [row for row in version.frames.to_pylist() if row["split"] == split and not row["pending"]]
    frames = {row["frame_id"]: row for row in inside}
    found: dict[str, list[tuple[str, list[float]]]] = {row["media_digest"]: [] for row in frames.values()}
    for row in version.regions.to_pylist():
        if row["frame_id"] in frames and (ng or row["label"] != NG):
            found[frames[row["frame_id"]]["media_digest"]].append((row["label"], row["xyxy"]))
    return {digest: sorted(boxes) for digest, boxes in found.items()}


def test_ultralytics_reads_the_yolo_set(run: MadeRun, version: Version, tmp_path: Path) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    out = tmp_path / "yolo set"
    result = pull(run.workspace, version, Format.YOLO, str(out))
    assert result["pending_left_out"] == 1
    data = check_det_dataset(str(out / "data.yaml"), autodownload=False)
    names = dict(data["names"])
    assert sorted(names.values()) == sorted(ODD)
    for split in ("train", "val", "test"):
        dataset = YOLODataset(img_path=data[split], data=data, task="detect", augment=False, imgsz=64)
        read: dict[str, list[tuple[str, list[float]]]] = {}
        for label in dataset.labels:
            digest = digest_bytes(Path(label["im_file"]).read_bytes())
            boxes = []
            for number, (x, y, w, h) in zip(label["cls"].ravel(), label["bboxes"].tolist(), strict=True):
                corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                scaled = [c * s for c, s in zip(corners, (WIDTH_PX, HEIGHT_PX) * 2, strict=True)]
                boxes.append((names[int(number)], [round(c, 3) for c in scaled]))
            read[digest] = sorted(boxes)
        assert read == truth(version, split, ng=False)


@pytest.mark.parametrize("library", ["pycocotools.coco", "faster_coco_eval"])
def test_coco_tools_read_the_coco_set(run: MadeRun, version: Version, tmp_path: Path, library: str) -> None:
    import importlib

    out = tmp_path / "coco"
    pull(run.workspace, version, Format.COCO, str(out), ng=NgAs.CLASS)
    for split in ("train", "val", "test"):
        coco = importlib.import_module(library).COCO(str(out / "annotations" / f"instances_{split}.json"))
        names = {row["id"]: row["name"] for row in coco.loadCats(coco.getCatIds())}
        assert sorted(names.values()) == sorted((*ODD, NG))
        read = {}
        for image in coco.loadImgs(coco.getImgIds()):
            digest = digest_bytes((out / split / image["file_name"]).read_bytes())
            boxes = []
            for row in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
                x, y, w, h = row["bbox"]
                boxes.append((names[row["category_id"]], [x, y, x + w, y + h]))
                assert row["area"] == w * h
            read[digest] = sorted(boxes)
        assert read == truth(version, split, ng=True)


def test_torchvision_reads_the_voc_set(run: MadeRun, version: Version, tmp_path: Path) -> None:
    from torchvision.datasets import VOCDetection

    root = tmp_path / "voc" / "VOCdevkit" / "VOC2012"  # where torchvision looks below its root
    pull(run.workspace, version, Format.VOC, str(root))
    for split in ("train", "val"):
        dataset = VOCDetection(str(tmp_path / "voc"), year="2012", image_set=split)
        read = {}
        for number in range(len(dataset)):
            image, target = dataset[number]
            assert image.size == (WIDTH_PX, HEIGHT_PX)
            found = target["annotation"].get("object", [])
            boxes = [
                (part["name"], [int(part["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax")])
                for part in found
            ]
            read[digest_bytes(Path(dataset.images[number]).read_bytes())] = sorted(boxes)
        expected: dict[str, list[tuple[str, list[int]]]] = {}
        for digest, true in truth(version, split, ng=False).items():
            expected[digest] = sorted(
                (label, [int(x1) + 1, int(y1) + 1, int(x2), int(y2)]) for label, (x1, y1, x2, y2) in true
            )
        assert read == expected


def crops_of(version: Version, split: str, *, ng: bool) -> list[tuple[str, str]]:
    inside = {row["frame_id"] for row in version.frames.to_pylist() if row["split"] == split}
    return sorted(
        (row["label"], row["crop_digest"])
        for row in version.regions.to_pylist()
        if row["frame_id"] in inside and (ng or row["label"] != NG)
    )


@pytest.mark.parametrize("ng", [NgAs.CLASS, NgAs.LEAVE_OUT])
def test_torchvision_reads_the_image_folder(run: MadeRun, version: Version, tmp_path: Path, ng: NgAs) -> None:
    from torchvision.datasets import ImageFolder

    out = tmp_path / "crops"
    pull(run.workspace, version, Format.IMAGEFOLDER, str(out), ng=ng)
    known = {row["folder"]: row for row in json.loads((out / "classes.json").read_text())["classes"]}
    for split in ("train", "val", "test"):
        dataset = ImageFolder(str(out / split))
        assert [known[name]["number"] for name in dataset.classes] == list(range(len(dataset.classes)))
        read = [
            (known[dataset.classes[number]]["label"], digest_bytes(Path(path).read_bytes()))
            for path, number in dataset.samples
        ]
        assert sorted(read) == crops_of(version, split, ng=ng is NgAs.CLASS)


def test_hugging_face_reads_the_image_folder(run: MadeRun, version: Version, tmp_path: Path) -> None:
    from datasets import load_dataset

    out = tmp_path / "crops"
    pull(run.workspace, version, Format.IMAGEFOLDER, str(out))
    known = {row["folder"]: row["label"] for row in json.loads((out / "classes.json").read_text())["classes"]}
    loaded = load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        part = loaded[name]
        labels = [known[part.features["label"].int2str(number)] for number in part["label"]]
        assert sorted(labels) == [label for label, _ in crops_of(version, split, ng=True)]


def test_a_detector_may_learn_phrases_or_one_class(version: Version) -> None:
    assert choose(version, labels=Labels.PHRASE).classes == ["hand"]
    one = choose(version, labels=Labels.ONE, splits=["val"])
    assert one.classes == ["object"]
    assert {picture.split for picture in one.pictures} == {"val"}
    assert one.counts()["val"]["object"] == len(crops_of(version, "val", ng=False))


def test_links_share_the_bytes_and_copies_do_not(run: MadeRun, version: Version, tmp_path: Path) -> None:
    pull(run.workspace, version, Format.COCO, str(tmp_path / "linked"))
    pull(run.workspace, version, Format.COCO, str(tmp_path / "copied"), link=False)
    for name, shared in (("linked", True), ("copied", False)):
        files = list((tmp_path / name).rglob("*.jpg"))
        assert files
        for path in files:
            digest = digest_bytes(path.read_bytes())
            assert path.samefile(run.workspace.media.path(digest)) is shared


def test_a_second_pull_brings_only_what_changed(run: MadeRun, version: Version, tmp_path: Path) -> None:
    out = str(tmp_path / "yolo")
    first = pull(run.workspace, version, Format.YOLO, out, link=False)
    (tmp_path / "yolo" / "labels" / "train.cache").write_text("a trainer's own file")
    again = pull(run.workspace, version, Format.YOLO, out, link=False)
    assert (again["written"], again["kept"], again["removed"]) == (0, first["written"], 0)
    removed = run.frames.pop(3)
    key = (removed["source"], removed["frame_index"])
    run.regions = [row for row in run.regions if (row["source"], row["frame_index"]) != key]
    run.add_frame("shift new.mp4", 0, 0.0)
    with run.write().workspace.lock():
        later = publish(run.workspace, DatasetConfig(), run.origin(), None).version
    third = pull(run.workspace, later, Format.YOLO, out, link=False)
    assert (third["written"], third["removed"]) == (3, 2)  # a picture, its labels, data.yaml's heading
    assert (tmp_path / "yolo" / "labels" / "train.cache").exists()
    fresh = tmp_path / "fresh"
    pull(run.workspace, later, Format.YOLO, str(fresh), link=False)
    files = [path for path in fresh.rglob("*") if path.is_file() and path.name != MARKER]
    ours = {path.relative_to(fresh): path.read_bytes() for path in files}
    for path, data in ours.items():
        assert (tmp_path / "yolo" / path).read_bytes() == data


def test_a_file_that_someone_changed_is_mended(run: MadeRun, version: Version, tmp_path: Path) -> None:
    out = tmp_path / "coco"
    pull(run.workspace, version, Format.COCO, str(out), link=False)
    victim = next(out.rglob("*.jpg"))
    good = victim.read_bytes()
    victim.write_bytes(good[:-1] + b"x")
    os.utime(victim, ns=(1, 1))
    assert pull(run.workspace, version, Format.COCO, str(out), link=False)["written"] == 1
    assert victim.read_bytes() == good


class Interrupted(Exception):  # noqa: N818 - not an error of the program
    """Stands for a kill."""


@pytest.mark.parametrize("after", [0, 1, 30])
def test_an_interrupted_pull_goes_on(
    run: MadeRun, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    out = tmp_path / "coco"
    left = [after]
    take = places.Folder.take

    def sometimes(self: places.Folder, source: Path, digest: str, path: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        take(self, source, digest, path)

    with monkeypatch.context() as patch:
        patch.setattr(places.Folder, "take", sometimes)
        with pytest.raises(Interrupted):
            pull(run.workspace, version, Format.COCO, str(out), link=False)
    assert json.loads((out / MARKER).read_text())["complete"] is False
    result = pull(run.workspace, version, Format.COCO, str(out), link=False)
    assert result["kept"] >= after
    assert json.loads((out / MARKER).read_text())["complete"] is True
    fresh = tmp_path / "fresh"
    pull(run.workspace, version, Format.COCO, str(fresh), link=False)
    for path in fresh.rglob("*"):
        if path.is_file() and path.name != MARKER:
            assert (out / path.relative_to(fresh)).read_bytes() == path.read_bytes()
    assert not list(out.rglob(".tmp-*"))


def test_fsspec_destinations_work_and_are_incremental(run: MadeRun, version: Version) -> None:
    import fsspec

    address = "memory://sets/bench"
    first = pull(run.workspace, version, Format.YOLO, address)
    system = fsspec.filesystem("memory")
    files = [path for path in system.find("/sets/bench") if not path.endswith(MARKER)]
    assert len(files) == first["written"]
    pictures = {digest_bytes(system.cat_file(path)) for path in files if path.endswith(".jpg")}
    assert pictures == {p.media for p in choose(version).pictures}
    again = pull(run.workspace, version, Format.YOLO, address)
    assert (again["written"], again["kept"]) == (0, first["written"])
    system.pipe_file(files[0], b"short")
    assert pull(run.workspace, version, Format.YOLO, address)["written"] == 1
    system.rm("/sets", recursive=True)


def test_an_altered_or_lost_picture_stops_the_pull(run: MadeRun, version: Version, tmp_path: Path) -> None:
    path = run.workspace.media.path(choose(version).pictures[0].media)
    path.write_bytes(b"altered")
    for link in (True, False):
        with pytest.raises(VersionError, match=r"\.jpg was altered"):
            pull(run.workspace, version, Format.YOLO, str(tmp_path / f"out{link}"), link=link)
        assert json.loads((tmp_path / f"out{link}" / MARKER).read_text())["complete"] is False
    path.unlink()
    with pytest.raises(VersionError, match=r"\.jpg is gone"):
        pull(run.workspace, version, Format.YOLO, str(tmp_path / "gone"))


def test_destinations_that_are_something_else(run: MadeRun, version: Version, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("keep me")
    (tmp_path / "file").write_text("a file")
    for name, message in (("full", "holds something else"), ("file", "is a file")):
        with pytest.raises(VersionError, match=message):
            pull(run.workspace, version, Format.YOLO, str(tmp_path / name))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    with pytest.raises(VersionError, match="cannot pull to nosuch://x"):
        pull(run.workspace, version, Format.YOLO, "nosuch://x")


def test_a_pull_of_another_kind_is_left_alone(run: MadeRun, version: Version, tmp_path: Path) -> None:
    pull(run.workspace, version, Format.YOLO, str(tmp_path / "set"))
    before = sorted(path for path in (tmp_path / "set").rglob("*") if path.is_file())
    with pytest.raises(VersionError, match=r"holds another set, got bench as yolo, expected .* as coco"):
        pull(run.workspace, version, Format.COCO, str(tmp_path / "set"))
    assert sorted(path for path in (tmp_path / "set").rglob("*") if path.is_file()) == before


def test_a_full_disk_is_one_line_and_the_rest_is_kept(
    run: MadeRun, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = places.Folder.write
    left = [20]

    def limited(self: places.Folder, path: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0 and path != MARKER:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(places.Folder, "write", limited)
        with pytest.raises(WorkspaceFullError, match=r"no space left in .*pull again"):
            pull(run.workspace, version, Format.YOLO, str(tmp_path / "out"), link=False)
    assert pull(run.workspace, version, Format.YOLO, str(tmp_path / "out"), link=False)["kept"] >= 10


def test_two_pulls_into_one_folder(run: MadeRun, version: Version, tmp_path: Path) -> None:
    from filelock import FileLock

    out = tmp_path / "out"
    lock = FileLock(tmp_path / ".out.labelmill-pull.lock")
    with lock, pytest.raises(WorkspaceLockedError, match="another pull"):
        pull(run.workspace, version, Format.YOLO, str(out))
    pull(run.workspace, version, Format.YOLO, str(out))
    assert [path.name for path in tmp_path.iterdir() if "lock" in path.name] == []


def test_splits_that_are_not_there(version: Version) -> None:
    with pytest.raises(VersionError, match="has no split 'holdout', expected test, train, val"):
        choose(version, splits=["holdout"])


def test_only_pending_frames_is_nothing(tmp_path: Path) -> None:
    made = MadeRun(made_run(tmp_path / "w", sources=1, frames=1).workspace)
    made.add_frame("pending.mp4", 0, 0.0, ("left",), route="review")
    with made.write().workspace.lock():
        found = publish(made.workspace, DatasetConfig(), made.origin(), None).version
    with pytest.raises(VersionError, match="nothing to pull, got 1 frames, all with regions that wait"):
        choose(found)
    assert len(choose(found, pending=True).pictures) == 1


def test_missing_classes_are_warned_of(tmp_path: Path) -> None:
    made = MadeRun(made_run(tmp_path / "w", sources=1, frames=1).workspace)
    for source in range(8):
        made.add_frame(f"{source}.mp4", 0, 0.0, ("left",))
    made.add_frame("9.mp4", 0, 0.0, ("right",))
    with made.write().workspace.lock():
        found = publish(made.workspace, DatasetConfig(), made.origin(), None).version
    warnings = pull(made.workspace, found, Format.IMAGEFOLDER, str(tmp_path / "out"))["warnings"]
    assert any("has no crop of 'right'" in line and "classes.json" in line for line in warnings)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=8))
def test_folder_names_are_distinct_on_every_file_system(labels: list[str]) -> None:
    names = folder_names(labels)
    assert list(names) == labels
    folded = {unicodedata.normalize("NFKD", name.casefold()) for name in names.values()}
    assert len(folded) == len(labels)
    for name in names.values():
        assert name not in ("", ".", "..")
        assert not set(name) & set('<>:"/\\|?*\x00\n')
        assert name == name.strip(" ")
        assert not name.endswith(".")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["left", "Left"], ["left", "Left~2"]),
        (["a/b", "a b", "a:b"], ["a%2Fb", "a b", "a%3Ab"]),
        (["..", "."], ["%2E%2E", "%2E"]),
        (["schön", "scho\u0308n"], ["schön", "schön~2"]),
        (["a%2Fb", "a/b"], ["a%252Fb", "a%2Fb"]),
    ],
)
def test_folder_names(labels: list[str], expected: list[Any]) -> None:
    assert list(folder_names(labels).values()) == expected
