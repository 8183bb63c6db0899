"""The shard store: one Parquet file a shard and stage, named by its key, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmill.errors import DamagedShardError, WeightsError
from labelmill.files import digest_text, disk_errors, replacing

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Part of every shard key: raise it when a column of `tables` changes its meaning."""

KEY_DIGITS = 32
"""128 bits: no two of a trillion keys meet."""

_MAGIC = b"PAR1"
_LEAST_BYTES = 12
"""Of a Parquet file: the magic at both ends, and the footer's length."""


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
        """Whether a shard was computed. A file that is no whole Parquet file is as good as none.

        Only the ends are looked at, which costs microseconds; damage within is found by `read`.
        """
        try:
            with self.path(stage, key).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _LEAST_BYTES + len(_MAGIC)))
                tail = file.read()
        except OSError:
            return False
        footer = int.from_bytes(tail[:4], "little")
        return size >= _LEAST_BYTES and tail[4:] == _MAGIC and footer <= size - _LEAST_BYTES

    def write(self, stage: str, key: str, table: pa.Table) -> None:
        """Store a shard, atomically.

        Raises:
            WorkspaceError: The disk refuses.
        """
        import pyarrow.parquet as pq

        target = self.path(stage, key)
        with disk_errors(self.root.parent), replacing(target) as temporary:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)

    def read(self, stage: str, key: str, columns: list[str] | None = None) -> pa.Table:
        """Load a shard.

        Raises:
            DamagedShardError: It is absent, or its bytes are not those that were written; it was removed.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path(stage, key)
        try:
            return pq.read_table(path, columns=columns, partitioning=None, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            with disk_errors(self.root.parent):
                # What Arrow says of content has no number; what the system says of the file has one.
                if getattr(error, "errno", None) not in (None, errno.ENOENT, errno.EIO):
                    raise
                path.unlink(missing_ok=True)
            raise DamagedShardError(
                f"the {stage} shard {key} cannot be read",
                got=str(error),
                do="it was removed; run `labelmill annotate` again to compute it anew",
            ) from error


def table_of(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Make a table of exactly a schema's columns.

    Raises:
        ValueError: A column is missing or does not fit.
    """
    import pyarrow as pa

    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def storable(embeddings: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    """Embeddings as they are kept.

    Raises:
        WeightsError: A value is too large for float16, or is no number.
    """
    largest = float(np.abs(embeddings).max(initial=0))
    most = float(np.finfo(np.float16).max)
    if not largest <= most:  # also where a value is no number
        raise WeightsError(
            "the encoder gives embeddings that cannot be kept",
            got=f"a value of {largest:g}",
            expected=f"numbers up to {most:g}, as float16 holds them",
            do="check the weights, and `encoder: dtype`",
        )
    return embeddings.astype(np.float16)


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
