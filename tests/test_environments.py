from __future__ import annotations

import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from labelmill import environments
from labelmill.environments import ensure_environment, locate, names, root
from labelmill.errors import ServiceError

pytest.importorskip("uv")


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for lock files, one for environments, and one wheel to install from, without a network."""
    folder, wheels = tmp_path / "locks", tmp_path / "wheels"
    folder.mkdir()
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "gadget-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("gadget.py", "SIZE = 3\n")
        wheel.writestr("gadget-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: gadget\nVersion: 1.0\n")
        wheel.writestr(
            "gadget-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("gadget-1.0.dist-info/RECORD", "")
    monkeypatch.setattr(environments, "LOCKS", folder)
    monkeypatch.setenv("LABELMILL_ENVIRONMENTS", str(tmp_path / "environments"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    (folder / "tools.lock").write_text("gadget==1.0\n")
    return folder


def run(environment: environments.Environment, program: str) -> str:
    command = [str(environment.python), "-c", program]
    return subprocess.run(
        command, env=environment.variables(), check=True, capture_output=True, text=True
    ).stdout.strip()


def test_is_made_once_from_its_list(locks: Path) -> None:
    assert not locate("tools").whole
    lines: list[str] = []
    environment = ensure_environment("tools", lines.append)
    assert run(environment, "import gadget; print(gadget.SIZE)") == "3"
    assert any("making the tools environment" in line for line in lines)
    assert not any("gadget==1.0" in line for line in lines)  # the larger ones have a hundred and more
    again: list[str] = []
    assert ensure_environment("tools", again.append) == environment
    assert again == []


def test_another_list_makes_another_environment(locks: Path) -> None:
    first = ensure_environment("tools")
    (locks / "tools.lock").write_text("# nothing\n")
    second = ensure_environment("tools")
    assert second.folder != first.folder
    assert first.whole
    with pytest.raises(subprocess.CalledProcessError):
        run(second, "import gadget")


def test_an_unfinished_one_is_made_anew(locks: Path) -> None:
    half = locate("tools")
    (half.folder / "bin").mkdir(parents=True)
    (half.folder / "junk").touch()
    environment = ensure_environment("tools")
    assert environment.whole
    assert not (environment.folder / "junk").exists()


def test_two_creators_make_one(locks: Path) -> None:
    lines: list[str] = []
    threads = [threading.Thread(target=ensure_environment, args=("tools", lines.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("making the tools environment" in line for line in lines) == 1
    assert locate("tools").whole


def test_nothing_of_ours_shows_through(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(locks))
    environment = ensure_environment("tools")
    assert run(environment, "import importlib.util as u; print(u.find_spec('numpy'))") == "None"
    assert run(environment, f"import sys; print({str(locks)!r} in sys.path)") == "False"
    assert run(environment, "import sys; print(sys.version_info[:2])") == str(sys.version_info[:2])


def test_what_cannot_be_installed_is_one_line_and_leaves_no_stamp(locks: Path) -> None:
    (locks / "tools.lock").write_text("no-such-gadget==9\n")
    with pytest.raises(ServiceError, match=r"tools environment cannot .*no-such-gadget") as caught:
        ensure_environment("tools")
    assert "\n" not in str(caught.value)
    assert not locate("tools").whole


def test_an_unknown_name_lists_the_known(locks: Path) -> None:
    with pytest.raises(ServiceError, match=r"did you mean 'tools'\? known: tools"):
        ensure_environment("tool")


def test_folders_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABELMILL_ENVIRONMENTS", str(tmp_path / "mine"))
    assert root() == tmp_path / "mine"
    monkeypatch.delenv("LABELMILL_ENVIRONMENTS")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert root() == tmp_path / "labelmill" / "environments"


def test_shipped_lists_hold_names_and_versions_only() -> None:
    for name in names():
        for line in (environments.LOCKS / f"{name}.lock").read_text().splitlines():
            assert re.fullmatch(r"#.*|[a-z0-9.-]+(\[[a-z,]+\])?==[0-9][\w.+!]*( ; .+)?", line), line
            assert "://" not in line


def test_as_a_command(
    locks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["environments", "tools"])
    assert environments._main() == 0
    assert f"tools: {locate('tools').folder}" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["environments", "tool"])
    assert environments._main() == 2
    assert "did you mean 'tools'" in capsys.readouterr().err
