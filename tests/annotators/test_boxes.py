from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelmill.annotators.proposers.boxes import Boxes, BoxesConfig
from labelmill.annotators.types import Frame
from labelmill.errors import LineFileError

SIZE_WH = (200, 100)


def frame(name: str = "", index: int = 0) -> Frame:
    return Frame("digest", index, 0.0, np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8), name)


def boxes_of(labels: Path, wanted: Frame, **settings: Any) -> list[tuple[list[float], str, float]]:
    proposer = Boxes(BoxesConfig.model_validate({"labels": labels, **settings}))
    (found,) = proposer.propose(iter([wanted]))
    assert found.xyxy.dtype == np.float32
    rows = zip(found.xyxy.tolist(), found.data["phrase"].tolist(), found.confidence.tolist(), strict=True)
    return [(box, str(phrase), round(score, 3)) for box, phrase, score in rows]


def yolo(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 0.5 0.5 0.2 0.4", ([80, 30, 120, 70], "b", 1.0)),
        ("0 0.5 0.5 0.2 0.4 0.25", ([80, 30, 120, 70], "a", 0.25)),
        ("7 0.5 0.5 0.2 0.4", ([80, 30, 120, 70], "7", 1.0)),
        ("0.0 0.5 0.5 0.2 0.4", ([80, 30, 120, 70], "a", 1.0)),
        ("0 0.1 0.5 0.4 0.4", ([0, 30, 60, 70], "a", 1.0)),  # over the edge
        ("0 0.4 0.3 0.6 0.3 0.5 0.7", ([80, 30, 120, 70], "a", 1.0)),  # a triangle
        ("0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7", ([80, 30, 120, 70], "a", 1.0)),  # a quadrangle
    ],
)
def test_yolo_by_hand(tmp_path: Path, line: str, expected: tuple[list[float], str, float]) -> None:
    labels = yolo(tmp_path / "labels", x=f"\n{line}\n\n")
    ((box, phrase, score),) = boxes_of(labels, frame("x.jpg"), names=["a", "b"])
    np.testing.assert_allclose(box, expected[0], atol=1e-4)
    assert (phrase, score) == expected[1:]


@pytest.mark.parametrize("line", ["0 0.5 0.5 0", "0 0.5 0.5 -0.2 0.4", "0 2 2 0.1 0.1"])
def test_yolo_without_area_is_no_box(tmp_path: Path, line: str) -> None:
    if line == "0 0.5 0.5 0":
        line = "0 0.5 0.5 0 0"
    assert boxes_of(yolo(tmp_path / "labels", x=line), frame("x.jpg")) == []


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.2",
        "a 0.5 0.5 0.2 0.4",
        "0 0.5 0.5 nan 0.4",
        "nan 0.5 0.5 0.1 0.4",
        "inf 1 1 1 1",
        "0 1 1 1 1 1 1 1",
    ],
)
def test_yolo_that_is_none(tmp_path: Path, line: str) -> None:
    labels = yolo(tmp_path / "labels", good="0 .5 .5 .1 .1", x=f"0 .5 .5 .1 .1\n{line}\n")
    with pytest.raises(
        LineFileError, match=r"x\.txt line 2 is no YOLO box, got .*, expected class cx cy w h"
    ):
        boxes_of(labels, frame("x.jpg"))


def test_class_names_are_found_beside_the_labels(tmp_path: Path) -> None:
    labels = yolo(tmp_path / "set" / "labels" / "val", x="2 .5 .5 .5 .5")

    def phrase(**settings: Any) -> str:
        return boxes_of(labels, frame("x.jpg"), **settings)[0][1]

    assert phrase() == "2"
    (tmp_path / "set" / "data.yaml").write_text("names: [a, b, c]\n")
    assert phrase() == "c"
    (labels / "classes.txt").write_text("d\ne\nf\n")
    assert phrase() == "f"
    (tmp_path / "other.yaml").write_text("names: {0: g, 2: h}\n")
    assert phrase(names=tmp_path / "other.yaml") == "h"
    assert phrase(names=["i"]) == "2"


@pytest.mark.parametrize(
    ("text", "said"), [("[", "is no YAML"), ("names: 3", "no class names in"), ("- a", "no class names in")]
)
def test_class_names_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    labels = yolo(tmp_path / "labels", x="0 .5 .5 .5 .5")
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(LineFileError, match=said):
        boxes_of(labels, frame("x.jpg"), names=tmp_path / "names.yaml")


def test_an_image_is_found_by_its_path_then_by_its_stem(tmp_path: Path) -> None:
    labels = yolo(tmp_path / "labels", only="0 .5 .5 .5 .5")
    yolo(labels / "a", same="1 .5 .5 .5 .5")
    yolo(labels / "b", same="2 .5 .5 .5 .5")

    def kinds(name: str) -> list[str]:
        return [phrase for _, phrase, _ in boxes_of(labels, frame(name))]

    assert kinds("a/same.png") == ["1"]
    assert kinds("b/same.jpg") == ["2"]
    assert kinds("c/same.jpg") == []  # which of the two?
    assert kinds("deep/below/only.jpg") == ["0"]
    assert kinds("none.jpg") == []


def test_a_video_frame_is_found_by_the_number_at_the_end(tmp_path: Path) -> None:
    labels = yolo(
        tmp_path / "labels", clip_000012="1 .5 .5 .5 .5", clip_7="2 .5 .5 .5 .5", intro="3 .5 .5 .5 .5"
    )
    assert boxes_of(labels, frame(index=12))[0][1] == "1"
    assert boxes_of(labels, frame(index=7))[0][1] == "2"
    assert boxes_of(labels, frame(index=0)) == []


def test_two_videos_boxes_are_not_mixed_up(tmp_path: Path) -> None:
    labels = yolo(tmp_path / "labels", left_7="1 .5 .5 .5 .5", right_7="2 .5 .5 .5 .5")
    assert boxes_of(labels, frame("left_7.jpg"))[0][1] == "1"
    with pytest.raises(LineFileError, match="several boxes for frame 7 of a video, got left_7, right_7"):
        boxes_of(labels, frame(index=7))


VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation><filename>x.jpg</filename>
  <object><name>hand</name><bndbox><xmin>10</xmin><ymin>20.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>
  <object><name>part</name></object>
  <object><bndbox><xmin>150</xmin><ymin>20</ymin><xmax>900</xmax><ymax>400</ymax></bndbox></object>
</annotation>
"""


def test_voc_by_hand(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(VOC)
    assert boxes_of(tmp_path, frame("x.jpg")) == [
        ([10, 20.5, 30, 40], "hand", 1.0),
        ([150, 20, 200, 100], "object", 1.0),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation>", "is no VOC file"),
        ("<a><object><bndbox><xmin>1</xmin></bndbox></object></a>", "is no VOC file"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "declares XML entities"),
    ],
)
def test_voc_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.xml").write_text(text)
    with pytest.raises(LineFileError, match=said):
        boxes_of(tmp_path, frame("x.jpg"))


COCO: dict[str, Any] = {
    "images": [{"id": 3, "file_name": "day/x.jpg"}, {"id": 4, "file_name": "empty.jpg"}],
    "categories": [{"id": 1, "name": "hand"}],
    "annotations": [
        {"image_id": 3, "category_id": 1, "bbox": [10, 20, 30, 40]},
        {"image_id": 3, "category_id": 9, "bbox": [0, 0, 5, 5], "score": 0.5},
    ],
}


def test_coco_by_hand(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(COCO))
    assert boxes_of(tmp_path / "x.json", frame("day/x.jpg")) == [
        ([10, 20, 40, 60], "hand", 1.0),
        ([0, 0, 5, 5], "9", 0.5),
    ]
    assert boxes_of(tmp_path / "x.json", frame("empty.jpg")) == []


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "{}",
        json.dumps(COCO["annotations"]),
        json.dumps(COCO | {"annotations": [{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}]}),
        json.dumps(COCO | {"annotations": [{"image_id": 3, "category_id": 1, "bbox": [1, 2, 3]}]}),
    ],
)
def test_coco_that_is_none(tmp_path: Path, document: str) -> None:
    (tmp_path / "x.json").write_text(document)
    with pytest.raises(LineFileError, match=r"x\.json is no COCO file, .*expected images, annotations and"):
        boxes_of(tmp_path / "x.json", frame("x.jpg"))


def test_no_label_files(tmp_path: Path) -> None:
    for labels in (tmp_path, tmp_path / "gone", tmp_path / "gone.json"):
        with pytest.raises(LineFileError, match=r"no boxes in .*expected a folder of YOLO"):
            boxes_of(labels, frame("x.jpg"))


def test_label_files_of_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("\ufeff0 .5 .5 .5 .5\n".encode())  # a byte order mark, as on Windows
    assert len(boxes_of(tmp_path, frame("x.jpg"))) == 1
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(LineFileError, match=r"cannot read .*x\.txt, got .*, expected a text file"):
        boxes_of(tmp_path, frame("x.jpg"))


@pytest.mark.footage
def test_the_real_tools_have_their_boxes(data: Path) -> None:
    labels = data / "tools" / "labels" / "val"
    proposer = Boxes(BoxesConfig(labels=labels))
    images = sorted((data / "tools" / "images" / "val").iterdir())
    blank = np.zeros((480, 640, 3), np.uint8)
    frames = (Frame("d", 0, 0.0, blank, path.name) for path in images)
    found = list(proposer.propose(frames))
    assert sum(len(detections) for detections in found) == 825
    phrases = {str(phrase) for detections in found for phrase in detections.data["phrase"]}
    assert "Screwdriver" in phrases
