"""Boxes that already exist, in YOLO, COCO or VOC files: to re-label, or to judge the later stages alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from xml.etree import ElementTree as Xml

import numpy as np
import yaml
from pydantic import field_validator

from labelmill.annotators.types import Frame
from labelmill.config import FilePath, MakerConfig
from labelmill.errors import LineFileError

if TYPE_CHECKING:
    import supervision as sv

Named = list[tuple[float, float, float, float, str, float]]
"""x1, y1, x2, y2, class name, score; relative to the picture for YOLO, pixels otherwise."""


class BoxesConfig(MakerConfig):
    """Boxes read from annotation files.

    Attributes:
        labels: A folder of YOLO `.txt` or VOC `.xml` files, or a COCO `.json` file. A still image's boxes are
            found by its path within the source (suffix aside), or by its stem; a video frame's by a stem or
            `file_name` that ends in its index, such as `frame_000123`.
        names: Class names of YOLO numbers: a list, or a `data.yaml`; found beside the labels when absent.
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
        self._by_number = {
            int(digits): key
            for stem, key in self._by_stem.items()
            if (digits := stem[len(stem.rstrip("0123456789")) :])
        }

    def propose(self, frames: Iterator[Frame]) -> Iterator[sv.Detections]:
        """Yield the boxes of each frame."""
        for frame in frames:
            yield self._detections(frame)

    def _detections(self, frame: Frame) -> sv.Detections:
        import supervision as sv

        rows = self._boxes.get(self._key(frame) or "", [])
        height, width = frame.image.shape[:2]
        scale = np.array([width, height, width, height]) if self._relative else np.ones(4)
        xyxy = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4) * scale
        xyxy = np.clip(xyxy, 0, [width, height, width, height]).astype(np.float32)
        real = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return sv.Detections(
            xyxy=xyxy[real],
            confidence=np.array([row[5] for row in rows], dtype=np.float32)[real],
            data={"phrase": np.array([row[4] for row in rows], dtype=object)[real]},
        )

    def _key(self, frame: Frame) -> str | None:
        if not frame.name:
            return self._by_number.get(frame.index)
        path = frame.name.rsplit(".", 1)[0]
        return path if path in self._boxes else self._by_stem.get(path.rsplit("/", 1)[-1])


def _class_names(config: BoxesConfig) -> list[str]:
    if isinstance(config.names, tuple):
        return list(config.names)
    candidates = (
        [config.names]
        if config.names is not None
        else [folder / "data.yaml" for folder in (config.labels, *list(config.labels.parents)[:2])]
    )
    for path in candidates:
        if path.is_file():
            names = (yaml.safe_load(path.read_text()) or {}).get("names")
            if isinstance(names, dict):
                return [str(names[number]) for number in sorted(names)]
            if isinstance(names, list):
                return [str(name) for name in names]
    if config.names is not None:
        raise LineFileError(f"no class names in {config.names}", expected="a data.yaml with `names`")
    return []


def _read_yolo(folder: Path, names: list[str]) -> dict[str, Named]:
    boxes: dict[str, Named] = {}
    for path in sorted(folder.rglob("*.txt")):
        rows: Named = []
        for number, text in enumerate(path.read_text().splitlines(), start=1):
            if not text.strip():
                continue
            try:
                values = [float(word) for word in text.split()]
                kind, centre_x, centre_y, width, height = values[:5]
            except ValueError as error:
                raise LineFileError(
                    f"{path} line {number} is no YOLO box", got=repr(text), expected="class cx cy w h"
                ) from error
            name = names[int(kind)] if 0 <= int(kind) < len(names) else str(int(kind))
            score = values[5] if len(values) == 6 else 1.0
            half_w, half_h = width / 2, height / 2
            rows.append(
                (centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h, name, score)
            )
        boxes[path.relative_to(folder).with_suffix("").as_posix()] = rows
    return boxes


def _read_voc(folder: Path) -> dict[str, Named]:
    boxes: dict[str, Named] = {}
    for path in sorted(folder.rglob("*.xml")):
        text = path.read_text()
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
    try:
        document = json.loads(path.read_text())
        names = {int(entry["id"]): str(entry["name"]) for entry in document.get("categories", [])}
        images = {entry["id"]: str(entry["file_name"]).rsplit(".", 1)[0] for entry in document["images"]}
        boxes: dict[str, Named] = {stem: [] for stem in images.values()}
        for entry in document["annotations"]:
            x, y, width, height = (float(value) for value in entry["bbox"])
            name = names.get(int(entry["category_id"]), str(entry["category_id"]))
            row = (x, y, x + width, y + height, name, float(entry.get("score", 1.0)))
            boxes[images[entry["image_id"]]].append(row)
    except (ValueError, KeyError, TypeError) as error:
        raise LineFileError(
            f"{path} is no COCO file", got=repr(error), expected="images, annotations and categories"
        ) from error
    return boxes
