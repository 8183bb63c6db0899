"""The folder that one line works in, and the lock that keeps two runs apart.

- `labelmill.json`: format version
- `lock`, `lock.holder`: held while a verb writes
- `digests.sqlite`: digests of sources by path, size and time, so that footage is read once
- `shards/<stage>/<key>.parquet`: the shard store
- `media/<ab>/<digest>.jpg`: crops and frames, stored once
- `tables/`: frames.parquet, regions.parquet, quarantine.parquet, summary.json
- `versions/`: dataset versions
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from labelmill.datasets.media import MediaStore
from labelmill.errors import WorkspaceError, WorkspaceLockedError
from labelmill.files import disk_errors, sweep_temporary, write_bytes

FORMAT = 1


class Workspace:
    """Where everything about one line is kept.

    Args:
        root: The folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - links stay as the user wrote them

    @property
    def shards(self) -> Path:
        """Folder of the shard store."""
        return self.root / "shards"

    @property
    def tables(self) -> Path:
        """Folder of the final tables."""
        return self.root / "tables"

    @property
    def versions(self) -> Path:
        """Folder of dataset versions."""
        return self.root / "versions"

    @cached_property
    def media(self) -> MediaStore:
        """Crops and frames, stored once by content digest."""
        return MediaStore(self.root / "media")

    def table(self, name: str) -> Path:
        """Path of a final table: "frames", "regions" or "quarantine"."""
        return self.tables / f"{name}.parquet"

    def open(self) -> None:
        """Make the folder, or check that it is one of ours.

        Raises:
            WorkspaceError: It cannot be written, or a newer labelmill made it.
        """
        marker = self.root / "labelmill.json"
        with disk_errors(self.root):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise WorkspaceError(
                    f"workspace {self.root} is not a folder",
                    expected="a folder, or a path where one can be made",
                    do="name another with --workspace",
                ) from error
            if not marker.exists():
                write_bytes(marker, json.dumps({"format": FORMAT}).encode())
                return
        try:
            found = json.loads(marker.read_text())["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise WorkspaceError(
                f"{marker} is damaged", expected='{"format": 1}', do="restore it, or name another --workspace"
            ) from error
        if found != FORMAT:
            raise WorkspaceError(
                f"workspace {self.root} has another format",
                got=found,
                expected=str(FORMAT),
                do="use the labelmill that made it, or name another --workspace",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for writing; the operating system lets go when the process dies.

        Raises:
            WorkspaceLockedError: Another process holds it.
        """
        from filelock import FileLock, Timeout

        self.open()
        holder = self.root / "lock.holder"
        with disk_errors(self.root):
            lock = FileLock(self.root / "lock", blocking=False, thread_local=False)
            try:
                lock.acquire()
            except Timeout as error:
                raise WorkspaceLockedError(
                    f"workspace {self.root} is in use",
                    got=_read(holder) or "another process",
                    do="wait for that run, stop it, or name another --workspace",
                ) from error
        try:
            with disk_errors(self.root):
                write_bytes(holder, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                sweep_temporary(self.root)
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
