"""Pictures of a version's frames: decoded once, stored by digest, and remembered in shards.

A shard in `shards/media/` says which picture in media/ a frame of a source is. A second publish reads the
shards and decodes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.annotators.types import Boxes, Image
from labelmill.datasets.media import MediaStore
from labelmill.datasets.workspace import Workspace
from labelmill.errors import SourceError
from labelmill.files import digest_text, disk_errors, replacing

FrameImages = Callable[[pa.Table], Iterator[tuple[str, int, Image]]]
"""Decodes rows (source, source_digest, frame_index; sorted so), yielding digest, index and RGB picture."""

Cut = Callable[[Image, Boxes], Sequence[Image]]
"""Cuts boxes, float32 pixels, shape (n, 4), out of a frame."""

_MAP = pa.schema([("source_digest", pa.string()), ("frame_index", pa.int64()), ("media_digest", pa.string())])
_VERSION = 1
_SHARD_FRAMES = 500


def encode_jpeg(image: Image, quality: int) -> bytes:
    """A picture as JPEG, 4:4:4 so that thin coloured parts keep their edges."""
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    return bytes(data)


def store_frames(
    workspace: Workspace,
    frames: pa.Table,
    frame_images: FrameImages,
    *,
    quality: int,
    stored: set[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Array:
    """Bring every frame's picture into the media store.

    Args:
        workspace: Held by its lock.
        frames: Columns `tables.FRAMES`.
        frame_images: Decoder of the frames that no shard knows.
        quality: Of JPEG, 1 to 100.
        stored: What the media store has (`stored_media`), if that was asked already; added to.
        progress: Called with the decoded and the total number of frames.

    Returns:
        The media digests, in the order of `frames`.

    Raises:
        SourceError: The footage no longer gives a frame that the tables name.
    """
    folder = workspace.shards / "media"
    known = _read_maps(folder, quality)
    stored = stored_media(workspace) if stored is None else stored
    keys = list(zip(frames["source_digest"].to_pylist(), frames["frame_index"].to_pylist(), strict=True))
    missing = [row for row, key in enumerate(keys) if known.get(key, "") not in stored]
    progress(len(keys) - len(missing), len(keys))
    if missing:
        wanted = frames.select(["source", "source_digest", "frame_index"]).take(pa.array(missing))
        done = len(keys) - len(missing)
        for batch in _batches(frame_images(wanted)):
            with disk_errors(workspace.root):
                rows = [
                    (digest, index, workspace.media.put(encode_jpeg(image, quality)))
                    for digest, index, image in batch
                ]
                _write_map(folder, rows, quality)
            known.update({(digest, index): media for digest, index, media in rows})
            stored.update(media for _, _, media in rows)
            done += len(rows)
            progress(done, len(keys))
    lost = [keys[row] for row in missing if known.get(keys[row], "") not in stored]
    if lost:
        source = frames["source"][keys.index(lost[0])].as_py()
        raise SourceError(
            f"{len(lost)} frames could not be read again",
            got=f"no frame {lost[0][1]} from {source}",
            expected="the footage that labelmill annotate read",
            do="put the file back unchanged, or run labelmill annotate again",
        )
    return pa.array([known[key] for key in keys], pa.string())


def stored_media(workspace: Workspace) -> set[str]:
    """Digests of every file in the media store, by one reading of its folders."""
    root = workspace.media.root
    if not root.is_dir():
        return set()
    names = (file.name for folder in os.scandir(root) if folder.is_dir() for file in os.scandir(folder))
    return {name.removesuffix(".jpg") for name in names if name.endswith(".jpg")}


def _batches(items: Iterable[tuple[str, int, Image]]) -> Iterator[list[tuple[str, int, Image]]]:
    """Bound what is held in memory; JPEG bytes reach the disk before the next frames are decoded."""
    batch: list[tuple[str, int, Image]] = []
    size_bytes = 0
    for item in items:
        batch.append(item)
        size_bytes += item[2].nbytes
        if len(batch) >= _SHARD_FRAMES or size_bytes > 256 << 20:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _key(quality: int) -> str:
    return digest_text("media", str(_VERSION), str(quality), hex_digits=12)


def _read_maps(folder: Path, quality: int) -> dict[tuple[str, int], str]:
    known: dict[tuple[str, int], str] = {}
    for path in sorted(folder.glob(f"{_key(quality)}-*.parquet")):
        table = pq.read_table(path, schema=_MAP)
        keys = zip(table["source_digest"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        known.update(zip(keys, table["media_digest"].to_pylist(), strict=True))
    return known


def _write_map(folder: Path, rows: list[tuple[str, int, str]], quality: int) -> None:
    digests, indices, media = zip(*rows, strict=True)
    content = digest_text(*(f"{digest}:{index}" for digest, index in zip(digests, indices, strict=True)))
    table = pa.table([pa.array(digests), pa.array(indices, pa.int64()), pa.array(media)], schema=_MAP)
    with replacing(folder / f"{_key(quality)}-{content[:32]}.parquet") as temporary:
        pq.write_table(table, temporary)


def recut_crops(
    workspace: Workspace, frames: pa.Table, regions: pa.Table, cut: Cut, *, quality: int
) -> pa.Table:
    """Cut the crops whose box a person corrected, from the stored frames.

    Args:
        workspace: Held by its lock.
        frames: Columns `tables.FRAMES`, with media digests.
        regions: Columns `tables.REGIONS`.
        cut: From a frame and boxes to crops, as the run did it.
        quality: Of JPEG, 1 to 100.

    Returns:
        The regions, with the new crops' digests.
    """
    import cv2

    moved = np.flatnonzero(regions["machine_xyxy"].is_valid().to_numpy())
    if not len(moved):
        return regions
    media = dict(zip(frames["frame_id"].to_pylist(), frames["media_digest"].to_pylist(), strict=True))
    crops = regions["crop_digest"].to_pylist()
    for row in moved.tolist():
        data = workspace.media.path(media[regions["frame_id"][row].as_py()]).read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        box = np.asarray([regions["xyxy"][row].as_py()], dtype=np.float32)
        crop = np.ascontiguousarray(cut(np.asarray(image, dtype=np.uint8), box)[0])
        with disk_errors(workspace.root):
            crops[row] = workspace.media.put(encode_jpeg(crop, quality))
    position = regions.schema.get_field_index("crop_digest")
    return regions.set_column(position, "crop_digest", pa.array(crops, pa.string()))


def missing_crops(media: MediaStore, regions: pa.Table, stored: set[str]) -> list[str]:
    """Digests of crops that the media store lacks.

    Args:
        media: The store.
        regions: Columns `tables.REGIONS`.
        stored: What it had a moment ago (`stored_media`).
    """
    unknown = set(pc.unique(regions["crop_digest"]).to_pylist()) - stored
    return sorted(digest for digest in unknown if not media.path(digest).exists())
