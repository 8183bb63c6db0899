"""The two tables of a version, their digests, and how they are read and written."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.datasets.tables import XYXY
from labelmill.errors import VersionError
from labelmill.files import digest_text

ASIDE = "aside"
"""The split of frames that stand between two splits, used by neither."""


BOX_OR_NULL = pa.list_(pa.float32())
"""Four numbers or null: pyarrow cannot read nulls in a fixed-size list back from Parquet."""


class DecidedBy(StrEnum):
    """Who gave a region its label."""

    MACHINE = "machine"
    PERSON = "person"


FRAMES = pa.schema(
    [
        ("frame_id", pa.string()),  # 24 hex digits of source digest and index
        ("source", pa.string()),
        ("source_digest", pa.string()),
        ("frame_index", pa.int64()),
        ("timestamp_s", pa.float64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("media_digest", pa.string()),  # of the frame's JPEG in media/
        ("split", pa.string()),
        ("group", pa.string()),  # frames of one group are always in one split
        ("pending", pa.int32()),  # regions that wait for a person, not part of the version
    ]
)
"""In the order of source, source digest and frame index."""

REGIONS = pa.schema(
    [
        ("region_id", pa.string()),
        ("frame_id", pa.string()),
        ("xyxy", XYXY),  # pixels of the frame, corrected where a person did
        ("label", pa.string()),  # a class, or NG: the person's where there is one, else the machine's
        ("phrase", pa.string()),
        ("score", pa.float32()),  # of the proposer
        ("crop_digest", pa.string()),  # of the crop's JPEG in media/
        ("nearest", pa.string()),
        ("similarity", pa.float32()),
        ("runner_up", pa.string()),
        ("margin", pa.float32()),  # null without a runner-up
        ("ng_similarity", pa.float32()),  # null without NG templates
        ("route", pa.string()),
        ("reason", pa.string()),
        ("decided_by", pa.string()),  # DecidedBy
        ("machine_label", pa.string()),
        ("machine_xyxy", BOX_OR_NULL),  # null where the box is the machine's own
        ("decision_id", pa.string()),  # null without a person's decision, like the rest
        ("annotator", pa.string()),
        ("decided_at", pa.timestamp("us", tz="UTC")),
        ("seconds", pa.float64()),
        ("agreement", pa.float64()),
    ]
)
"""In the order of their frames, then by region id."""

DECISIONS = pa.schema(
    [
        ("decision_id", pa.string()),
        ("region_id", pa.string()),
        ("label", pa.string()),  # a class, NG, or "not sure"
        ("xyxy", BOX_OR_NULL),  # null where the box was left as it was
        ("annotator", pa.string()),
        ("decided_at", pa.timestamp("us", tz="UTC")),
        ("seconds", pa.float64()),
        ("source", pa.string()),
        ("agreement", pa.float64()),
        ("superseded", pa.bool_()),
    ]
)
"""What people said, `<workspace>/tables/decisions.parquet`, written by the review room."""

NOT_SURE = "not sure"


def frame_id(source_digest: str, frame_index: int) -> str:
    """Name of a frame, the same in every version: 24 hex digits."""
    return digest_text(source_digest, str(frame_index), hex_digits=24)


def rows_digest(table: pa.Table) -> str:
    """SHA-256 of a table's rows in their order, by value: independent of file format and library version."""
    digest = hashlib.sha256(str(table.num_rows).encode())
    for field in table.schema:
        digest.update(f"\0{field.name}\0{_kind(field.type)}\0".encode())
        for part in _value_bytes(pa.concat_arrays(table[field.name].chunks or [pa.array([], field.type)])):
            digest.update(part.tobytes())
    return digest.hexdigest()


def _kind(kind: pa.DataType) -> str:
    """A type's name without the name of its list's items, which Parquet changes."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    return str(kind)


def _value_bytes(array: pa.Array) -> list[np.ndarray]:
    """Little-endian arrays that hold the values of a column and nothing else."""
    parts = [np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.uint8)]
    kind = array.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        lengths = np.asarray(pc.list_value_length(array.drop_null()).to_numpy(zero_copy_only=False))
        return [*parts, lengths.astype("<i8"), *_value_bytes(array.drop_null().flatten())]
    if pa.types.is_string(kind):
        binary = array.drop_null().cast(pa.large_binary())
        offsets = np.frombuffer(binary.buffers()[1], dtype="<i8")[
            binary.offset : binary.offset + len(binary) + 1
        ]
        text = binary.buffers()[2]
        parts.append(np.diff(offsets).astype("<i8"))
        if text is not None and len(offsets):
            parts.append(np.frombuffer(text, dtype=np.uint8)[offsets[0] : offsets[-1]])
        return parts
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.int64())
    values = array.drop_null().to_numpy(zero_copy_only=False)
    return [*parts, np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))]


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table of a version; the same rows give the same bytes with the same pyarrow."""
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table of a version.

    Raises:
        VersionError: The file is gone, no Parquet, or has other columns.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise VersionError(
            f"{path} is gone", expected="a file of the version", do="restore it from a copy"
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise VersionError(
            f"{path} cannot be read", got=str(error).splitlines()[0], do="restore it from a copy"
        ) from error
    if not table.schema.equals(schema):
        raise VersionError(f"{path} has other columns", got=table.schema.names, expected=str(schema.names))
    return table
