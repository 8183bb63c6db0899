"""Still pictures that are nearly the same, by their difference hashes.

Only sources of one frame are looked at: whole frames of a fixed camera's video are alike by nature, and
there the crops count. The hash says for 16 rows of 16 places whether the picture gets brighter to the right
(Krawetz, "Kind of Like That", 2013, at 256 bits), so that another size, quality or brightness changes little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from labelmill.datasets.media import MediaStore
from labelmill.datasets.workspace import Workspace
from labelmill.files import digest_text, disk_errors, replacing

BITS = 256
_SIDE = 16
_VERSION = 1
_SCHEMA = pa.schema([("media_digest", pa.string()), ("hash", pa.binary(2 * BITS // 8))])


def _no_signs() -> npt.NDArray[np.float32]:
    return np.zeros((0, BITS), np.float32)


def _no_frames() -> npt.NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Stills:
    """The hashes of still pictures, as they are and mirrored.

    Attributes:
        vectors: Bits as signs, of unit length: their cosine counts the bits that differ; shape (2 n, 256).
        frame: Position of the frame of each, shape (2 n,).
    """

    vectors: npt.NDArray[np.float32] = field(default_factory=_no_signs)
    frame: npt.NDArray[np.int64] = field(default_factory=_no_frames)


def cosine_of(bits: int) -> float:
    """The cosine of two hashes that differ in so many bits."""
    return 1 - 2 * bits / BITS


def bits_of(cosine: float) -> int:
    """In how many bits two hashes of this cosine differ."""
    return round((1 - cosine) * BITS / 2)


def load_stills(workspace: Workspace, frames: pa.Table) -> Stills:
    """Hash the still pictures among some frames; each picture once, whatever version it is in.

    Args:
        workspace: Where the media are, held by its lock.
        frames: Columns `tables.FRAMES`, with media digests that are in the store.
    """
    source = frames["source_digest"].combine_chunks().dictionary_encode().indices.to_numpy()
    still = np.flatnonzero(np.bincount(source)[source] == 1)
    if not len(still):
        return Stills()
    digests = frames["media_digest"].take(pa.array(still)).to_pylist()
    folder = workspace.shards / "hash"
    known = _read(folder)
    if missing := sorted(set(digests) - known.keys()):
        found = {digest: _hash(workspace.media, digest) for digest in missing}
        with disk_errors(workspace.root):
            _write(folder, found)
        known.update(found)
    both = np.frombuffer(b"".join(known[digest] for digest in digests), np.uint8).reshape(len(digests), 2, -1)
    bits = np.unpackbits(both, axis=2).astype(np.float32).swapaxes(0, 1).reshape(-1, BITS)
    return Stills((2 * bits - 1) / np.float32(np.sqrt(BITS)), np.tile(still.astype(np.int64), 2))


def difference_hash(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """The 256 bits of a grey picture of any size."""
    import cv2

    small = np.asarray(cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA))
    return (small[:, 1:] > small[:, :-1]).ravel()


def _hash(media: MediaStore, digest: str) -> bytes:
    import cv2

    # Not decoded at an eighth of the size: that moves hashes by some bits, and pairs across the threshold.
    picture = np.asarray(cv2.imread(str(media.path(digest)), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    turned = np.ascontiguousarray(picture[:, ::-1])
    return np.packbits(np.concatenate([difference_hash(picture), difference_hash(turned)])).tobytes()


def _read(folder: Path) -> dict[str, bytes]:
    known: dict[str, bytes] = {}
    for path in sorted(folder.glob(f"{_VERSION}-*.parquet")):
        table = pq.read_table(path, schema=_SCHEMA)
        known.update(zip(table["media_digest"].to_pylist(), table["hash"].to_pylist(), strict=True))
    return known


def _write(folder: Path, found: dict[str, bytes]) -> None:
    columns: Sequence[Sequence[str] | Sequence[bytes]] = (list(found), list(found.values()))
    table = pa.table(
        [pa.array(column, kind.type) for column, kind in zip(columns, _SCHEMA, strict=True)], _SCHEMA
    )
    with replacing(folder / f"{_VERSION}-{digest_text(*found, hex_digits=32)}.parquet") as temporary:
        pq.write_table(table, temporary)
