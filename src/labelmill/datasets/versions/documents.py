"""A version's rows as FiftyOne's own documents, ready for one bulk insert.

FiftyOne saves a sample in a round trip of its own, and re-derives the schema from every value. Here the
schema is declared once (`FIELDS`, `DETECTION_FIELDS`) and the documents are made column by column, as the
bytes that go to the server. A test compares them with what FiftyOne writes for the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets.media import MediaStore
from labelmill.datasets.versions.bson_columns import (
    Element,
    booleans,
    constant,
    doubles,
    embedded,
    integers,
    lists,
    object_ids,
    points,
    singles,
    strings,
)
from labelmill.datasets.versions.bson_columns import documents as bson_documents
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

_CHUNK_FRAMES, _CHUNK_REGIONS = 1000, 20_000

_KINDS: dict[str, Callable[[str, pa.Array], Element]] = {
    "StringField": strings,
    "IntField": integers,
    "FloatField": doubles,
    "BooleanField": booleans,
}


def region_object_id(region_id: str) -> str:
    """The id of a region's detection, the same in every version: 24 hex digits."""
    return digest_text(region_id, hex_digits=24)


def documents(
    frames: pa.Table, regions: pa.Table, media: MediaStore, dataset_id: Any, now: datetime
) -> Iterator[list[bytes]]:
    """Make the sample documents of a version, some thousand at a time.

    Args:
        frames: Columns `tables.FRAMES`.
        regions: Columns `tables.REGIONS`, in the order of the frames.
        media: Where the pictures lie.
        dataset_id: `_id` of the FiftyOne dataset.
        now: UTC, written as creation time.

    Yields:
        BSON, one document a frame.
    """
    place = flat_array(pc.index_in(regions["frame_id"], value_set=flat_array(frames["frame_id"])))
    row_of = np.asarray(place.fill_null(-1).to_numpy(), dtype=np.int64)
    if np.any(np.diff(row_of, prepend=0) < 0):
        raise ValueError("regions must follow the order of the frames, each on one of them")
    bounds = np.searchsorted(row_of, np.arange(frames.num_rows + 1))
    start = 0
    while start < frames.num_rows:
        low = int(bounds[start])
        full = int(np.searchsorted(bounds, low + _CHUNK_REGIONS, side="right")) - 1
        chunk = frames.slice(start, min(_CHUNK_FRAMES, max(1, full - start)))
        high = int(bounds[start + chunk.num_rows])
        sizes = np.stack([_numbers(chunk["width_px"]), _numbers(chunk["height_px"])], axis=1)
        found = detections(regions.slice(low, high - low), sizes[row_of[low:high] - start])
        cuts = bounds[start : start + chunk.num_rows + 1] - low
        yield list(_samples(chunk, found, cuts, media.root, dataset_id, now).to_pylist())
        start += chunk.num_rows


def _samples(
    frames: pa.Table,
    detections: pa.Array,
    cuts: npt.NDArray[np.int64],
    media: Path,
    dataset_id: Any,
    now: datetime,
) -> pa.Array:
    rows = frames.num_rows
    column = {name: flat_array(frames[name]) for name in frames.schema.names}
    ids = bytes.fromhex("".join(column["frame_id"].to_pylist()))
    random = np.frombuffer(ids, np.uint8).reshape(-1, 12)[:, :4].copy().view(">u4").ravel() / 0x100000000
    digest = column["media_digest"]
    folder = pc.utf8_slice_codeunits(digest, 0, 2)
    metadata = [
        constant("_cls", "ImageMetadata"),
        constant("mime_type", "image/jpeg"),
        integers("width", column["width_px"]),
        integers("height", column["height_px"]),
        constant("num_channels", 3),
    ]
    found = [constant("_cls", "Detections"), lists("detections", detections, cuts)]
    return bson_documents(
        [
            object_ids("_id", ids),
            strings("filepath", pc.binary_join_element_wise(f"{media}/", folder, "/", digest, ".jpg", "")),
            singles("tags", column["split"]),
            embedded("metadata", metadata, rows),
            constant("_media_type", "image"),
            doubles("_rand", pa.array(random)),
            *(_KINDS[kind](name, column[name]) for name, (kind, _) in FIELDS.items()),
            embedded("regions", found, rows),
            constant("_dataset_id", dataset_id),
            constant("created_at", now),
            constant("last_modified_at", now),
        ],
        rows,
    )


def detections(regions: pa.Table, sizes: np.ndarray) -> pa.Array:
    """Detection documents as BSON, key by key in the order that FiftyOne writes them.

    Args:
        regions: Columns `tables.REGIONS`.
        sizes: Width and height of each region's frame, shape (regions, 2).
    """
    changed = pc.or_(
        pc.not_equal(regions["label"], regions["machine_label"]), regions["machine_xyxy"].is_valid()
    )
    regions = regions.append_column("corrected", changed)
    regions = regions.rename_columns({"crop_digest": "crop"})
    ids = "".join(map(region_object_id, regions["region_id"].to_pylist()))
    return bson_documents(
        [
            object_ids("_id", bytes.fromhex(ids)),
            constant("_cls", "Detection"),
            constant("attributes", {}),
            constant("tags", []),
            strings("label", flat_array(regions["label"])),
            points("bounding_box", relative_boxes(regions["xyxy"], sizes)),
            doubles("confidence", flat_array(regions["score"])),
            *(_KINDS[kind](name, flat_array(regions[name])) for name, (kind, _) in DETECTION_FIELDS.items()),
        ],
        regions.num_rows,
    )


def relative_boxes(xyxy: pa.ChunkedArray, sizes: np.ndarray) -> np.ndarray:
    """Corners in pixels as FiftyOne's left, top, width and height, relative to the frame, float64."""
    corners = np.asarray(flat_array(xyxy).flatten(), dtype=np.float64).reshape(-1, 4)
    whole = np.concatenate([sizes, sizes], axis=1).astype(np.float64)
    corners = corners / whole
    corners[:, 2:] -= corners[:, :2]
    return corners


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy())
