"""Boxes that already exist, in YOLO, COCO or VOC files: to re-label, or to judge the later stages alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from xml.etree import ElementTree as Xml

import numpy as np
import yaml
from pydantic import field_validator

from labelmill.annotators.detections import detections_class
from labelmill.annotators.types import Frame
from labelmill.config import FilePath, MakerConfig
from labelmill.errors import LineFileError

if TYPE_CHECKING:
    import supervision as sv

_CLASSES = "classes.txt"
"""What labelImg and others write beside YOLO labels: a class name a line."""

_TRAILING_NUMBER = re.compile(r"[0-9]+$")

Named = list[tuple[float, float, float, float, str, float]]
"""x1, y1, x2, y2, class name, score; relative to the picture for YOLO, pixels otherwise."""


class BoxesConfig(MakerConfig):
    """Boxes read from annotation files.

    Attributes:
        labels: A folder of YOLO `.txt` or VOC `.xml` files, or a COCO `.json` file. Of YOLO polygons, the
            bounds are taken. A still image's boxes are
            found by its path within the source (suffix aside), or by its stem; a video frame's by a stem or
            `file_name` that ends in its index, such as `frame_000123`.
        names: Class names of YOLO numbers: a list, or a `data.yaml`; without it, a `classes.txt` in the
            folder or a `data.yaml` beside it is taken.
    """

    kind: Literal["boxes"] = "boxes"
    labels: FilePath
    names: FilePath | tuple[str, ...] | None = None

    @field_validator("names", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    def files(self) -> tuple[Path, ...]:
        """The label files, and the class names."""
        return (self.labels, self.names) if isinstance(self.names, Path) else (self.labels,)


class Boxes:
    """Proposes the boxes that a file lists for each frame; the phrase is the file's class name."""

    Config = BoxesConfig
    version: ClassVar[int] = 1
    sees_repeats: ClassVar[bool] = False

    def __init__(self, config: BoxesConfig) -> None:
        self._relative = False
        labels = config.labels
        if labels.is_dir() and any(labels.rglob("*.txt")):
            self._relative = True
            self._boxes = _read_yolo(labels, _class_names(config))
        elif labels.is_dir() and any(labels.rglob("*.xml")):
            self._boxes = _read_voc(labels)
        elif labels.suffix.lower() == ".json" and labels.is_file():
            self._boxes = _read_coco(labels)
        else:
            raise LineFileError(
                f"no boxes in {labels}",
                expected="a folder of YOLO .txt or VOC .xml files, or a COCO .json file",
                do="mend `proposer: labels`",
            )
        stems: dict[str, list[str]] = {}
        for key in self._boxes:
            stems.setdefault(key.rsplit("/", 1)[-1], []).append(key)
        self._by_stem = {stem: keys[0] for stem, keys in stems.items() if len(keys) == 1}
        self._by_number: dict[int, list[str]] = {}
        for stem, key in self._by_stem.items():
            if digits := _TRAILING_NUMBER.search(stem):
                self._by_number.setdefault(int(digits[0]), []).append(key)

    def propose(self, frames: Iterator[Frame]) -> Iterator[sv.Detections]:
        """Yield the boxes of each frame."""
        for frame in frames:
            yield self._detections(frame)

    def _detections(self, frame: Frame) -> sv.Detections:
        rows = self._boxes.get(self._key(frame) or "", [])
        height, width = frame.image.shape[:2]
        scale = np.array([width, height, width, height]) if self._relative else np.ones(4)
        xyxy = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4) * scale
        xyxy = np.clip(xyxy, 0, [width, height, width, height]).astype(np.float32)
        real = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return detections_class()(
            xyxy=xyxy[real],
            confidence=np.array([row[5] for row in rows], dtype=np.float32)[real],
            data={"phrase": np.array([row[4] for row in rows], dtype=object)[real]},
        )

    def _key(self, frame: Frame) -> str | None:
        if not frame.name:
            keys = self._by_number.get(frame.index, [])
            if len(keys) > 1:
                raise LineFileError(
                    f"several boxes for frame {frame.index} of a video",
                    got=", ".join(keys[:3]),
                    expected="one stem that ends in each frame's index",
                    do="give each video a line and a label folder of its own",
                )
            return keys[0] if keys else None
        path = frame.name.rsplit(".", 1)[0]
        return path if path in self._boxes else self._by_stem.get(path.rsplit("/", 1)[-1])


def _class_names(config: BoxesConfig) -> list[str]:
    if isinstance(config.names, tuple):
        return list(config.names)
    listed = config.labels / _CLASSES
    if config.names is None and listed.is_file():
        return _text(listed).split("\n")
    candidates = (
        [config.names]
        if config.names is not None
        else [folder / "data.yaml" for folder in (config.labels, *list(config.labels.parents)[:2])]
    )
    for path in candidates:
        if not path.is_file():
            continue
        try:
            document = yaml.safe_load(_text(path))
        except (yaml.YAMLError, ValueError) as error:
            raise LineFileError(f"{path} is no YAML", got=str(error), do="mend it") from error
        names = document.get("names") if isinstance(document, dict) else None
        if isinstance(names, dict) and all(isinstance(number, int) for number in names):
            return [str(names.get(number, number)) for number in range(max(names, default=-1) + 1)]
        if isinstance(names, list):
            return [str(name) for name in names]
    if config.names is not None:
        raise LineFileError(f"no class names in {config.names}", expected="a data.yaml with `names`")
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LineFileError(f"cannot read {path}", got=str(error), expected="a text file") from error


def _read_yolo(folder: Path, names: list[str]) -> dict[str, Named]:
    boxes: dict[str, Named] = {}
    for path in sorted(folder.rglob("*.txt")):
        if path.name == _CLASSES:
            continue
        rows: Named = []
        for number, text in enumerate(_text(path).splitlines(), start=1):
            if not text.strip():
                continue
            try:
                kind, *values = (float(word) for word in text.split())
                rows.append(_yolo_row(int(kind), values, names))
            except (ValueError, OverflowError) as error:
                raise LineFileError(
                    f"{path} line {number} is no YOLO box", got=repr(text), expected="class cx cy w h"
                ) from error
        boxes[path.relative_to(folder).with_suffix("").as_posix()] = rows
    return boxes


def _yolo_row(
    kind: int, values: list[float], names: list[str]
) -> tuple[float, float, float, float, str, float]:
    """Read the numbers of one line: a box, a box with a score, or the corners of a polygon."""
    name = names[kind] if 0 <= kind < len(names) else str(kind)
    if not all(math.isfinite(value) for value in values):
        raise ValueError("no number")
    if len(values) >= 6 and len(values) % 2 == 0:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]), name, 1.0
    centre_x, centre_y, width, height, *score = values
    if len(score) > 1:
        raise ValueError("neither a box nor a polygon")
    half_w, half_h = width / 2, height / 2
    box = (centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h)
    return *box, name, score[0] if score else 1.0


def _read_voc(folder: Path) -> dict[str, Named]:
    boxes: dict[str, Named] = {}
    for path in sorted(folder.rglob("*.xml")):
        text = _text(path)
        if "<!ENTITY" in text:
            raise LineFileError(f"{path} declares XML entities", expected="plain VOC", do="remove them")
        try:
            root = Xml.fromstring(text)  # noqa: S314 - entities were refused above
            rows: Named = []
            for found in root.iter("object"):
                box = found.find("bndbox")
                if box is None:
                    continue
                x1, y1, x2, y2 = (float(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
                rows.append((x1, y1, x2, y2, found.findtext("name", "object"), 1.0))
        except (Xml.ParseError, ValueError) as error:
            raise LineFileError(f"{path} is no VOC file", got=str(error), do="mend or remove it") from error
        boxes[path.relative_to(folder).with_suffix("").as_posix()] = rows
    return boxes


def _read_coco(path: Path) -> dict[str, Named]:
    text = _text(path)
    try:
        document = json.loads(text)
        names = {int(entry["id"]): str(entry["name"]) for entry in document.get("categories", [])}
        images = {entry["id"]: str(entry["file_name"]).rsplit(".", 1)[0] for entry in document["images"]}
        boxes: dict[str, Named] = {stem: [] for stem in images.values()}
        for entry in document["annotations"]:
            x, y, width, height = (float(value) for value in entry["bbox"])
            name = names.get(int(entry["category_id"]), str(entry["category_id"]))
            row = (x, y, x + width, y + height, name, float(entry.get("score", 1.0)))
            boxes[images[entry["image_id"]]].append(row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LineFileError(
            f"{path} is no COCO file", got=repr(error), expected="images, annotations and categories"
        ) from error
    return boxes
