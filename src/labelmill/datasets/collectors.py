"""Gathering a shard's rows: what was selected, which regions were proposed, and their crops."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labelmill.annotators.types import Boxes, Encoder, Frame
from labelmill.datasets import tables
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.media import MediaStore
from labelmill.datasets.selection import RepeatFilter
from labelmill.datasets.shards import fixed_size_lists, storable, table_of
from labelmill.datasets.sources.footage import FrameRef
from labelmill.files import digest_text
from labelmill.images import Image

if TYPE_CHECKING:
    import supervision as sv

CROPS_PER_CALL = 256
"""Crops handed to an encoder at once: many frames together."""

BYTES_PER_CALL = 64 * 2**20
"""Or so many bytes of them, whichever comes first: a bounded memory, also for large crops."""

BOX_STEPS_PER_PX = 4
"""Boxes are rounded to a quarter of a pixel before they are named, kept or cut."""

JPEG_QUALITY = 95


class Proposal(NamedTuple):
    """A frame's boxes as they are named and kept.

    Attributes:
        xyxy: Float32 pixels, shape (n, 4).
        phrases: What each box answers to.
        scores: Of the proposer, float32, shape (n,).
    """

    xyxy: Boxes
    phrases: list[str]
    scores: npt.NDArray[np.float32]


def region_id(source_digest: str, frame_index: int, xyxy: list[float], phrase: str) -> str:
    """Name a region: the same box of the same frame has the same name in every run, queue and version.

    Args:
        source_digest: Of the source's bytes.
        frame_index: Position in the source.
        xyxy: Corners in pixels, rounded to a quarter of a pixel for the name.
        phrase: What the proposer was asked for.

    Returns:
        24 hex digits.
    """
    quantised = ",".join(str(round(value * BOX_STEPS_PER_PX)) for value in xyxy)
    return digest_text(source_digest, str(frame_index), quantised, phrase, hex_digits=24)


def rounded(detections: sv.Detections, frame: Frame) -> Proposal:
    """A frame's boxes as they are named and kept: inside it, on the grid, from top left to bottom right."""
    height, width = frame.image.shape[:2]
    xyxy = np.asarray(detections.xyxy, dtype=np.float64).reshape(-1, 4)
    xyxy = np.rint(xyxy * BOX_STEPS_PER_PX) / BOX_STEPS_PER_PX
    xyxy = np.clip(xyxy, 0, [width, height, width, height])
    scores = (
        np.ones(len(xyxy), dtype=np.float32)
        if detections.confidence is None
        else np.asarray(detections.confidence, dtype=np.float32)
    )
    phrases = [str(phrase) for phrase in detections.data.get("phrase", [""] * len(xyxy))]
    order = [
        number
        for number in np.lexsort((xyxy[:, 3], xyxy[:, 2], xyxy[:, 0], xyxy[:, 1])).tolist()
        if xyxy[number, 2] > xyxy[number, 0] and xyxy[number, 3] > xyxy[number, 1]
    ]
    return Proposal(xyxy[order].astype(np.float32), [phrases[number] for number in order], scores[order])


def known_proposals(table: pa.Table) -> dict[tuple[str, int], Proposal]:
    """A propose shard by source digest and frame index."""
    grouped: dict[tuple[str, int], tuple[list[list[float]], list[str], list[float]]] = {}
    for row in table.to_pylist():
        boxes, phrases, scores = grouped.setdefault((row["source_digest"], row["frame_index"]), ([], [], []))
        boxes.append(row["xyxy"])
        phrases.append(row["phrase"])
        scores.append(row["score"])
    return {
        frame: Proposal(np.array(boxes, dtype=np.float32), phrases, np.array(scores, dtype=np.float32))
        for frame, (boxes, phrases, scores) in grouped.items()
    }


class Selected:
    """Collects the select table, on the decoding thread."""

    def __init__(self, config: AnnotationConfig) -> None:
        self._filter = RepeatFilter(config.selection.repeats)
        self._rows: dict[str, list[object]] = {name: [] for name in tables.SELECT.names}

    def add(self, ref: FrameRef, frame: Frame | str) -> bool:
        """Book a frame; tell whether it is kept."""
        if isinstance(frame, str):
            status, reason, width, height = tables.Status.UNREADABLE, frame, 0, 0
        else:
            height, width = frame.image.shape[:2]
            reason = self._filter.repeat_reason(frame.image, frame.name or f"frame {frame.index}")
            status = tables.Status.REPEAT if reason else tables.Status.KEPT
        row = (ref.source_digest, ref.index, ref.timestamp_s, width, height, status.value, reason)
        for name, value in zip(self._rows, row, strict=True):
            self._rows[name].append(value)
        return status is tables.Status.KEPT

    def table(self) -> pa.Table:
        """The select shard."""
        return table_of(self._rows, tables.SELECT)


class Regions:
    """Collects the propose table."""

    def __init__(self) -> None:
        self._rows: dict[str, list[object]] = {name: [] for name in tables.PROPOSE.names}

    def add(self, frame: Frame, proposal: Proposal) -> tuple[Boxes, list[str]]:
        """Name a frame's regions; boxes that round to the same region are taken once."""
        ids: list[str] = []
        kept: list[int] = []
        for number, (box, phrase) in enumerate(zip(proposal.xyxy.tolist(), proposal.phrases, strict=True)):
            name = region_id(frame.source_digest, frame.index, box, phrase)
            if name in ids:
                continue
            ids.append(name)
            kept.append(number)
            row = (name, frame.source_digest, frame.index, box, phrase, float(proposal.scores[number]))
            for column, value in zip(self._rows, row, strict=True):
                self._rows[column].append(value)
        return proposal.xyxy[kept], ids

    def table(self) -> pa.Table:
        """The propose shard."""
        return table_of(self._rows, tables.PROPOSE)


class Crops:
    """Collects the encode table: stores crops, encodes many at once, and the same crop once.

    The same means the same pixels: crops that differ may still be stored as the same JPEG.
    """

    def __init__(self, encoder: Encoder, media: MediaStore) -> None:
        self._encoder = encoder
        self._media = media
        self._ids: list[str] = []
        self._digests: list[str] = []
        self._pixels: list[bytes] = []  # digest of each crop's pixels
        self._rows: dict[bytes, int] = {}
        self._waiting: list[Image] = []
        self._waiting_bytes = 0
        self._done: list[npt.NDArray[np.float16]] = []

    def add(self, ids: list[str], crops: list[Image]) -> None:
        """Take a frame's crops."""
        import cv2

        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        for name, crop in zip(ids, crops, strict=True):
            _, data = cv2.imencode(".jpg", crop[:, :, ::-1], options)
            self._ids.append(name)
            self._digests.append(self._media.put(data.tobytes()))
            pixels = hashlib.sha256(repr(crop.shape).encode() + crop.tobytes()).digest()
            self._pixels.append(pixels)
            if pixels not in self._rows:
                self._rows[pixels] = len(self._rows)
                self._waiting.append(crop.copy())  # a view would keep the whole frame alive
                self._waiting_bytes += crop.size
        if len(self._waiting) >= CROPS_PER_CALL or self._waiting_bytes >= BYTES_PER_CALL:
            self._encode()

    def _encode(self) -> None:
        if self._waiting:
            self._done.append(storable(self._encoder.encode(self._waiting)))
            self._waiting.clear()
            self._waiting_bytes = 0

    def table(self) -> pa.Table:
        """The encode shard."""
        self._encode()
        dim = self._done[0].shape[1] if self._done else 1
        unique = np.concatenate(self._done or [np.empty((0, dim), dtype=np.float16)])
        rows = unique[[self._rows[pixels] for pixels in self._pixels]]
        schema = tables.encode_schema(dim)
        columns = {
            "region_id": self._ids,
            "crop_digest": self._digests,
            "embedding": fixed_size_lists(rows),
        }
        return table_of(columns, schema)
