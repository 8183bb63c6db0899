"""A workspace as `labelmill annotate` leaves it, generated: no footage is decoded, nothing is matched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelmill.annotators.types import Boxes, Image
from labelmill.datasets.tables import FRAMES, NG, REGIONS, encode_schema
from labelmill.datasets.versions.frames import encode_jpeg
from labelmill.datasets.versions.publish import Origin
from labelmill.datasets.versions.tables import DECISIONS
from labelmill.datasets.workspace import Workspace
from labelmill.files import digest_text

WIDTH_PX, HEIGHT_PX = 64, 48


def picture(source_digest: str, frame_index: int) -> Image:
    """A small picture that no other frame has."""
    seed = int(digest_text(source_digest, str(frame_index), hex_digits=8), 16)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), dtype=np.uint8))


def cut(image: Image, xyxy: Boxes) -> list[Image]:
    """Whole pixels inside the box."""
    return [image[int(y1) : int(y2), int(x1) : int(x2)] for x1, y1, x2, y2 in xyxy]


@dataclass
class MadeRun:
    """A generated run.

    Attributes:
        workspace: Where it lies.
        frames: Frame rows, `FRAMES`.
        regions: Region rows, `REGIONS`.
        embeddings: By region id.
        decoded: How many frames were decoded so far.
    """

    workspace: Workspace
    frames: list[dict[str, object]] = field(default_factory=list)
    regions: list[dict[str, object]] = field(default_factory=list)
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)
    decoded: int = 0

    def add_frame(
        self,
        source: str,
        index: int,
        timestamp_s: float | None = None,
        labels: tuple[str, ...] = ("left",),
        *,
        status: str = "kept",
        route: str = "",
        embedding: np.ndarray | None = None,
        crop: Image | None = None,
    ) -> list[str]:
        """Add a frame with one region a label; returns the region ids."""
        digest = digest_text("source", source)
        seconds = index / 10 if timestamp_s is None else timestamp_s
        self.frames.append(
            {
                "source": source,
                "source_digest": digest,
                "frame_index": index,
                "timestamp_s": seconds,
                "width_px": WIDTH_PX,
                "height_px": HEIGHT_PX,
                "status": status,
                "reason": "" if status == "kept" else "made so",
                "regions": len(labels),
            }
        )
        ids = []
        for number, label in enumerate(labels):
            box = [4.0 + 8 * number, 4.0, 24.0 + 8 * number, 36.0]
            region = digest_text(digest, str(index), str(number), hex_digits=32)
            seed = int(region[:8], 16)
            image = cut(picture(digest, index), np.array([box], np.float32))[0] if crop is None else crop
            self.regions.append(
                {
                    "region_id": region,
                    "source": source,
                    "source_digest": digest,
                    "frame_index": index,
                    "timestamp_s": seconds,
                    "xyxy": box,
                    "phrase": "hand",
                    "score": 0.5,
                    "crop_digest": self.workspace.media.put(encode_jpeg(np.ascontiguousarray(image), 95)),
                    "label": label,
                    "nearest": "left" if label == NG else label,
                    "similarity": 0.25 + (seed % 512) / 1024,
                    "runner_up": "right",
                    "margin": 0.125,
                    "ng_similarity": float("nan"),
                    "route": route or ("ng" if label == NG else "accepted"),
                    "reason": "made so",
                }
            )
            vector = np.random.default_rng(seed).normal(size=32) if embedding is None else embedding
            self.embeddings[region] = vector.astype(np.float16)
            ids.append(region)
        return ids

    def write(self) -> MadeRun:
        """Write the tables and the embeddings."""
        folder = self.workspace.tables
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.frames, schema=FRAMES), folder / "frames.parquet")
        pq.write_table(pa.Table.from_pylist(self.regions, schema=REGIONS), folder / "regions.parquet")
        shards = self.workspace.shards / "encode"
        shards.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "region_id": row["region_id"],
                "crop_digest": row["crop_digest"],
                "embedding": self.embeddings[str(row["region_id"])],
            }
            for row in self.regions
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=encode_schema(32)), shards / "made.parquet")
        return self

    def decide(self, rows: list[dict[str, object]]) -> None:
        """Write the decisions table."""
        schema_row = dict.fromkeys(DECISIONS.names) | {
            "superseded": False,
            "source": "label-studio",
        }
        self.workspace.tables.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist([schema_row | row for row in rows], schema=DECISIONS),
            self.workspace.table("decisions"),
        )

    def frame_images(self, rows: pa.Table) -> Iterator[tuple[str, int, Image]]:
        """Stand-in for the decoder."""
        for row in rows.to_pylist():
            self.decoded += 1
            yield row["source_digest"], row["frame_index"], picture(row["source_digest"], row["frame_index"])

    def origin(self, line_text: bytes = b"name: bench\n") -> Origin:
        """What publishing needs to know."""
        classes = sorted({str(row["label"]) for row in self.regions} - {NG})
        return Origin(
            line="bench",
            line_text=line_text,
            run={"classes": classes, "lambda": 0.5, "identities": {"encode": "made"}},
            embeddings=["made"],
            frame_images=self.frame_images,
            cut=cut,
        )


def made_run(root: Path, *, sources: int = 2, frames: int = 20) -> MadeRun:
    """A run over some sources, a frame a second, labels left, right and NG in turn, some frames empty."""
    run = MadeRun(Workspace(root))
    run.workspace.open()
    labels = [("left",), ("right", "left"), (), (NG,), ("right",)]
    for source in range(sources):
        for index in range(frames):
            run.add_frame(f"footage/{source}.mp4", index, float(index), labels[index % len(labels)])
    return run.write()
