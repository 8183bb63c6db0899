"""Pulled folders, whole and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from tests.training.data import write_boxes, write_crops

from labelmill.errors import TrainingError
from labelmill.training.inputs import read_crops, read_detection


def test_boxes_are_pixels_of_the_upright_picture(tmp_path: Path) -> None:
    write_boxes(tmp_path, {"train": 1, "val": 0})
    picture = tmp_path / "images" / "train" / "000.png"
    exif = Pillow.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    Pillow.new("RGB", (80, 40)).save(picture.with_suffix(".jpg"), exif=exif)
    picture.unlink()
    (tmp_path / "labels" / "train" / "000.txt").write_text("1 0.5 0.5 0.5 0.25\n")
    (found,) = read_detection(tmp_path).split("train")
    assert (found.width_px, found.height_px) == (40, 80)
    assert found.xyxy.tolist() == [[10, 30, 30, 50]]
    assert found.classes.tolist() == [1]


def test_names_may_be_a_table(tmp_path: Path) -> None:
    write_boxes(tmp_path)
    (tmp_path / "data.yaml").write_text("names: {0: red, 1: blue}\n")
    assert read_detection(tmp_path).classes == ("red", "blue")


def test_the_digest_is_of_names_and_bytes_alone(tmp_path: Path) -> None:
    first = read_detection(write_boxes(tmp_path / "a")).digest
    assert read_detection(write_boxes(tmp_path / "b")).digest == first
    label = tmp_path / "b" / "labels" / "train" / "000.txt"
    label.write_text(label.read_text().replace("0 ", "1 ", 1) + "0 0.5 0.5 0.1 0.1\n")
    assert read_detection(tmp_path / "b").digest != first


def bad_label(line: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / "labels" / "train" / "000.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "data.yaml").unlink(), "is not a YOLO folder.*labelmill pull"),
        (lambda root: (root / "data.yaml").write_text("nc: 2"), "names no classes"),
        (lambda root: (root / "data.yaml").write_text("names: {1: a}"), "names no classes"),
        (bad_label("2 0.5 0.5 0.1 0.1"), "000.txt, line 2, is no label.*class 0 to 1"),
        (bad_label("0 0.5 0.5 nan 0.1"), "line 2"),
        (bad_label("0 0.5 0.5 0.1"), "line 2"),
        (bad_label("0 0.5 0.5 0.1 1.5"), "line 2"),
        (lambda root: (root / "images" / "val" / "000.png").write_bytes(b"no picture"), "cannot be read"),
    ],
)
def test_a_broken_yolo_folder_is_one_line(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    write_boxes(tmp_path)
    damage(tmp_path)
    with pytest.raises(TrainingError, match=message):
        read_detection(tmp_path)


def test_an_empty_split_names_the_filled_ones(tmp_path: Path) -> None:
    write_boxes(tmp_path, {"train": 3, "val": 0})
    data = read_detection(tmp_path)
    with pytest.raises(
        TrainingError, match=r"split 'val' .* holds no picture, got filled splits: train \(3\)"
    ):
        data.split("val")


def test_ng_comes_last(tmp_path: Path) -> None:
    write_crops(tmp_path, {"train": {"disc": 2, "NG": 2, "stripe": 2}, "val": {"disc": 1}})
    data = read_crops(tmp_path)
    assert data.classes == ("disc", "stripe", "NG")
    assert [crop.label for crop in data.split("train")] == ["NG", "NG", "disc", "disc", "stripe", "stripe"]


def test_thin_classes_are_told(tmp_path: Path) -> None:
    write_crops(tmp_path, {"train": {"disc": 1, "stripe": 3}, "val": {"stripe": 1, "NG": 2}})
    assert read_crops(tmp_path).warnings == (
        "class 'disc' has one training crop: expect it to be confused; review more of it",
        "class 'disc' occurs in training only: its accuracy is unmeasured",
        "class 'NG' has no training crop: it can never be predicted; review more of it",
    )


def test_no_image_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"is not an image folder, got no such folder.*labelmill pull"):
        read_crops(tmp_path / "absent")


def test_box_coordinates_survive_rounding(tmp_path: Path) -> None:
    write_boxes(tmp_path)
    for picture in read_detection(tmp_path).split("train"):
        assert picture.xyxy.dtype == np.float32
        assert (picture.xyxy[:, 2:] > picture.xyxy[:, :2]).all()
        assert (np.abs(picture.xyxy - picture.xyxy.round()) < 1e-3).all()
