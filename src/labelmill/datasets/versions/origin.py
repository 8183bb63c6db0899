"""A line and its run, as publishing needs to know them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from labelmill.annotators.crops import cut
from labelmill.annotators.types import Frame
from labelmill.datasets.annotate import read_summary
from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.plan import make_plan
from labelmill.datasets.sources.footage import Footage, open_footage
from labelmill.datasets.versions.publish import Origin
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError
from labelmill.files import disk_errors
from labelmill.images import Image


@contextmanager
def open_origin(
    config: AnnotationConfig, workspace: Workspace, line_text: bytes, flow_run: str | None = None
) -> Iterator[Origin]:
    """Lock a workspace, and say where the rows of its tables come from.

    Args:
        config: The line.
        workspace: What `annotate` worked in.
        line_text: The line file's bytes.
        flow_run: Prefect's id of the flow run that publishes, if one does.

    Raises:
        VersionError: The tables are not those of the line as it is now.
        WorkspaceLockedError: Another run works there.
    """
    with workspace.lock(), disk_errors(workspace.root):
        with Catalogue(workspace.root / "digests.sqlite") as catalogue:
            summary = read_summary(workspace)
            if summary is None:
                raise VersionError(
                    "nothing to publish",
                    got=f"no finished run in {workspace.root}",
                    do="run labelmill annotate LINE first",
                )
            plan = make_plan(config, catalogue)
            if summary.get("plan") != plan.digest:
                raise VersionError(
                    "the line, its footage or its templates changed since the last run",
                    got=f"tables of run {str(summary.get('plan'))[:12]}…",
                    expected=f"{plan.digest[:12]}…",
                    do="run labelmill annotate LINE again: what did not change is not computed again",
                )
            footage, _ = open_footage(config.sources, catalogue, config.base)
        yield Origin(
            line=config.name,
            line_text=line_text,
            run=summary,
            embeddings=[shard.keys["encode"] for shard in plan.shards],
            frame_images=lambda rows: frame_images(footage, rows),
            cut=lambda image, xyxy: cut(image, xyxy, config.crop),
            flow_run=flow_run,
        )


def frame_images(footage: Sequence[Footage], rows: pa.Table) -> Iterator[tuple[str, int, Image]]:
    """Decode the frames of some rows, one source after another, each source once from start to end.

    Args:
        footage: The line's footage.
        rows: With columns source_digest and frame_index.

    Yields:
        Source digest, frame index and picture; a frame that cannot be read is left out.
    """
    wanted: dict[str, set[int]] = {}
    for digest, index in zip(rows["source_digest"].to_pylist(), rows["frame_index"].to_pylist(), strict=True):
        wanted.setdefault(digest, set()).add(index)
    for source in footage:
        refs = source.slice(range(len(source))).refs
        positions = [row for row, ref in enumerate(refs) if ref.index in wanted.get(ref.source_digest, ())]
        if positions:
            for frame in source.slice(positions).read():
                if isinstance(frame, Frame):
                    yield frame.source_digest, frame.index, frame.image
