from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from tests.footage import numbered, write_video

from labelmill.datasets import catalogue as module
from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.sources.config import SourceConfig
from labelmill.datasets.sources.footage import open_footage
from labelmill.datasets.sources.video import VideoIndex, index_video
from labelmill.errors import WorkspaceError, WorkspaceFullError
from labelmill.files import digest_file


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes were read."""
    seen: list[str] = []

    def counting(path: Path) -> str:
        seen.append(path.name)
        return digest_file(path)

    monkeypatch.setattr(module, "digest_file", counting)
    return seen


def test_bytes_are_read_once_while_a_file_stays_the_same(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    for _ in range(2):
        with Catalogue(tmp_path / "d.sqlite") as catalogue:
            assert catalogue.digest(file) == digest_file(file)
    assert reads == ["a.bin"]
    file.write_bytes(b"two")
    with Catalogue(tmp_path / "d.sqlite") as catalogue:
        assert catalogue.digest(file) == digest_file(file)
    assert reads == ["a.bin", "a.bin"]


def test_a_file_put_in_anothers_place_is_read(tmp_path: Path, reads: list[str]) -> None:
    """The same size and time: only the inode tells."""
    file, other = tmp_path / "a.bin", tmp_path / "b.bin"
    file.write_bytes(b"one")
    other.write_bytes(b"two")
    with Catalogue(tmp_path / "d.sqlite") as catalogue:
        first = catalogue.digest(file)
        stat = file.stat()
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(file)
        assert file.stat().st_mtime_ns == stat.st_mtime_ns
        assert catalogue.digest(file) != first
    assert reads == ["a.bin", "a.bin"]


def test_a_folders_digest_follows_names_and_bytes(tmp_path: Path) -> None:
    def folder(**files: bytes) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        with Catalogue(":memory:") as catalogue:
            return catalogue.digest(root)

    base = folder(a=b"1", b=b"2")
    assert folder(a=b"1", b=b"2") == base
    assert folder(b=b"2", a=b"1") == base
    assert folder(a=b"2", b=b"1") != base
    assert folder(a=b"1", c=b"2") != base
    assert folder(a=b"1") != base


def test_a_video_is_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", map(numbered, range(20)), options={"g": "5"})
    seen: list[Path] = []

    def counting(path: Path) -> VideoIndex:
        seen.append(path)
        return index_video(path)

    monkeypatch.setattr(module, "index_video", counting)
    indices = []
    for _ in range(2):
        with Catalogue(tmp_path / "d.sqlite") as catalogue:
            indices.append(catalogue.video_index(path, catalogue.digest(path)))
    assert seen == [path]
    first, second = indices
    np.testing.assert_array_equal(first.pts, second.pts)
    np.testing.assert_array_equal(first.keys, second.keys)
    assert second.keys is not None
    assert len(second.keys) == 4
    assert (first.time_base_s, first.problem) == (second.time_base_s, second.problem)


def test_a_video_without_times_is_remembered_as_such(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", map(numbered, range(20)), codec="mpeg4", options={"bf": "2"})
    for _ in range(2):
        with Catalogue(tmp_path / "d.sqlite") as catalogue:
            assert catalogue.video_index(path, catalogue.digest(path)).keys is None


@pytest.mark.parametrize("data", [b"", b"I am no database, but long enough to look like one" * 100])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, data: bytes, reads: list[str]) -> None:
    file, path = tmp_path / "a.bin", tmp_path / "d.sqlite"
    file.write_bytes(b"one")
    path.write_bytes(data)
    for _ in range(2):
        with Catalogue(path) as catalogue:
            assert catalogue.digest(file) == digest_file(file)
    assert reads == ["a.bin"]


def test_damage_found_later_is_mended_too(tmp_path: Path) -> None:
    """The header stands, a page within does not."""
    path = tmp_path / "d.sqlite"
    files = [tmp_path / f"{number}.bin" for number in range(300)]
    for file in files:
        file.write_bytes(file.name.encode())
    with Catalogue(path) as catalogue:
        digests = [catalogue.digest(file) for file in files]
    data = bytearray(path.read_bytes())
    assert len(data) > 5 * 4096
    data[4096 * 2 :] = b"\xa5" * (len(data) - 4096 * 2)
    path.write_bytes(data)
    for _ in range(2):
        with Catalogue(path) as catalogue:
            assert [catalogue.digest(file) for file in files] == digests


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (sqlite3.SQLITE_FULL, WorkspaceFullError, "no space left in"),
        (sqlite3.SQLITE_READONLY, WorkspaceError, "read-only file system"),
        (sqlite3.SQLITE_CANTOPEN, WorkspaceError, "permission denied"),
        (sqlite3.SQLITE_IOERR_WRITE, WorkspaceError, "input/output error"),
    ],
)
def test_what_the_disk_refuses_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[WorkspaceError], said: str
) -> None:
    def refuse(*_: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("words")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(Catalogue, "_connect", refuse)
    with pytest.raises(kind, match=said):
        Catalogue(tmp_path / "d.sqlite")


def test_a_refusing_disk_is_no_unreadable_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must end the run, not send good footage to the quarantine."""
    write_video(tmp_path / "a.mp4", map(numbered, range(5)))
    with Catalogue(tmp_path / "d.sqlite") as catalogue:

        def full(*_: object) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        class Full:
            in_transaction = False
            execute = commit = staticmethod(full)
            close = staticmethod(lambda: None)

        catalogue.close()
        monkeypatch.setattr(catalogue, "_db", Full())
        with pytest.raises(WorkspaceFullError):
            open_footage([SourceConfig(video=tmp_path / "a.mp4")], catalogue, tmp_path)


def test_file_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    odd = folder / os.fsdecode(b"caf\xe9.png")
    odd.write_bytes(b"not really")
    with Catalogue(tmp_path / "d.sqlite") as catalogue:
        assert catalogue.digest(odd) == digest_file(odd)
        assert len(catalogue.digest(folder)) == 64
        footage, _ = open_footage([SourceConfig(images=folder)], catalogue, tmp_path)
    (ref,) = footage[0].slice([0]).refs
    assert ref.source == "images/caf\ufffd.png"
