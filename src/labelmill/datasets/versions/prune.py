"""Removing media that nothing names any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from labelmill.datasets.versions.store import VersionStore
from labelmill.datasets.workspace import Workspace
from labelmill.files import disk_errors


@dataclass(frozen=True)
class Prunable:
    """What may go.

    Attributes:
        media: Files that no version and no table names.
        shards: Encode shards that name such a file: they would promise a crop that is not there.
        bytes: Of both together.
        kept: Media files that stay.
    """

    media: list[Path]
    shards: list[Path]
    bytes: int
    kept: int


def find_prunable(workspace: Workspace) -> Prunable:
    """Find what may go. Call under the workspace's lock.

    Kept are the media of every version, and the crops of the last run, published or not.

    Raises:
        VersionError: A version is damaged: what it needs is unknown, so nothing may go.
    """
    store = VersionStore(workspace)
    live: set[str] = set()
    for dataset in store.datasets():
        for version in store.all(dataset):
            live.update(version.frames["media_digest"].to_pylist())
            live.update(version.regions["crop_digest"].to_pylist())
    if workspace.table("regions").exists():
        live.update(
            pq.read_table(workspace.table("regions"), columns=["crop_digest"])["crop_digest"].to_pylist()
        )
    files = [path for path in workspace.media.root.glob("*/*") if path.is_file()]
    media = [path for path in files if path.stem not in live]
    gone = {path.stem for path in media}
    shards = [
        path for path in (workspace.shards / "encode").glob("*.parquet") if not gone.isdisjoint(_crops(path))
    ]
    size = sum(path.stat().st_size for path in (*media, *shards))
    return Prunable(sorted(media), sorted(shards), size, len(files) - len(media))


def _crops(path: Path) -> list[str]:
    return list(pq.read_table(path, columns=["crop_digest"])["crop_digest"].to_pylist())


def prune(workspace: Workspace, prunable: Prunable) -> None:
    """Remove what was found. Call under the same lock; shards go first, so that none outlives its crops."""
    with disk_errors(workspace.root):
        for path in (*prunable.shards, *prunable.media):
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in prunable.media}:
            if not any(folder.iterdir()):
                folder.rmdir()
