from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelmill.errors import WorkspaceError, WorkspaceFullError
from labelmill.files import (
    digest_bytes,
    digest_file,
    digest_text,
    disk_errors,
    replacing,
    sweep_temporary,
    write_bytes,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_a_digest_is_what_sha256sum_prints(tmp_path: Path, size: int) -> None:
    data = bytes(size)
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert digest_file(tmp_path / "f") == expected
    assert digest_bytes(data) == expected


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_no_two_lists_of_texts_share_a_digest(a: list[str], b: list[str]) -> None:
    assert (digest_text(*a) == digest_text(*b)) == (a == b)


def test_names_that_are_no_utf8_have_a_digest() -> None:
    assert digest_text(os.fsdecode(b"\xff.jpg")) != digest_text(os.fsdecode(b"\xfe.jpg"))


def test_a_file_is_written_whole_and_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "f.bin"
    write_bytes(target, b"one")
    assert target.read_bytes() == b"one"
    write_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert names(target.parent) == ["f.bin"]


def test_a_failed_write_leaves_the_old_bytes_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "f"
    write_bytes(target, b"old")

    def attempt() -> None:
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            assert temporary.parent == tmp_path  # the same file system, so that the move is atomic
            assert target.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_the_bytes_reach_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(number: int) -> None:
        seen.append("fsync")
        fsync(number)

    def seen_replace(source: Path, target: Path) -> Path:
        seen.append("replace")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    write_bytes(tmp_path / "f", b"x")
    assert seen == ["fsync", "replace"]


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, WorkspaceFullError, "no space left in /w; free some space"),
        (errno.EDQUOT, WorkspaceFullError, "no space left in /w"),
        (errno.EFBIG, WorkspaceFullError, "no space left in /w"),
        (errno.EROFS, WorkspaceError, "cannot work in /w, got read-only file system"),
        (errno.EACCES, WorkspaceError, "cannot work in /w, got permission denied"),
        (errno.EPERM, WorkspaceError, "cannot work in /w, got operation not permitted"),
        (errno.EIO, WorkspaceError, "cannot work in /w, got input/output error"),
        (errno.ENAMETOOLONG, WorkspaceError, "cannot work in /w, got file name too long"),
    ],
)
def test_what_the_disk_refuses_is_one_line(number: int, kind: type[WorkspaceError], said: str) -> None:
    with pytest.raises(kind) as caught, disk_errors(Path("/w")):
        raise OSError(number, "words of the library")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), disk_errors(Path("/w")):
        raise ZeroDivisionError
    with pytest.raises(WorkspaceFullError, match="inner"), disk_errors(Path("/outer")):
        raise WorkspaceFullError("inner")


def test_sweeping_takes_killed_writers_files_and_no_others(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "f.parquet"

    def killed() -> Iterator[None]:
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            left.append(temporary)
            yield

    left: list[Path] = []
    writer = killed()
    next(writer)
    ours = left[0].with_name(left[0].name.replace("-f.parquet", "-g.parquet"))
    ours.write_bytes(b"half")
    theirs = [tmp_path / ".tmp-notes", tmp_path / ".tmp-1-abc-x", tmp_path / "tmp-12-0123abcd-f"]
    for path in theirs:
        path.write_bytes(b"mine")
    (tmp_path / ".tmp-9-0123abcd-folder").mkdir()
    assert sweep_temporary(tmp_path) == 2
    assert all(path.exists() for path in theirs)
    assert names(target.parent) == []
