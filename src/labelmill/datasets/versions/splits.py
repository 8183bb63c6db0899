"""Splits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.store import Version
from labelmill.datasets.versions.tables import FRAMES
from labelmill.files import digest_text


def split_frames(
    frames: pa.Table, regions: pa.Table, config: DatasetConfig, earlier: list[Version]
) -> pa.Table:
    """Fill in the split and group columns."""
    names = list(config.splits)
    groups = [
        f"{d[:12]}-{int(t // config.time_block_s)}"
        for d, t in zip(frames["source_digest"].to_pylist(), frames["timestamp_s"].to_pylist(), strict=True)
    ]
    edges = np.cumsum(list(config.splits.values()))
    splits = [
        names[
            min(
                int(np.searchsorted(edges, int(digest_text(g, hex_digits=8), 16) / 2**32, side="right")),
                len(names) - 1,
            )
        ]
        for g in groups
    ]
    frames = frames.set_column(FRAMES.get_field_index("split"), FRAMES.field("split"), pa.array(splits))
    return frames.set_column(FRAMES.get_field_index("group"), FRAMES.field("group"), pa.array(groups))
