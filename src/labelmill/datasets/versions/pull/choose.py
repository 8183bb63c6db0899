"""What of a version is pulled, and under which names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.manifest import Manifest
from labelmill.datasets.versions.store import Version
from labelmill.datasets.versions.tables import ASIDE
from labelmill.errors import VersionError


class NgAs(StrEnum):
    """What becomes of regions that match no class."""

    CLASS = "class"
    LEAVE_OUT = "leave-out"


class Labels(StrEnum):
    """What a detector is to call a box."""

    LABEL = "label"  # the region's class
    PHRASE = "phrase"  # the proposer's text: what the box shows, not what is done
    ONE = "one"  # everything is one class, "object"


ONE_CLASS = "object"


@dataclass(frozen=True)
class Item:
    """One file of a pulled set.

    Attributes:
        path: Relative to the destination, POSIX.
        media: Digest of the picture that it is; empty for a written file.
        data: Bytes of a written file.
    """

    path: str
    media: str = ""
    data: bytes = b""


@dataclass(frozen=True)
class Box:
    """A labelled box.

    Attributes:
        region_id: Of the region.
        label: As the trainer shall call it.
        xyxy: Pixels of the frame.
        crop: Digest of the crop in media/.
    """

    region_id: str
    label: str
    xyxy: tuple[float, float, float, float]
    crop: str


@dataclass(frozen=True)
class Picture:
    """A frame and its boxes.

    Attributes:
        frame_id: Of the frame.
        name: File name without suffix, unique in the version, in letters that every system takes.
        split: Where it goes.
        media: Digest of the picture in media/.
        width_px: Of the picture.
        height_px: Of the picture.
        boxes: In the order of the version.
    """

    frame_id: str
    name: str
    split: str
    media: str
    width_px: int
    height_px: int
    boxes: list[Box] = field(default_factory=list)


@dataclass(frozen=True)
class Chosen:
    """What is pulled.

    Attributes:
        manifest: The version.
        digest: Of the manifest.
        pictures: In the order of the version.
        classes: In the order of their numbers.
        pending_left_out: Frames left out because a region on them waits for a person.
    """

    manifest: Manifest
    digest: str
    pictures: list[Picture]
    classes: list[str]
    pending_left_out: int

    @cached_property
    def splits(self) -> list[str]:
        """The splits that have a picture, in the order of the line."""
        present = {picture.split for picture in self.pictures}
        known = [name for name in self.manifest.splits.get("shares", {}) if name in present]
        return [*known, *sorted(present - set(known))]

    @cached_property
    def folders(self) -> dict[str, str]:
        """A folder name for each class."""
        return folder_names(self.classes)

    def counts(self) -> dict[str, dict[str, int]]:
        """Split to label to number of boxes."""
        found: dict[str, Counter[str]] = {split: Counter() for split in self.splits}
        for picture in self.pictures:
            found[picture.split].update(box.label for box in picture.boxes)
        return {split: dict(sorted(counter.items())) for split, counter in found.items()}


def choose(
    version: Version,
    *,
    splits: list[str] | None = None,
    ng: NgAs = NgAs.LEAVE_OUT,
    labels: Labels = Labels.LABEL,
    pending: bool = False,
) -> Chosen:
    """Choose frames and regions.

    Args:
        version: The version.
        splits: Only these; default all but the frames set aside.
        ng: Whether NG is a class, or its regions are left out.
        labels: What a box is called.
        pending: Also take frames with a region that waits for a person. Its box is missing, and would
            teach a detector that there is nothing.

    Raises:
        VersionError: The version has no such split, or nothing is left.
    """
    rows = version.frames.to_pylist()
    known = {row["split"] for row in rows} - {ASIDE}
    wanted = set(splits) if splits else known
    if missing := wanted - known - {ASIDE}:
        raise VersionError(
            f"{version.manifest.name} has no split {sorted(missing)[0]!r}", expected=", ".join(sorted(known))
        )
    inside = [row for row in rows if row["split"] in wanted]
    taken = [row for row in inside if pending or not row["pending"]]
    if not taken:
        raise VersionError(
            "nothing to pull",
            got=f"{len(inside)} frames, all with regions that wait for a person" if inside else "no frame",
            do="review them, or pull with --pending",
        )
    names = _picture_names(taken)
    pictures = {
        row["frame_id"]: Picture(
            row["frame_id"], name, row["split"], row["media_digest"], row["width_px"], row["height_px"]
        )
        for row, name in zip(taken, names, strict=True)
    }
    classes = _classes(version.manifest, ng, labels)
    columns = ("frame_id", "region_id", "label", "phrase", "xyxy", "crop_digest")
    found: set[str] = set()
    for frame, region, label, phrase, xyxy, crop in zip(
        *(version.regions[name].to_pylist() for name in columns), strict=True
    ):
        if frame not in pictures or (label == NG and ng is NgAs.LEAVE_OUT):
            continue
        called = {Labels.LABEL: label, Labels.PHRASE: phrase, Labels.ONE: ONE_CLASS}[labels]
        found.add(called)
        x1, y1, x2, y2 = xyxy
        pictures[frame].boxes.append(Box(region, called, (x1, y1, x2, y2), crop))
    return Chosen(
        manifest=version.manifest,
        digest=version.digest,
        pictures=list(pictures.values()),
        classes=[*classes, *sorted(found - set(classes))],
        pending_left_out=len(inside) - len(taken),
    )


def _classes(manifest: Manifest, ng: NgAs, labels: Labels) -> list[str]:
    if labels is Labels.ONE:
        return [ONE_CLASS]
    if labels is Labels.PHRASE:
        return []
    return [*manifest.classes, *([NG] if ng is NgAs.CLASS else [])]


def _picture_names(rows: list[dict[str, Any]]) -> list[str]:
    """Names that tell the footage and the frame, in letters that every file system and trainer takes."""
    names = []
    for row in rows:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(row["source"]).stem).strip("-")[:40] or "frame"
        names.append(f"{stem}-{row['frame_index']:06d}-{row['frame_id'][:8]}")
    if len({name.casefold() for name in names}) < len(names):
        return [f"frame-{row['frame_id']}" for row in rows]
    return names


def folder_names(labels: list[str]) -> dict[str, str]:
    """A folder name for each label, distinct on every file system.

    Signs that some system forbids are written as `%` and their hex code, as in addresses. Names that a file
    system without case, or with another way to write accents, would take for the same get a number.
    """
    taken: set[str] = set()
    names: dict[str, str] = {}
    for label in labels:
        plain = unicodedata.normalize("NFC", label)
        name = re.sub(
            r'[\x00-\x1f\x7f%<>:"/\\|?*]',
            lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()),
            plain,
        )
        name = re.sub(r"^\.|[. ]+$|^ +", lambda sign: "".join(f"%{ord(c):02X}" for c in sign[0]), name)
        name = name[:100] or "%"
        number = 1
        candidate = name
        while _folded(candidate) in taken:
            number += 1
            candidate = f"{name}~{number}"
        taken.add(_folded(candidate))
        names[label] = candidate
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKD", name.casefold())
