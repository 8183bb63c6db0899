"""Pulling a version in one of the known formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from enum import StrEnum
from typing import Any, Protocol

from labelmill.datasets.versions.pull import coco, imagefolder, voc, yolo
from labelmill.datasets.versions.pull.choose import Chosen, Item, Labels, NgAs, choose
from labelmill.datasets.versions.pull.places import open_place
from labelmill.datasets.versions.pull.transfer import transfer
from labelmill.datasets.versions.store import Version
from labelmill.datasets.workspace import Workspace


class Format(StrEnum):
    """What a trainer reads."""

    YOLO = "yolo"
    COCO = "coco"
    VOC = "voc"
    IMAGEFOLDER = "imagefolder"
    FIFTYONE = "fiftyone"


_ITEMS: dict[Format, Callable[[Chosen], Iterator[Item]]] = {
    Format.YOLO: yolo.items,
    Format.COCO: coco.items,
    Format.VOC: voc.items,
    Format.IMAGEFOLDER: imagefolder.items,
}


class Exporter(Protocol):
    """FiftyOne; `fiftyone_window.Window` is the one."""

    def export(self, version: Version, splits: list[str]) -> Iterator[Item]:
        """Files of FiftyOne's own format."""
        ...


def pull(
    workspace: Workspace,
    version: Version,
    kind: Format,
    destination: str,
    *,
    splits: list[str] | None = None,
    ng: NgAs | None = None,
    labels: Labels = Labels.LABEL,
    pending: bool = False,
    link: bool = True,
    window: Exporter | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, Any]:
    """Pull a version.

    Args:
        workspace: Where its media are.
        version: The version.
        kind: The format.
        destination: A folder, or an address that fsspec knows.
        splits: Only these; default all but the frames set aside.
        ng: Whether NG is a class; default for crops, not for detectors.
        labels: What a detector is to call a box.
        pending: Also take frames with regions that wait for a person; crops are never of such regions.
        link: Hard links instead of copies, where the disk can.
        window: FiftyOne, for its own format.
        progress: Called with files done and their total.

    Returns:
        What was pulled, as one JSON value.

    Raises:
        VersionError: There is nothing to pull, the destination holds something else, or a picture is
            altered or gone.
        WorkspaceError: The destination is full or cannot be written.
    """
    crops = kind is Format.IMAGEFOLDER
    ng = ng or (NgAs.CLASS if crops else NgAs.LEAVE_OUT)
    whole = kind is Format.FIFTYONE
    everything = sorted(set(version.frames["split"].to_pylist())) if whole else None
    chosen = choose(
        version,
        splits=splits or everything,
        ng=NgAs.CLASS if whole else ng,
        labels=labels,
        pending=pending or crops or whole,
    )
    if whole:
        if window is None:
            raise ValueError("FiftyOne's format needs a window")
        items = window.export(version, chosen.splits)
    else:
        items = _ITEMS[kind](chosen)
    about = {
        "version": version.manifest.name,
        "digest": version.digest,
        "format": kind.value,
        "options": {"splits": chosen.splits, "ng": ng.value, "labels": labels.value, "pending": pending},
    }
    result = transfer(items, workspace.media, open_place(destination, link=link), about, progress)
    counts = chosen.counts()
    taken = {split: sum(p.split == split for p in chosen.pictures) for split in chosen.splits}
    return {
        **about,
        **asdict(result),
        "destination": destination,
        "classes": chosen.classes,
        **({"crops": {split: sum(counts[split].values()) for split in counts}} if crops else {}),
        "frames": taken,
        "counts": counts,
        "pending_left_out": chosen.pending_left_out,
        "warnings": _warnings(kind, chosen),
    }


def _warnings(kind: Format, chosen: Chosen) -> list[str]:
    found = imagefolder.warnings(chosen) if kind is Format.IMAGEFOLDER else []
    if chosen.pending_left_out:
        found.append(
            f"{chosen.pending_left_out} frames were left out: a region on them waits for a person, and would "
            "count as background"
        )
    if kind in (Format.YOLO, Format.COCO, Format.VOC) and len(chosen.splits) < 2:
        found.append(f"only the split {chosen.splits[0]!r} has frames: there is nothing to validate on")
    return found
