"""What FiftyOne is to show of a version, gathered from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets.versions.content import flat_array
from labelmill.datasets.versions.diff import diff_tables
from labelmill.datasets.versions.manifest import Manifest
from labelmill.datasets.versions.similar import load_embeddings
from labelmill.datasets.versions.store import Version
from labelmill.datasets.workspace import Workspace

_SHOWN_DIM = 64
"""Components of the similarity index in FiftyOne: it keeps them as text in one document."""


Progress = Callable[[int, int, str], None]
"""Called with what is done, its total, and what it is."""


@dataclass(frozen=True)
class Comparison:
    """An older version beside a newer one.

    Attributes:
        name: Of the older version.
        number: N of the older version.
        frames: Ids of the newer version's frames on which something changed.
        before: Older rows of the regions that were removed, relabelled or moved; columns `tables.REGIONS`.
        gone: How many frames the newer version lacks; no sample can show them.
    """

    name: str
    number: int
    frames: list[str]
    before: pa.Table
    gone: int


@dataclass(frozen=True)
class Embedded:
    """Stored embeddings for the App.

    Attributes:
        region_ids: The regions that have one.
        frame_ids: Their frames.
        vectors: Their leading components, shape (n, at most 64).
        points: In the plane, shape (n, 2).
    """

    region_ids: list[str]
    frame_ids: list[str]
    vectors: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """A version as FiftyOne shows it.

    Attributes:
        manifest: What it is.
        frames: Columns `tables.FRAMES`.
        regions: Columns `tables.REGIONS`.
        since: What changed since the parent; None for a first version.
        embedded: None where fewer than three embeddings are stored.
    """

    manifest: Manifest
    frames: pa.Table
    regions: pa.Table
    since: Comparison | None
    embedded: Embedded | None

    @property
    def threshold(self) -> float | None:
        """λ of the run."""
        value: Any = self.manifest.lineage.run.get("lambda")
        return float(value) if isinstance(value, int | float) else None


class Window(Protocol):
    """The database that people look into; `fiftyone_window.Window` is the one."""

    def shows(self, manifest: Manifest, digest: str) -> bool:
        """Whether it has this very version."""
        ...

    def stage(self, shown: Shown, progress: Progress) -> Any:
        """Write the version under a name that is no version's."""
        ...

    def reveal(self, staged: Any, manifest: Manifest, digest: str) -> None:
        """Give the staged dataset its name."""
        ...

    def discard(self, staged: Any) -> None:
        """Remove a staged dataset."""
        ...


def gather(
    workspace: Workspace, manifest: Manifest, frames: pa.Table, regions: pa.Table, parent: Version | None
) -> Shown:
    """Gather what is to be shown of a version.

    Args:
        workspace: Where the embeddings are.
        manifest: The version.
        frames: Its frames.
        regions: Its regions.
        parent: The version before, if there is one.
    """
    since = compare((parent.manifest, parent.frames, parent.regions), frames, regions) if parent else None
    vectors, rows = load_embeddings(workspace, manifest.lineage.embeddings, flat_array(regions["region_id"]))
    return Shown(manifest, frames, regions, since, _embedded(regions, vectors, rows))


def compare(old: tuple[Manifest, pa.Table, pa.Table], frames: pa.Table, regions: pa.Table) -> Comparison:
    """Lay an older version beside the rows of a newer one."""
    manifest, old_frames, old_regions = old
    changes = diff_tables((old_frames, old_regions), (frames, regions))
    touched = pa.array(sorted(changes.touched()), pa.string())
    before = old_regions.filter(pc.is_in(old_regions["region_id"], value_set=touched))
    after = regions.filter(pc.is_in(regions["region_id"], value_set=touched))
    changed = {
        *changes.frames_added,
        *(name for name, _, _ in changes.split_changed),
        *before["frame_id"].to_pylist(),
        *after["frame_id"].to_pylist(),
    } - set(changes.frames_removed)
    return Comparison(manifest.name, manifest.number, sorted(changed), before, len(changes.frames_removed))


def _embedded(
    regions: pa.Table, vectors: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> Embedded | None:
    """Principal components: the same picture every time, and no dependency beyond scikit-learn's."""
    if len(rows) < 3 or vectors.shape[1] < 2:
        return None
    from sklearn.decomposition import PCA

    dim = min(_SHOWN_DIM, vectors.shape[1], len(rows))
    parts = PCA(dim, svd_solver="randomized", random_state=0).fit_transform(vectors).astype(np.float32)
    taken = regions.select(["region_id", "frame_id"]).take(pa.array(rows))
    ids, frames = taken["region_id"].to_pylist(), taken["frame_id"].to_pylist()
    return Embedded(ids, frames, parts, np.ascontiguousarray(parts[:, :2]))
