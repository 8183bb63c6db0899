"""Publishing: from a run's tables to a new version, or to the one that already says the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labelmill.datasets.tables import FRAMES as RUN_FRAMES
from labelmill.datasets.tables import NG
from labelmill.datasets.tables import REGIONS as RUN_REGIONS
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.content import flat_array, version_tables
from labelmill.datasets.versions.frames import (
    Cut,
    FrameImages,
    missing_crops,
    recut_crops,
    store_frames,
    stored_media,
)
from labelmill.datasets.versions.gate import find_leaks, read_assignments, refuse
from labelmill.datasets.versions.ledger import code_version, counts, reviewers, warnings
from labelmill.datasets.versions.manifest import FORMAT, Lineage, Manifest, Parent, Rows, Source
from labelmill.datasets.versions.restore import restore
from labelmill.datasets.versions.show import Progress, Window, gather
from labelmill.datasets.versions.similar import load_embeddings
from labelmill.datasets.versions.splits import assign, class_crops
from labelmill.datasets.versions.stills import load_stills
from labelmill.datasets.versions.store import Version, VersionStore
from labelmill.datasets.versions.tables import ASIDE, DECISIONS, FRAMES, rows_digest, write_table
from labelmill.datasets.workspace import Workspace
from labelmill.errors import ServiceError, VersionError
from labelmill.files import digest_bytes, digest_file, digest_text, disk_errors


@dataclass(frozen=True)
class Origin:
    """What publishing needs to know of the line and its run.

    Attributes:
        line: The line's name.
        line_text: The line file's bytes; empty where there is none.
        run: What the run recorded (`tables/summary.json`).
        embeddings: Names of the encode shards that hold the regions' embeddings.
        frame_images: Decodes frames.
        cut: Cuts crops as the run did.
        flow_run: Prefect's id of the publishing run.
    """

    line: str
    line_text: bytes
    run: dict[str, Any]
    embeddings: list[str]
    frame_images: FrameImages
    cut: Cut
    flow_run: str | None = None


@dataclass(frozen=True)
class Published:
    """What publishing did.

    Attributes:
        version: The version that holds the content.
        created: Whether it is new; otherwise an earlier one already said the same.
    """

    version: Version
    created: bool

    @property
    def warnings(self) -> list[str]:
        """What the publisher should know before somebody trains on it; one line each."""
        return warnings(self.version.manifest, self.version.frames)


def publish(
    workspace: Workspace,
    config: DatasetConfig,
    origin: Origin,
    window: Window | None,
    *,
    message: str = "",
    progress: Progress = lambda done, total, what: None,
) -> Published:
    """Publish what the workspace's tables hold. Call under the workspace's lock.

    The version appears by one rename, after its media, its tables and its FiftyOne dataset are written; a
    kill before leaves nothing that anyone sees, a kill after leaves a version that `restore` shows again.

    Args:
        workspace: Where the tables are.
        config: The line's `dataset` part.
        origin: The line and its run.
        window: The database to show it in; None writes the files only.
        message: What the publisher says about it.
        progress: Called as the work goes on.

    Returns:
        The new version, or the one that already has this content.

    Raises:
        VersionError: There is nothing to publish, or the splits leak.
        ServiceError: The database does not answer.
        WorkspaceError: The disk is full or read-only.
    """
    store = VersionStore(workspace)
    name = config.name or origin.line
    earlier = store.all(name)
    frames, regions = _rows(workspace, config, origin, progress)
    frames, splits = _split(workspace, config, origin, earlier, frames, regions)
    classes = sorted({*pc.unique(regions["label"]).to_pylist(), *origin.run.get("classes", [])} - {NG})
    digests = rows_digest(frames), rows_digest(regions)
    content = digest_text("version", *classes, *digests)
    for version in reversed(earlier):
        if version.manifest.content_digest == content:
            if window and not window.shows(version.manifest, version.digest):
                restore(workspace, version, window, progress)
            return Published(version, created=False)
    with store.staging(name) as staging:
        with disk_errors(workspace.root):
            if origin.line_text:
                (staging / "line.yaml").write_bytes(origin.line_text)
            manifest = Manifest(
                format=FORMAT,
                dataset=name,
                number=earlier[-1].manifest.number + 1 if earlier else 1,
                content_digest=content,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                message=message,
                parent=Parent(number=earlier[-1].manifest.number, digest=earlier[-1].digest)
                if earlier
                else None,
                classes=classes,
                splits=splits,
                counts=counts(frames, regions),
                frames=_write(staging / "frames.parquet", frames, digests[0]),
                regions=_write(staging / "regions.parquet", regions, digests[1]),
                lineage=_lineage(origin, frames, regions),
            )
        staged = None
        if window:
            parent = earlier[-1] if earlier else None
            staged = window.stage(gather(workspace, manifest, frames, regions, parent), progress)
        try:
            version = store.commit(staging, manifest)
        except BaseException:
            if window:
                window.discard(staged)
            raise
    if window:
        try:
            window.reveal(staged, version.manifest, version.digest)
        except ServiceError as error:
            raise ServiceError(
                f"{version.manifest.name} is published, but FiftyOne does not show it yet",
                got=error.line,
                do=f"run labelmill restore {version.manifest.name}",
            ) from error
    return Published(version, created=True)


def _rows(
    workspace: Workspace, config: DatasetConfig, origin: Origin, progress: Progress
) -> tuple[pa.Table, pa.Table]:
    """The version's two tables, with every picture that they name in the media store; no splits yet."""
    frames, regions = version_tables(*read_run(workspace))
    stored = stored_media(workspace)
    media = store_frames(
        workspace,
        frames,
        origin.frame_images,
        quality=config.jpeg_quality,
        stored=stored,
        progress=lambda done, total: progress(done, total, "frames"),
    )
    frames = frames.set_column(FRAMES.get_field_index("media_digest"), FRAMES.field("media_digest"), media)
    regions = recut_crops(workspace, frames, regions, origin.cut, quality=config.jpeg_quality)
    if lost := missing_crops(workspace.media, regions, stored):
        raise VersionError(
            f"{len(lost)} crops are gone from {workspace.media.root}",
            got=f"no {lost[0][:16]}….jpg",
            do="run labelmill annotate again",
        )
    return frames, regions


def _split(
    workspace: Workspace,
    config: DatasetConfig,
    origin: Origin,
    earlier: list[Version],
    frames: pa.Table,
    regions: pa.Table,
) -> tuple[pa.Table, dict[str, Any]]:
    """Give every frame a split, and refuse splits that leak.

    Returns:
        The frames, and what the manifest says about the splits.
    """
    vectors, rows = load_embeddings(workspace, origin.embeddings, flat_array(regions["region_id"]))
    crops = class_crops(frames, regions, vectors, rows)
    before: dict[str, str] = {}
    for version in earlier:
        ids, splits = version.frames["frame_id"].to_pylist(), version.frames["split"].to_pylist()
        before.update((name, split) for name, split in zip(ids, splits, strict=True) if split != ASIDE)
    stills = load_stills(workspace, frames)
    parent = earlier[-1].manifest.splits if earlier else {}
    start, start_bits = parent.get("near_duplicate"), parent.get("near_duplicate_bits")
    result = assign(frames, regions, crops, config, before, start, stills, start_bits)
    split = result.split
    if config.assignments is not None:
        split = read_assignments(config.assignments, frames, list(config.splits))
    for name, values in (("split", split), ("group", result.group)):
        column = pa.array(values, pa.string())
        frames = frames.set_column(FRAMES.get_field_index(name), FRAMES.field(name), column)
    leaks = find_leaks(
        frames,
        regions,
        crops,
        threshold=result.near_duplicate,
        guard_s=config.guard_s,
        stills=stills,
        bits=result.near_duplicate_bits,
    )
    if leaks:
        raise refuse(leaks, workspace.media, workspace.tables / "leaks.html")
    return frames, {
        "shares": config.splits,
        "time_block_s": config.time_block_s,
        "guard_s": config.guard_s,
        "near_duplicate": result.near_duplicate,
        "near_duplicate_bits": result.near_duplicate_bits,
        "embedded_crops": len(rows),
        "largest_group_share": round(result.largest_share, 4),
        "moved": result.moved,
        "given": config.assignments is not None,
    }


def read_run(workspace: Workspace) -> tuple[pa.Table, pa.Table, pa.Table | None]:
    """The frames, regions and decisions of a workspace.

    Raises:
        VersionError: It was never annotated.
    """
    if not (workspace.table("frames").exists() and workspace.table("regions").exists()):
        raise VersionError(
            "nothing to publish", got=f"no tables in {workspace.root}", do="run labelmill annotate LINE first"
        )
    decisions = workspace.table("decisions")
    return (
        pq.read_table(workspace.table("frames"), schema=RUN_FRAMES),
        pq.read_table(workspace.table("regions"), schema=RUN_REGIONS),
        pq.read_table(decisions).select(DECISIONS.names).cast(DECISIONS) if decisions.exists() else None,
    )


def _write(path: Path, table: pa.Table, digest: str) -> Rows:
    write_table(path, table)
    return Rows(file=path.name, rows=table.num_rows, rows_digest=digest, file_digest=digest_file(path))


def _lineage(origin: Origin, frames: pa.Table, regions: pa.Table) -> Lineage:
    sources = Counter(zip(frames["source"].to_pylist(), frames["source_digest"].to_pylist(), strict=True))
    return Lineage(
        line=origin.line,
        line_file="line.yaml" if origin.line_text else None,
        line_digest=digest_bytes(origin.line_text),
        run=origin.run,
        embeddings=origin.embeddings,
        sources=[
            Source(source=source, digest=digest, frames=number)
            for (source, digest), number in sorted(sources.items())
        ],
        reviewers=reviewers(regions),
        code=code_version(),
        flow_run=origin.flow_run,
    )
