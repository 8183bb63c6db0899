"""The shard store: one Parquet file a shard and stage, named by its key, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmill.files import digest_text, disk_errors, replacing

if TYPE_CHECKING:
    import pyarrow as pa

KEY_DIGITS = 32
"""128 bits: no two of a trillion keys meet."""


def make_key(stage: str, **parts: Any) -> str:
    """Digest everything that decides a shard's content.

    Args:
        stage: The stage's name.
        parts: JSON values: digests, settings, versions.

    Returns:
        32 hex digits.
    """
    document = json.dumps({"stage": stage, **parts}, sort_keys=True, separators=(",", ":"), default=str)
    return digest_text(document, hex_digits=KEY_DIGITS)


class ShardStore:
    """Parquet files by stage and key. Who finds a file may trust it.

    Args:
        root: The shard folder of a workspace.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, key: str) -> Path:
        """Where a shard lies, whether it exists or not."""
        return self.root / stage / f"{key}.parquet"

    def has(self, stage: str, key: str) -> bool:
        """Whether a shard was computed."""
        return self.path(stage, key).exists()

    def write(self, stage: str, key: str, table: pa.Table) -> None:
        """Store a shard, atomically.

        Raises:
            WorkspaceError: The disk refuses.
        """
        import pyarrow.parquet as pq

        target = self.path(stage, key)
        with disk_errors(self.root.parent), replacing(target) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def read(self, stage: str, key: str, columns: list[str] | None = None) -> pa.Table:
        """Load a shard."""
        import pyarrow.parquet as pq

        return pq.read_table(self.path(stage, key), columns=columns, partitioning=None)

    def sound(self, stage: str, key: str) -> bool:
        """Whether a stored shard's footer can be read; a damaged one is removed, to be computed again."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path(stage, key)
        try:
            pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            path.unlink(missing_ok=True)
            return False
        return True


def table_of(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Make a table of exactly a schema's columns.

    Raises:
        ValueError: A column is missing or does not fit.
    """
    import pyarrow as pa

    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def fixed_size_lists(rows: npt.NDArray[np.float16]) -> pa.Array:
    """Embeddings, shape (n, dim), float16, as a column of lists of length dim."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.float16(), rows.shape[1]))


def embeddings_of(table: pa.Table) -> npt.NDArray[np.float16]:
    """The embedding column of an encode shard, shape (rows, dim), float16."""
    column = table["embedding"].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float16).reshape(len(column), column.type.list_size)
