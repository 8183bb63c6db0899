"""Bytes on disk: digests, and writes that are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labelmill.errors import WorkspaceError, WorkspaceFullError

TEMPORARY_PREFIX = ".tmp-"
_TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}-.")
_CHUNK_BYTES = 1 << 20


def digest_bytes(data: bytes) -> str:
    """SHA-256 of some bytes, 64 hex digits: what `sha256sum` prints."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits: what `sha256sum` prints."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_text(*parts: str, hex_digits: int = 64) -> str:
    """SHA-256 of some strings, so joined that no two lists of parts give the same text."""
    digest = hashlib.sha256()
    for part in parts:
        # File names that are no UTF-8 come as surrogates.
        data = part.encode(errors="surrogateescape")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:hex_digits]


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn the disk's refusals into one clear line.

    Args:
        root: The workspace or folder that the message names.

    Raises:
        WorkspaceFullError: No space or quota is left.
        WorkspaceError: The disk is read-only, permission is denied, or it refuses otherwise.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise WorkspaceFullError(
                f"no space left in {root}",
                do="free some space, or name another --workspace, and run again: finished shards are kept",
            ) from error
        raise WorkspaceError(
            f"cannot work in {root}",
            got=os.strerror(error.errno).lower() if error.errno else str(error),
            expected="a folder that can be read and written",
            do="name another with --workspace or --out",
        ) from error


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`, and move it there when the block ends well.

    The bytes reach the disk before the name does, so that whoever finds the name may trust the content,
    also after a kill or a power cut. On an exception the temporary file is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(target: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(target) as temporary:
        temporary.write_bytes(data)


def sweep_temporary(root: Path) -> int:
    """Remove what killed writers left behind below `root`; only under the workspace's lock.

    Returns:
        How many files were removed.
    """
    # The whole pattern: a workspace may have been put into a folder with files of its own.
    leftovers = [
        path for path in root.rglob(f"{TEMPORARY_PREFIX}*") if _TEMPORARY.match(path.name) and path.is_file()
    ]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
