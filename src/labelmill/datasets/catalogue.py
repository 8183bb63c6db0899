"""Digests and video indices, kept between runs so that footage is read once.

A digest is trusted while a file's size, modification time and inode are what they were.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labelmill.datasets.sources.video import VideoIndex, index_video
from labelmill.files import digest_file, digest_text, disk_errors

_SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
  path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, digest TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS videos (
  digest TEXT PRIMARY KEY, pts BLOB, time_base_s REAL, keys BLOB, problem TEXT
) WITHOUT ROWID;
"""

_DISK = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
"""SQLite's primary result codes for what the disk refuses, as the system's own numbers."""


class Catalogue:
    """What a workspace knows of files outside it.

    Used under the workspace's lock, by one process. A damaged cache is made anew.

    Args:
        path: The SQLite file; `:memory:` remembers nothing between runs.

    Raises:
        WorkspaceError: The disk refuses.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._begun_s = 0.0
        self._execute("SELECT 1")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            db.executescript(_SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _execute(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        """Run a statement; return its first row, if there is one."""
        for attempt in range(2):
            try:
                with self._refusals():
                    self._db = self._db or self._connect()
                    return self._db.execute(statement, values).fetchone()
            except sqlite3.DatabaseError:  # the file is damaged
                if attempt or self._path == ":memory:":
                    raise
                self.close()
                for suffix in ("", "-journal"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        return None

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        with disk_errors(Path(self._path).parent):
            try:
                yield
            except sqlite3.OperationalError as error:
                number = _DISK.get(error.sqlite_errorcode & 0xFF)
                if number is None:
                    raise
                raise OSError(number, str(error)) from error

    def _remember(self, statement: str, values: tuple[Any, ...]) -> None:
        """Write a row; what was written within a second is one transaction."""
        if self._db is None or not self._db.in_transaction:
            self._execute("BEGIN")
            self._begun_s = time.monotonic()
        self._execute(statement, values)
        if time.monotonic() - self._begun_s > 1:
            self._execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            with suppress(sqlite3.Error):  # it is a cache
                self._db.commit()
            self._db.close()
            self._db = None

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's bytes; of a folder, the digest of its files' names and digests.

        Raises:
            OSError: The file cannot be read.
        """
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            parts = [part for p in files for part in (p.relative_to(path).as_posix(), self.digest(p))]
            return digest_text(*parts)
        stat = path.stat()
        state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        name = os.fsencode(path)
        row = self._execute("SELECT size, mtime_ns, inode, digest FROM digests WHERE path = ?", (name,))
        if row is not None and tuple(row[:3]) == state:
            return str(row[3])
        digest = digest_file(path)
        self._remember("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", (name, *state, digest))
        return digest

    def video_index(self, path: Path, digest: str) -> VideoIndex:
        """The frames of a video, by its digest.

        Raises:
            SourceError: It cannot be opened, or holds no frame.
        """
        import numpy as np

        row = self._execute("SELECT pts, time_base_s, keys, problem FROM videos WHERE digest = ?", (digest,))
        if row is not None:
            keys = None if row[2] is None else np.frombuffer(row[2], dtype="<i8")
            return VideoIndex(np.frombuffer(row[0], dtype="<i8"), row[1], keys, row[3])
        index = index_video(path)
        starts = None if index.keys is None else index.keys.astype("<i8").tobytes()
        self._remember(
            "INSERT OR REPLACE INTO videos VALUES (?, ?, ?, ?, ?)",
            (digest, index.pts.astype("<i8").tobytes(), index.time_base_s, starts, index.problem),
        )
        return index
