"""Digests and video indices, kept between runs so that footage is read once.

A digest is trusted while a file's size, modification time and inode are what they were.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from labelmill.datasets.sources.video import VideoIndex, index_video
from labelmill.files import digest_file, digest_text

_SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
  path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, digest TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS indices (
  digest TEXT PRIMARY KEY, pts BLOB, time_base_s REAL, seekable INTEGER, problem TEXT
) WITHOUT ROWID;
"""


class Catalogue:
    """What a workspace knows of files outside it.

    Used under the workspace's lock, by one process. A damaged cache is made anew.

    Args:
        path: The SQLite file; `:memory:` remembers nothing between runs.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            self._db = self._connect(path)
        except sqlite3.DatabaseError:
            Path(path).unlink(missing_ok=True)
            self._db = self._connect(path)

    @staticmethod
    def _connect(path: Path | str) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
        return db

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

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
        row = self._db.execute(
            "SELECT size, mtime_ns, inode, digest FROM digests WHERE path = ?", (str(path),)
        ).fetchone()
        if row is not None and tuple(row[:3]) == state:
            return str(row[3])
        digest = digest_file(path)
        self._db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", (str(path), *state, digest))
        return digest

    def video_index(self, path: Path, digest: str) -> VideoIndex:
        """The frames of a video, by its digest.

        Raises:
            SourceError: It cannot be opened, or holds no frame.
        """
        import numpy as np

        row = self._db.execute(
            "SELECT pts, time_base_s, seekable, problem FROM indices WHERE digest = ?", (digest,)
        ).fetchone()
        if row is not None:
            return VideoIndex(np.frombuffer(row[0], dtype="<i8"), row[1], bool(row[2]), row[3])
        index = index_video(path)
        self._db.execute(
            "INSERT OR REPLACE INTO indices VALUES (?, ?, ?, ?, ?)",
            (digest, index.pts.astype("<i8").tobytes(), index.time_base_s, index.seekable, index.problem),
        )
        return index
