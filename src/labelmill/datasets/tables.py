"""The columns of every table that labelmill writes, and the few words that they may hold.

Shards (one file a stage) are joined into the final tables in `<workspace>/tables/`:
`frames.parquet`, `regions.parquet` and `quarantine.parquet`.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

NG = "NG"
"""The label of a region that matches no class (no good)."""


class Status(StrEnum):
    """What became of a frame at selection."""

    KEPT = "kept"
    REPEAT = "repeat"
    UNREADABLE = "unreadable"


class Route(StrEnum):
    """Where a region goes."""

    ACCEPTED = "accepted"
    REVIEW = "review"
    NG = "ng"


XYXY = pa.list_(pa.float32(), 4)

SELECT = pa.schema(
    [
        ("source_digest", pa.string()),  # of the file's bytes
        ("frame_index", pa.int64()),  # in decoding order, from 0
        ("timestamp_s", pa.float64()),
        ("width_px", pa.int32()),  # as shown, after rotation; 0 when unreadable
        ("height_px", pa.int32()),
        ("status", pa.string()),  # Status
        ("reason", pa.string()),  # why it is a repeat or unreadable; empty when kept
    ]
)

PROPOSE = pa.schema(
    [
        ("region_id", pa.string()),  # digest of source, frame, quantised box and phrase
        ("source_digest", pa.string()),
        ("frame_index", pa.int64()),
        ("xyxy", XYXY),  # pixels of the frame
        ("phrase", pa.string()),
        ("score", pa.float32()),  # of the proposer, 0 to 1
    ]
)


def encode_schema(dim: int) -> pa.Schema:
    """Columns of an encode shard: embeddings of length `dim`, in the order of the propose shard."""
    return pa.schema(
        [
            ("region_id", pa.string()),
            ("crop_digest", pa.string()),  # of the crop's file in media/
            ("embedding", pa.list_(pa.float16(), dim)),
        ]
    )


MATCH = pa.schema(
    [
        ("region_id", pa.string()),
        ("label", pa.string()),  # a class, or NG (LRIAR, eq. 3)
        ("nearest", pa.string()),  # the class of the highest similarity, also where the label is NG
        ("similarity", pa.float32()),  # to `nearest`, -1 to 1 (LRIAR, eq. 2)
        ("runner_up", pa.string()),  # the second class, or the NG template folder, or ""
        ("margin", pa.float32()),  # similarity less that of the runner-up; NaN without one
        ("ng_similarity", pa.float32()),  # to the nearest NG template; NaN without any
        ("route", pa.string()),  # Route
        ("reason", pa.string()),  # why it went there, for people
    ]
)

SOURCE = pa.field("source", pa.string())
"""Path of the video or image: below the line file's folder if it lies there, else absolute; POSIX."""

FRAMES = pa.schema([SOURCE, *SELECT, ("regions", pa.int32())])
"""Every sampled frame; a kept frame with 0 regions is an NG frame."""

REGIONS = pa.schema(
    [
        ("region_id", pa.string()),
        SOURCE,
        ("source_digest", pa.string()),
        ("frame_index", pa.int64()),
        ("timestamp_s", pa.float64()),
        ("xyxy", XYXY),
        ("phrase", pa.string()),
        ("score", pa.float32()),
        ("crop_digest", pa.string()),
        *(field for field in MATCH if field.name != "region_id"),
    ]
)

QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("frame_index", pa.int64()),  # null: the whole source
        ("reason", pa.string()),
    ]
)
