from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labelmill.datasets.workspace import Workspace
from labelmill.errors import WorkspaceError, WorkspaceFullError, WorkspaceLockedError

HOLD = """
import sys, time
from pathlib import Path
from labelmill.datasets.workspace import Workspace
with Workspace(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "deep" / "w")


def holder(root: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


def test_opening_makes_the_folder_and_its_mark(place: Workspace) -> None:
    place.open()
    assert (place.root / "labelmill.json").read_text() == '{"format": 1}'
    place.open()


def test_a_path_keeps_its_links_and_loses_its_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert Workspace(Path("link/../link/w")).root == tmp_path / "link" / "w"


def test_a_second_process_gets_one_clear_line(place: Workspace) -> None:
    process = holder(place.root)
    try:
        with pytest.raises(WorkspaceLockedError) as caught, place.lock():
            pass
        message = str(caught.value)
        assert message.startswith(f"workspace {place.root} is in use, got process {process.pid} on ")
        assert message.endswith("wait for that run, stop it, or name another --workspace")
        assert "\n" not in message
    finally:
        end(process)


def test_a_killed_holder_frees_the_lock(place: Workspace) -> None:
    end(holder(place.root))
    assert (place.root / "lock.holder").exists()  # it could not clear up
    started = time.monotonic()
    with place.lock():
        assert f"process {os.getpid()} " in (place.root / "lock.holder").read_text()
    assert time.monotonic() - started < 2
    assert not (place.root / "lock.holder").exists()


def test_the_lock_is_let_go_of_after_an_error(place: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), place.lock():
        raise ZeroDivisionError
    with place.lock():
        pass


def test_one_process_holds_it_once(place: Workspace) -> None:
    with place.lock(), pytest.raises(WorkspaceLockedError), Workspace(place.root).lock():
        pass


def test_what_killed_writers_left_is_swept(place: Workspace) -> None:
    place.open()
    left = place.root / "shards" / "select" / ".tmp-4711-0a1b2c3d-x.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    kept = place.root / "media" / "ab" / "x.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"whole")
    with place.lock():
        assert not left.exists()
        assert kept.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", "\x00"])
def test_a_damaged_mark(place: Workspace, text: str) -> None:
    place.open()
    (place.root / "labelmill.json").write_text(text)
    with pytest.raises(
        WorkspaceError, match=r'labelmill\.json is damaged, expected \{"format": 1\}; restore it'
    ):
        place.open()


def test_a_workspace_of_another_format(place: Workspace) -> None:
    place.open()
    (place.root / "labelmill.json").write_text('{"format": 99}')
    with pytest.raises(WorkspaceError, match="has another format, got 99, expected 1"), place.lock():
        pass
    assert not (place.root / "lock").exists()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("mine")
    for root in (tmp_path / "w", tmp_path / "w" / "below"):
        with pytest.raises(WorkspaceError, match="is not a folder"):
            Workspace(root).open()
    assert (tmp_path / "w").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, WorkspaceFullError, "no space left in"),
        (errno.EROFS, WorkspaceError, "read-only file system"),
        (errno.EACCES, WorkspaceError, "permission denied"),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "write_bytes"])
def test_a_disk_that_refuses(
    place: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[WorkspaceError],
    said: str,
    call: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(kind, match=said), place.lock():
        pass


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="file name too long"), Workspace(tmp_path / ("x" * 300)).lock():
        pass
