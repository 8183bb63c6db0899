"""Bringing a set to its place: incremental, verified, and able to go on after an interruption.

`pull.json` in the destination says which files are ours and what is in them. It is written
before the first file and after the last one; only then does it say `complete`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmill.datasets.media import MediaStore
from labelmill.datasets.versions.pull.choose import Item
from labelmill.datasets.versions.pull.places import Folder, Place, Stamp, explain_full
from labelmill.errors import VersionError, WorkspaceLockedError
from labelmill.files import digest_bytes

MARKER = "pull.json"
_LOCK = ".labelmill-pull.lock"
_AT_ONCE = 64


@dataclass(frozen=True)
class Transferred:
    """What a pull did.

    Attributes:
        written: Files brought or written.
        kept: Files that were there already.
        removed: Files of an earlier pull that the set no longer has.
        bytes: Written.
    """

    written: int
    kept: int
    removed: int
    bytes: int


def transfer(
    items: Iterable[Item],
    media: MediaStore,
    place: Place,
    about: dict[str, Any],
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Transferred:
    """Bring files to a place.

    Args:
        items: The set.
        media: Where pictures are.
        place: The destination: empty, or an earlier pull.
        about: What the marker says about the set.
        progress: Called with files done and their total.

    Raises:
        VersionError: The destination holds something else, or a picture is altered or gone.
        WorkspaceError: The destination is full or cannot be written.
    """
    name = str(getattr(place, "root", ""))
    try:
        with _held(place):
            return _transfer(items, media, place, about, progress)
    except OSError as error:
        if (line := explain_full(error, name)) is not None:
            raise line from error
        raise


def _transfer(
    items: Iterable[Item],
    media: MediaStore,
    place: Place,
    about: dict[str, Any],
    progress: Callable[[int, int, str], None],
) -> Transferred:
    known = _known(place, about)
    plan = _plan(items)
    files: dict[str, list[Any]] = {**known, **{path: [digest, None] for path, (_, digest) in plan.items()}}
    _write_marker(place, about, files, complete=False)
    sizes: list[int] = []

    def bring(path: str) -> tuple[str, Stamp | None, int]:
        item, digest = plan[path]
        old = known.get(path)
        stamp = place.stamp(path)
        if stamp is not None and old is not None and old[0] == digest:
            if old[1] == list(stamp) or place.digest(path) == digest:
                return path, stamp, -1
        elif stamp is not None and place.digest(path) == digest:
            return path, stamp, -1
        if item.media:
            place.take(media.path(item.media), item.media, path)
        else:
            place.write(path, item.data)
        stamp = place.stamp(path)
        return path, stamp, stamp[0] if stamp else 0

    kept = 0
    with _pool() as pool:
        for done, (path, stamp, size) in enumerate(_each(pool, bring, list(plan)), start=1):
            files[path][1] = stamp
            kept += size < 0
            sizes.append(max(size, 0))
            if done % 256 == 0 or done == len(plan):
                progress(done, len(plan), "files")
    stale = [path for path in known if path not in plan]
    for path in stale:
        place.remove(path)
        del files[path]
    _write_marker(place, about, files, complete=True)
    return Transferred(len(plan) - kept, kept, len(stale), sum(sizes))


def _known(place: Place, about: dict[str, Any]) -> dict[str, list[Any]]:
    """Files of an earlier pull of the same kind: path to digest and stamp."""
    marker = place.read(MARKER)
    if marker is None:
        if not place.empty():
            raise VersionError(
                f"{getattr(place, 'root', 'the destination')} holds something else",
                expected="an empty folder, or an earlier pull",
                do="name another folder",
            )
        return {}
    try:
        earlier = json.loads(marker)
        known = {str(path): [str(row[0]), row[1]] for path, row in earlier["files"].items()}
        kinds = [(_dataset(one), one.get("format")) for one in (earlier, about)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise VersionError(
            f"{MARKER} in the destination is damaged", do="remove the folder, and pull again"
        ) from error
    if kinds[0] != kinds[1]:
        (was, its), (now, ours) = kinds
        raise VersionError(
            f"{getattr(place, 'root', 'the destination')} holds another set",
            got=f"{was} as {its}",
            expected=f"an empty folder, or an earlier pull of {now} as {ours}",
            do="name another folder, or remove this one",
        )
    return known


def _dataset(about: dict[str, Any]) -> str:
    return str(about.get("version", "")).partition("@")[0]


def _plan(items: Iterable[Item]) -> dict[str, tuple[Item, str]]:
    plan: dict[str, tuple[Item, str]] = {}
    for item in items:
        if item.path in plan:
            raise ValueError(f"two files of the set are named {item.path}")
        plan[item.path] = item, item.media or digest_bytes(item.data)
    return plan


def _write_marker(
    place: Place, about: dict[str, Any], files: dict[str, list[Any]], *, complete: bool
) -> None:
    document = {**about, "complete": complete, "files": files}
    place.write(MARKER, json.dumps(document, ensure_ascii=False, sort_keys=True).encode())


@contextmanager
def _held(place: Place) -> Iterator[None]:
    """Keep a second pull out of a folder."""
    if not isinstance(place, Folder):
        yield
        return
    from filelock import FileLock, Timeout

    place.empty()  # says so if it is a file
    place.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.root.parent / f".{place.root.name}{_LOCK}", blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise WorkspaceLockedError(f"another pull writes to {place.root}", do="wait for it") from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 2)))


def _each(
    pool: ThreadPoolExecutor, work: Callable[[str], Any], paths: list[str]
) -> Iterator[tuple[str, Stamp | None, int]]:
    """Do some files per task: a task costs as much as a small file."""

    def batch(start: int) -> list[Any]:
        return [work(path) for path in paths[start : start + _AT_ONCE]]

    try:
        for results in pool.map(batch, range(0, len(paths), _AT_ONCE)):
            yield from results
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
