"""Proof that a version is what its manifest says: every file, every row, every picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets.versions.ledger import counts
from labelmill.datasets.versions.manifest import Rows
from labelmill.datasets.versions.store import Version
from labelmill.datasets.versions.tables import rows_digest
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError
from labelmill.files import digest_file

_SHOWN = 20
_READERS = 4


@dataclass
class Verification:
    """What was proved, and what failed.

    Attributes:
        version: `<dataset>@v<N>`.
        digest: Of its manifest.
        rows: Rows proved.
        media: Pictures proved.
        faults: One line each; at most 20 of a kind are spelt out.
    """

    version: str
    digest: str
    rows: int = 0
    media: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything is as the manifest says."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """As one JSON value."""
        return {**asdict(self), "ok": self.ok}


def verify(
    workspace: Workspace,
    version: Version,
    *,
    media: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Verification:
    """Prove a version against its manifest.

    Args:
        workspace: Where its media are.
        version: With a manifest that its digest has proved (`VersionStore.load`).
        media: Also read every picture; without, only that it exists.
        progress: Called with pictures read and their total.
    """
    manifest = version.manifest
    result = Verification(manifest.name, version.digest)
    tables: dict[str, pa.Table] = {}
    for name, rows in (("frames", manifest.frames), ("regions", manifest.regions)):
        faults = _file_faults(version.folder / rows.file, rows)
        try:
            tables[name] = version.frames if name == "frames" else version.regions
        except VersionError as error:
            faults = faults or [str(error)]
        else:
            faults += _row_faults(tables[name], rows)
            result.rows += tables[name].num_rows
        result.faults += faults
    lineage = manifest.lineage
    if lineage.line_file is not None:
        path = version.folder / lineage.line_file
        if not path.is_file() or digest_file(path) != lineage.line_digest:
            result.faults.append(f"{path} is not the line file that was published")
    if len(tables) == 2:
        result.faults += list(_relations(tables["frames"], tables["regions"], manifest.counts))
        digests = {
            *tables["frames"]["media_digest"].to_pylist(),
            *tables["regions"]["crop_digest"].to_pylist(),
        }
        wrong = list(_media_faults(workspace, sorted(digests), media, progress))
        result.media = len(digests) - len(wrong)
        result.faults += wrong[:_SHOWN]
        if len(wrong) > _SHOWN:
            result.faults.append(f"and {len(wrong) - _SHOWN} more pictures")
    return result


def _file_faults(path: Path, rows: Rows) -> list[str]:
    if not path.is_file():
        return [f"{path} is gone"]
    digest = digest_file(path)
    if digest != rows.file_digest:
        return [f"{path} was altered: digest {digest[:16]}…, expected {rows.file_digest[:16]}…"]
    return []


def _row_faults(table: pa.Table, rows: Rows) -> list[str]:
    if table.num_rows != rows.rows:
        return [f"{rows.file} has {table.num_rows} rows, expected {rows.rows}"]
    if rows_digest(table) != rows.rows_digest:
        return [f"the rows of {rows.file} are not those that were published"]
    return []


def _relations(frames: pa.Table, regions: pa.Table, expected: dict[str, dict[str, int]]) -> Iterator[str]:
    for name, table in (("frame_id", frames), ("region_id", regions)):
        if len(pc.unique(table[name])) != table.num_rows:
            yield f"a {name} occurs twice"
    known = pc.is_in(regions["frame_id"], value_set=frames["frame_id"].combine_chunks())
    if not pc.all(known, min_count=0).as_py():
        yield "a region names a frame that is not in the version"
    elif counts(frames, regions) != expected:
        yield "the manifest's counts are not those of its rows"


def _media_faults(
    workspace: Workspace, digests: list[str], read: bool, progress: Callable[[int, int, str], None]
) -> Iterator[str]:
    def fault(digest: str) -> str | None:
        path = workspace.media.path(digest)
        try:
            if not read:
                return None if path.is_file() else f"{path} is gone"
            found = digest_file(path)
        except FileNotFoundError:
            return f"{path} is gone"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        return None if found == digest else f"{path} was altered: its bytes have digest {found[:16]}…"

    with ThreadPoolExecutor(_READERS) as pool:  # hashing lets go of the interpreter
        for done, line in enumerate(pool.map(fault, digests, chunksize=64), start=1):
            if done % 256 == 0 or done == len(digests):
                progress(done, len(digests), "pictures")
            if line is not None:
                yield line
