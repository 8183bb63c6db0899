"""Pulled dataset versions, read: a YOLO folder for detectors, an image folder for classifiers."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Boxes
from labelmill.datasets.tables import NG
from labelmill.datasets.versions.pull.transfer import MARKER
from labelmill.errors import TrainingError
from labelmill.files import digest_file, digest_text
from labelmill.images import Image, list_images, read_image

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

_READERS = 8  # opening a picture's header waits for the disk, not for the processor
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame with its true boxes.

    Attributes:
        path: The image file.
        width_px: As decoded, after the EXIF rotation.
        height_px: Likewise.
        xyxy: Corners in pixels, shape (n, 4), float32.
        classes: Index of each box's class, shape (n,).
    """

    path: Path
    width_px: int
    height_px: int
    xyxy: Boxes
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """One labelled crop.

    Attributes:
        path: The image file.
        label: Name of its class, or NG.
    """

    path: Path
    label: str


@dataclass(frozen=True, eq=False)
class DetectionData:
    """A pulled YOLO folder.

    Attributes:
        root: The folder.
        version: `dataset@vN`, or the folder's name where it came from elsewhere.
        classes: Names, by index.
        splits: Pictures by split.
        digest: Of every label and image file, with its name.
    """

    root: Path
    version: str
    classes: tuple[str, ...]
    splits: dict[str, tuple[Picture, ...]]
    digest: str

    def split(self, name: str) -> tuple[Picture, ...]:
        """The pictures of a split.

        Raises:
            TrainingError: It is absent or empty.
        """
        return _split(self.splits, name, self.root, "picture")


@dataclass(frozen=True, eq=False)
class CropData:
    """A pulled image folder.

    Attributes:
        root: The folder.
        version: `dataset@vN`, or the folder's name where it came from elsewhere.
        classes: Names of the classes, sorted, NG last where it occurs.
        splits: Crops by split.
        digest: Of every image file, with its name.
        warnings: What a reader of the metrics should know.
    """

    root: Path
    version: str
    classes: tuple[str, ...]
    splits: dict[str, tuple[Crop, ...]]
    digest: str
    warnings: tuple[str, ...] = field(default=())

    def split(self, name: str) -> tuple[Crop, ...]:
        """The crops of a split.

        Raises:
            TrainingError: It is absent or empty.
        """
        return _split(self.splits, name, self.root, "crop")


def read_detection(root: Path) -> DetectionData:
    """Read a YOLO folder: `data.yaml`, `images/<split>`, `labels/<split>`; nothing is written there.

    Raises:
        TrainingError: It is not such a folder, holds no picture, or a label line is wrong.
    """
    import yaml

    card = root / "data.yaml"
    if not card.is_file():
        raise TrainingError(
            f"{root} is not a YOLO folder",
            got="no data.yaml",
            expected="data.yaml, images/<split> and labels/<split>",
            do="pull one: labelmill pull D@vN --format yolo OUT",
        )
    try:
        classes = _class_names(yaml.safe_load(card.read_text()))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{card} names no classes", got=error, expected="names: [a, b]") from error
    names = {path.name: list_images(path) for path in sorted((root / "images").glob("*")) if path.is_dir()}
    if not any(names.values()):
        raise TrainingError(f"{root} holds no picture", expected="images/<split>/*.jpg")
    files = [path for paths in names.values() for path in paths]
    with ThreadPoolExecutor(_READERS) as pool:
        pictures = dict(
            zip(files, pool.map(lambda path: _picture(root, path, len(classes)), files), strict=True)
        )
    labels = [path for path in (_label_path(root, path) for path in files) if path.is_file()]
    splits = {split: tuple(pictures[path] for path in paths) for split, paths in names.items()}
    return DetectionData(root, _version(root), classes, splits, _digest(root, [*files, *labels]))


def read_crops(root: Path) -> CropData:
    """Read an image folder: `<split>/<class>/*.jpg`, NG as a class named NG.

    Raises:
        TrainingError: It is not such a folder, or holds no crop.
    """
    splits: dict[str, tuple[Crop, ...]] = {}
    labels = _labels(root)
    for split in sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith(".")):
        folders = sorted(path for path in split.glob("*") if path.is_dir())
        splits[split.name] = tuple(
            Crop(path, labels.get(folder.name, folder.name))
            for folder in folders
            for path in list_images(folder)
        )
    if not any(splits.values()):
        raise TrainingError(
            f"{root} is not an image folder",
            got="no picture in it" if root.is_dir() else "no such folder",
            expected="<split>/<class>/*.jpg",
            do="pull one: labelmill pull D@vN --format imagefolder OUT",
        )
    found = {crop.label for crops in splits.values() for crop in crops}
    classes = (*sorted(found - {NG}), *sorted(found & {NG}))
    files = [crop.path for crops in splits.values() for crop in crops]
    return CropData(
        root, _version(root), classes, splits, _digest(root, files), tuple(_class_warnings(splits, classes))
    )


def load_rgb(path: Path) -> Image:
    """Decode a picture to upright RGB, shape (height_px, width_px, 3).

    Raises:
        TrainingError: It cannot be decoded.
    """
    image = read_image(path)
    if isinstance(image, str):
        raise TrainingError(
            f"picture {path} cannot be decoded",
            got=image,
            do="verify the version, or remove the picture and publish anew",
        )
    return image


def _split(splits: dict[str, tuple[_T, ...]], name: str, root: Path, what: str) -> tuple[_T, ...]:
    if not splits.get(name):
        filled = [f"{split} ({len(items)})" for split, items in splits.items() if items]
        raise TrainingError(
            f"split {name!r} of {root} holds no {what}",
            got=f"filled splits: {', '.join(filled) or 'none'}",
            do="publish a version with that split, or name another",
        )
    return splits[name]


def _class_names(card: Any) -> tuple[str, ...]:
    names = card["names"]
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"names are numbered {sorted(names)}")
        names = [names[index] for index in range(len(names))]
    if not names:
        raise ValueError("an empty list")
    return tuple(str(name) for name in names)


def _label_path(root: Path, image: Path) -> Path:
    return (root / "labels" / image.relative_to(root / "images")).with_suffix(".txt")


def _picture(root: Path, path: Path, class_count: int) -> Picture:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(path) as image:
            width, height = image.size
            if image.getexif().get(0x0112) in _TURNED:
                width, height = height, width
    except (UnidentifiedImageError, ImportError, OSError) as error:  # ImportError: see images.read_image
        raise TrainingError(
            f"picture {path} cannot be read",
            got=error,
            do="verify the version, or publish it anew without it",
        ) from error
    labels = _label_path(root, path)
    lines = labels.read_text().splitlines() if labels.is_file() else []
    rows = [_box(line, labels, number, class_count) for number, line in enumerate(lines, 1) if line.strip()]
    table = np.array(rows, np.float64).reshape(-1, 5)
    centre, size = table[:, 1:3], table[:, 3:5]
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1)
    scaled = corners * [width, height, width, height]
    return Picture(path, width, height, scaled.astype(np.float32), table[:, 0].astype(np.int64))


def _box(line: str, path: Path, number: int, class_count: int) -> list[float]:
    try:
        row = [float(part) for part in line.split()]
    except ValueError:
        row = []
    whole = len(row) == 5 and all(map(np.isfinite, row)) and row[0] == int(row[0])
    inside = whole and 0 <= row[0] < class_count and min(row[1:]) >= 0 and max(row[1:]) <= 1
    if not inside:
        raise TrainingError(
            f"{path}, line {number}, is no label",
            got=repr(line[:80]),
            expected=f"`class cx cy w h`, class 0 to {class_count - 1}, the rest 0 to 1",
        )
    return row


def _class_warnings(splits: dict[str, tuple[Crop, ...]], classes: Iterable[str]) -> Iterable[str]:
    counts = {split: Counter(crop.label for crop in crops) for split, crops in splits.items()}
    train = counts.get("train", Counter())
    for name in classes:
        if train[name] == 0:
            yield f"class {name!r} has no training crop: it can never be predicted; review more of it"
        elif train[name] == 1:
            yield f"class {name!r} has one training crop: expect it to be confused; review more of it"
        if train[name] and not any(count[name] for split, count in counts.items() if split != "train"):
            yield f"class {name!r} occurs in training only: its accuracy is unmeasured"


def _version(root: Path) -> str:
    """Name of the version that was pulled, or the folder's name."""
    try:
        return str(json.loads((root / MARKER).read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return root.name


def _labels(root: Path) -> dict[str, str]:
    """Labels by folder, where a pull had to change one to make a folder of it."""
    try:
        classes = json.loads((root / "classes.json").read_text())["classes"]
        return {str(entry["folder"]): str(entry["label"]) for entry in classes}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _digest(root: Path, files: list[Path]) -> str:
    with ThreadPoolExecutor(_READERS) as pool:
        digests = list(pool.map(digest_file, files))
    named = sorted(zip((path.relative_to(root).as_posix() for path in files), digests, strict=True))
    return digest_text(*(part for pair in named for part in pair))
