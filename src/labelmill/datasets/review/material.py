"""Everything that the queue is made from, out of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelmill.datasets.annotate import read_summary
from labelmill.datasets.bank import Makers, load_bank
from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.plan import make_plan
from labelmill.datasets.review.pictures import FramePictures
from labelmill.datasets.review.queue import Material
from labelmill.datasets.shards import ShardStore, embeddings_of
from labelmill.datasets.workspace import Workspace
from labelmill.errors import ReviewError
from labelmill.files import disk_errors


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A run as the queue sees it.

    Attributes:
        material: Its regions, embeddings and templates.
        templates: Template image files, in the order of the bank.
        frames: Brings frames into the media store.
    """

    material: Material
    templates: tuple[Path, ...]
    frames: FramePictures


@contextmanager
def open_material(config: AnnotationConfig, workspace: Workspace, quality: int) -> Iterator[Opened]:
    """Read a finished run.

    Args:
        config: The line.
        workspace: Where it worked.
        quality: Of stored frames (JPEG, 1 to 100); that of dataset versions, so that both store one file.

    Raises:
        ReviewError: There is none, or the line, its footage or its templates changed since.
    """
    with disk_errors(workspace.root), Catalogue(workspace.root / "digests.sqlite") as catalogue:
        summary = read_summary(workspace)
        if summary is None:
            raise ReviewError(
                "nothing to review",
                got=f"no finished run in {workspace.root}",
                do="run `labelmill annotate LINE`",
            )
        plan = make_plan(config, catalogue)
        if summary.get("plan") != plan.digest:
            raise ReviewError(
                "the line, its footage or its templates changed since the last run",
                got=f"tables of run {str(summary.get('plan'))[:12]}…",
                expected=f"{plan.digest[:12]}…",
                do="run `labelmill annotate LINE` again: what did not change is not computed again",
            )
        store = ShardStore(workspace.shards)
        regions = pq.read_table(workspace.table("regions"))
        sizes = pq.read_table(
            workspace.table("frames"), columns=["source_digest", "frame_index", "width_px", "height_px"]
        )
        frame_wh = {
            (digest, index): (width, height)
            for digest, index, width, height in zip(
                *(sizes[n].to_pylist() for n in sizes.column_names), strict=True
            )
        }
        bank = load_bank(plan, Makers(config), store)
        parts = []
        ids: list[str] = []
        for shard in plan.shards:
            encoded = store.read("encode", shard.keys["encode"])
            if encoded.num_rows:
                ids += encoded["region_id"].to_pylist()
                parts.append(embeddings_of(encoded))
        if ids != regions["region_id"].to_pylist():
            raise ReviewError(
                "the embeddings do not follow the regions table", do="run `labelmill annotate LINE` again"
            )
        rows = (
            bank.space.transform(np.concatenate(parts))
            if parts
            else np.zeros((0, bank.embeddings.shape[1]), np.float32)
        )
        material = Material(regions, frame_wh, rows, bank, float(summary["lambda"]))

        def frames(table: pa.Table, progress: Callable[[int, int], None]) -> list[str]:
            from labelmill.datasets.sources.footage import open_footage
            from labelmill.datasets.versions.frames import store_frames
            from labelmill.datasets.versions.origin import frame_images

            footage, _ = open_footage(config.sources, catalogue, config.base)
            digests = store_frames(
                workspace, table, lambda part: frame_images(footage, part), quality=quality, progress=progress
            )
            return list(digests.to_pylist())

        yield Opened(material, plan.templates.paths, frames)
