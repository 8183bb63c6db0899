"""A version's rows as FiftyOne's own documents, ready for one bulk insert.

FiftyOne saves a sample in a round trip of its own, and re-derives the schema from every value. Here the
schema is declared once (`FIELDS`, `DETECTION_FIELDS`) and the documents are made column by column. A test
compares them with what FiftyOne writes for the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets.media import MediaStore
from labelmill.datasets.versions.content import flat_array
from labelmill.files import digest_text

FIELDS = {
    "frame_id": ("StringField", "Name of the frame, the same in every version"),
    "source": ("StringField", "The footage that it comes from"),
    "frame_index": ("IntField", "Position in the source, from 0"),
    "timestamp_s": ("FloatField", "Seconds from the start of the source"),
    "split": (
        "StringField",
        "Which split it belongs to; aside: it stands between two, and is in neither",
    ),
    "group": ("StringField", "Frames of one group are never in two splits"),
    "pending": ("IntField", "Regions of this frame that wait for a person and are not in the version"),
}
"""Fields of a sample beside FiftyOne's own: their FiftyOne types and what they say."""

DETECTION_FIELDS = {
    "region_id": ("StringField", "Name of the region, the same in every version"),
    "crop": ("StringField", "SHA-256 of the crop's file in media/"),
    "phrase": ("StringField", "The proposer's text that the box answers to"),
    "nearest": ("StringField", "The class of the nearest template"),
    "similarity": ("FloatField", "Cosine to the nearest template, -1 to 1"),
    "runner_up": ("StringField", "The second nearest class, or NG template"),
    "margin": ("FloatField", "Similarity less that of the runner-up"),
    "ng_similarity": ("FloatField", "Cosine to the nearest NG template"),
    "route": ("StringField", "accepted, review or ng: what the machine made of it"),
    "reason": ("StringField", "Why it went that way"),
    "decided_by": ("StringField", "machine, or person where somebody reviewed it"),
    "machine_label": ("StringField", "What the machine said, also where a person said otherwise"),
    "annotator": ("StringField", "Who decided"),
    "agreement": ("FloatField", "Share of the people asked who said the same"),
    "corrected": ("BooleanField", "Whether a person changed the label or the box"),
}
"""Attributes of a region beside FiftyOne's own (label, bounding_box, confidence)."""

INFO_KEY = "labelmill"
"""Where a FiftyOne dataset's info says which version it shows."""

VOLATILE = ("_dataset_id", "created_at", "last_modified_at")
"""Keys that differ between two writings of the same sample."""

_CHUNK_FRAMES = 1000


def region_object_id(region_id: str) -> Any:
    """The id of a region's detection, the same in every version."""
    from bson import ObjectId

    return ObjectId(digest_text(region_id, hex_digits=24))


def documents(
    frames: pa.Table, regions: pa.Table, media: MediaStore, dataset_id: Any, now: datetime
) -> Iterator[list[dict[str, Any]]]:
    """Make the sample documents of a version, some thousand at a time.

    Args:
        frames: Columns `tables.FRAMES`.
        regions: Columns `tables.REGIONS`, in the order of the frames.
        media: Where the pictures lie.
        dataset_id: `_id` of the FiftyOne dataset.
        now: UTC, written as creation time.
    """
    position = {name: row for row, name in enumerate(frames["frame_id"].to_pylist())}
    row_of = np.array([position[name] for name in regions["frame_id"].to_pylist()], dtype=np.int64)
    if np.any(np.diff(row_of) < 0):
        raise ValueError("regions must follow the order of the frames")
    bounds = np.searchsorted(row_of, np.arange(frames.num_rows + 1))
    for start in range(0, frames.num_rows, _CHUNK_FRAMES):
        chunk = frames.slice(start, _CHUNK_FRAMES)
        low, high = int(bounds[start]), int(bounds[start + chunk.num_rows])
        sizes = np.stack([_numbers(chunk["width_px"]), _numbers(chunk["height_px"])], axis=1)
        found = detections(regions.slice(low, high - low), sizes[row_of[low:high] - start])
        cuts = (bounds[start : start + chunk.num_rows + 1] - low).tolist()
        yield _samples(chunk, found, cuts, media.root, dataset_id, now)


def _samples(
    frames: pa.Table,
    detections: list[dict[str, Any]],
    cuts: list[int],
    media: Path,
    dataset_id: Any,
    now: datetime,
) -> list[dict[str, Any]]:
    from bson import ObjectId

    root = str(media)
    columns = [frames[name].to_pylist() for name in (*FIELDS, "media_digest", "width_px", "height_px")]
    result = []
    for row, (name, source, index, seconds, split, group, pending, digest, width, height) in enumerate(
        zip(*columns, strict=True)
    ):
        result.append(
            {
                "_id": ObjectId(name),
                "filepath": f"{root}/{digest[:2]}/{digest}.jpg",
                "tags": [split],
                "metadata": {
                    "_cls": "ImageMetadata",
                    "mime_type": "image/jpeg",
                    "width": width,
                    "height": height,
                    "num_channels": 3,
                },
                "_media_type": "image",
                "_rand": int(name[:8], 16) / 0x100000000,
                "frame_id": name,
                "source": source,
                "frame_index": index,
                "timestamp_s": seconds,
                "split": split,
                "group": group,
                "pending": pending,
                "regions": {"_cls": "Detections", "detections": detections[cuts[row] : cuts[row + 1]]},
                "_dataset_id": dataset_id,
                "created_at": now,
                "last_modified_at": now,
            }
        )
    return result


def detections(regions: pa.Table, sizes: np.ndarray) -> list[dict[str, Any]]:
    """Detection documents, key by key in the order that FiftyOne writes them.

    Args:
        regions: Columns `tables.REGIONS`.
        sizes: Width and height of each region's frame, shape (regions, 2).
    """
    changed = pc.or_(
        pc.not_equal(regions["label"], regions["machine_label"]), regions["machine_xyxy"].is_valid()
    )
    regions = regions.append_column("corrected", changed)
    regions = regions.rename_columns({"crop_digest": "crop"})
    count = regions.num_rows
    columns: dict[str, Iterable[Any]] = {
        "_id": map(region_object_id, regions["region_id"].to_pylist()),
        "_cls": repeat("Detection", count),
        "attributes": repeat({}, count),
        "tags": repeat([], count),
        "label": _values(regions["label"]),
        "bounding_box": relative_boxes(regions["xyxy"], sizes).tolist(),
        "confidence": _values(regions["score"]),
        **{name: _values(regions[name]) for name in DETECTION_FIELDS},
    }
    keys = tuple(columns)
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def relative_boxes(xyxy: pa.ChunkedArray, sizes: np.ndarray) -> np.ndarray:
    """Corners in pixels as FiftyOne's left, top, width and height, relative to the frame, float64."""
    corners = np.asarray(flat_array(xyxy).flatten(), dtype=np.float64).reshape(-1, 4)
    whole = np.concatenate([sizes, sizes], axis=1).astype(np.float64)
    corners = corners / whole
    corners[:, 2:] -= corners[:, :2]
    return corners


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy())


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_floating(column.type):  # arrow's own conversion makes a scalar object of every value
        values = flat_array(column).to_numpy(zero_copy_only=False).astype(np.float64).tolist()
        return [None if math.isnan(value) else value for value in values]
    return list(column.to_pylist())
