"""Packages that are imported in part, and what they are when somebody wants the whole."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from labelmill.imports import hidden, outline


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that writes down when its own code runs, and needs a module of its own for it."""
    name = "labelmill_outlined"
    folder = tmp_path / name
    folder.mkdir()
    ran = tmp_path / "ran"
    (folder / "__init__.py").write_text(
        f"import time\nwith open({str(ran)!r}, 'a') as ran: ran.write('.')\ntime.sleep(0.05)\n"
        f"from {name}.heavy import weight\n__version__ = '7'\n"
    )
    (folder / "heavy.py").write_text(f"from {name} import light\nweight = light.weight + 1\n")
    (folder / "light.py").write_text("weight = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]


def times_run(tmp_path: Path) -> int:
    ran = tmp_path / "ran"
    return len(ran.read_text()) if ran.exists() else 0


def test_a_module_is_imported_without_the_packages_code(package: str, tmp_path: Path) -> None:
    outline(package)
    assert importlib.import_module(f"{package}.heavy").weight == 2  # `from package import module` included
    assert not hasattr(sys.modules[package], "__wrapped__")  # as inspecting asks
    assert times_run(tmp_path) == 0


@pytest.mark.parametrize(("name", "value"), [("weight", 2), ("__version__", "7")])
def test_whoever_wants_more_gets_the_whole_package(
    package: str, tmp_path: Path, name: str, value: object
) -> None:
    outline(package)
    light = importlib.import_module(f"{package}.light")
    whole = importlib.import_module(package)
    assert getattr(whole, name) == value
    assert whole.light is light
    assert type(whole) is type(sys)
    with pytest.raises(AttributeError, match="has no attribute 'lihgt'"):
        _ = whole.lihgt
    outline(package)
    assert sys.modules[package] is whole
    assert times_run(tmp_path) == 1


def test_two_threads_want_it_at_once(package: str, tmp_path: Path) -> None:
    outline(package)
    both, found = Barrier(2), []

    def want() -> None:
        both.wait()
        found.append(sys.modules[package].weight)

    threads = [Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, times_run(tmp_path)) == ([2, 2], 1)


def test_a_package_that_fails_fails_each_time(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "light.py").unlink()
    outline(package)
    for _ in range(2):
        with pytest.raises(ImportError):
            _ = sys.modules[package].weight
    assert times_run(tmp_path) == 2


def test_what_is_not_installed_stays_so() -> None:
    outline("labelmill_nowhere")
    assert "labelmill_nowhere" not in sys.modules


def test_a_hidden_package_seems_not_installed(package: str) -> None:
    with hidden(package), pytest.raises(ImportError):
        importlib.import_module(package)
    assert importlib.import_module(package).weight == 2
    with hidden(package):  # too late
        assert importlib.import_module(package).weight == 2


def test_boxes_come_without_the_rest_of_supervision() -> None:
    """In a process of its own: here, anything may have been imported."""
    code = """
import sys
from labelmill.annotators.detections import detections_class
boxes = detections_class()
print([name for name in ("scipy", "requests", "pandas", "matplotlib") if name in sys.modules])
import supervision as sv
assert sv.Detections is boxes and sv.BoxAnnotator() and sv.__version__
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
