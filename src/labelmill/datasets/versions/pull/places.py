"""Where pulled files go: a folder of this machine, or anything that fsspec reaches."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from labelmill.errors import VersionError, WorkspaceError, WorkspaceFullError
from labelmill.files import TEMPORARY_PREFIX, digest_bytes, digest_file

Stamp = tuple[int, int]
"""Size in bytes, and modification time in ns (0 where a place has none): changes when a file does."""


class Place(Protocol):
    """A destination. Paths are relative to it, POSIX."""

    def empty(self) -> bool:
        """Whether nothing is there."""
        ...

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        ...

    def take(self, source: Path, digest: str, path: str) -> None:
        """Bring a picture, whose bytes must have the digest.

        Raises:
            VersionError: They have not, or the picture is gone.
        """
        ...

    def stamp(self, path: str) -> Stamp | None:
        """The file's stamp, or None where there is none."""
        ...

    def digest(self, path: str) -> str | None:
        """SHA-256 of the file's bytes, or None where there is none."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file if it is there, and its folder if that is empty then."""
        ...


def open_place(destination: str, *, link: bool) -> Place:
    """Choose the place for a path or an address such as `s3://bucket/set`.

    Args:
        destination: A path, or an address with a protocol that fsspec knows.
        link: Hard links instead of copies, where the disk can.

    Raises:
        VersionError: The address cannot be used.
    """
    protocol, separator, rest = destination.partition("://")
    if not separator:
        return Folder(Path(destination).expanduser(), link=link)
    if protocol in ("file", "local"):
        return Folder(Path(rest), link=link)
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(destination)
    except (ValueError, ImportError) as error:
        raise VersionError(
            f"cannot pull to {destination}",
            got=str(error),
            do="use a path, or install the fsspec package it names",
        ) from error
    return Remote(system, root)


class Folder:
    """A folder of this machine.

    Args:
        root: The folder.
        link: Hard links instead of copies, where the disk can.
    """

    def __init__(self, root: Path, *, link: bool) -> None:
        self.root = root
        self._link = link
        self._made: set[str] = set()

    def empty(self) -> bool:
        """Whether nothing is there."""
        try:
            return not any(self.root.iterdir())
        except FileNotFoundError:
            return True
        except NotADirectoryError as error:
            raise VersionError(f"{self.root} is a file", expected="a folder") from error

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        temporary = self._temporary(path)
        try:
            with open(temporary, "wb", buffering=0) as file:  # noqa: PTH123 - a tenth of the time for small files
                file.write(data)
            os.replace(temporary, f"{self.root}/{path}")  # noqa: PTH105 - likewise
        except BaseException:
            self._forget(temporary)
            raise

    def take(self, source: Path, digest: str, path: str) -> None:
        """Bring a picture, whose bytes must have the digest."""
        try:
            data = source.read_bytes()
        except FileNotFoundError as error:
            raise _gone(source) from error
        if digest_bytes(data) != digest:
            raise _altered(source)
        if not self._link or not self._linked(source, path):
            self.write(path, data)

    def _linked(self, source: Path, path: str) -> bool:
        temporary = self._temporary(path)
        try:
            os.link(source, temporary)
            os.replace(temporary, f"{self.root}/{path}")  # noqa: PTH105
        except OSError as error:
            self._forget(temporary)
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
                self._link = (
                    error.errno == errno.EMLINK
                )  # another disk, or one without links: copy from now on
                return False
            raise
        self._forget(temporary)  # renaming a link onto a link of the same file leaves both
        return True

    def _temporary(self, path: str) -> str:
        folder, _, name = f"{self.root}/{path}".rpartition("/")
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            self._made.add(folder)
        return f"{folder}/{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{name[-100:]}"

    @staticmethod
    def _forget(temporary: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108

    def stamp(self, path: str) -> Stamp | None:
        """The file's stamp, or None where there is none."""
        try:
            status = os.stat(f"{self.root}/{path}")  # noqa: PTH116
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def digest(self, path: str) -> str | None:
        """SHA-256 of the file's bytes, or None where there is none."""
        try:
            return digest_file(self.root / path)
        except OSError:
            return None

    def remove(self, path: str) -> None:
        """Remove a file if it is there, and its folder if that is empty then."""
        target = self.root / path
        target.unlink(missing_ok=True)
        for folder in target.parents:
            if folder == self.root:
                break
            try:
                folder.rmdir()
            except OSError:
                break
        self._made.clear()


class Remote:
    """Anything that fsspec reaches.

    Args:
        system: The file system.
        root: The folder on it.
    """

    def __init__(self, system: Any, root: str) -> None:
        self.system = system
        self.root = root.rstrip("/")

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def empty(self) -> bool:
        """Whether nothing is there."""
        try:
            return not self.system.ls(self.root, detail=False)
        except FileNotFoundError:
            return True

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None."""
        try:
            return bytes(self.system.cat_file(self._at(path)))
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Write a file; object stores show it whole or not at all."""
        target = self._at(path)
        self.system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(target, data)
        if self.system.size(target) != len(data):
            raise WorkspaceError(f"{target} did not arrive whole", do="pull again")

    def take(self, source: Path, digest: str, path: str) -> None:
        """Bring a picture, whose bytes must have the digest."""
        try:
            data = source.read_bytes()
        except FileNotFoundError as error:
            raise _gone(source) from error
        if digest_bytes(data) != digest:
            raise _altered(source)
        self.write(path, data)

    def stamp(self, path: str) -> Stamp | None:
        """The file's size, or None where there is none."""
        try:
            return int(self.system.size(self._at(path))), 0
        except FileNotFoundError:
            return None

    def digest(self, path: str) -> str | None:
        """SHA-256 of the file's bytes, or None where there is none."""
        data = self.read(path)
        return None if data is None else digest_bytes(data)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            self.system.rm_file(self._at(path))


def explain_full(error: OSError, destination: str) -> WorkspaceError | None:
    """One line for a destination that is full or cannot be written; None for other errors."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return WorkspaceFullError(
            f"no space left in {destination}", do="free some space and pull again: what arrived is kept"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return WorkspaceError(
            f"cannot write in {destination}",
            got=os.strerror(error.errno).lower(),
            expected="a writable folder",
        )
    return None


def _altered(source: Path) -> VersionError:
    return VersionError(
        f"{source} was altered",
        expected="bytes with the digest that is its name",
        do="run labelmill verify, and restore the file from a copy",
    )


def _gone(source: Path) -> VersionError:
    return VersionError(f"{source} is gone", do="run labelmill verify, and restore the file from a copy")
