"""The house stands as designed: rooms without __init__.py, imports one way, a light command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "labelmill"
ROOMS = ("flows", "training", "datasets", "annotators")
"""From the top down: a room may import those after it."""
ABOVE = {"__main__", "cli", "line", "verbs"}
ONE_MODULE_ONLY = {
    "fiftyone": "datasets/fiftyone_window.py",
    "label_studio_sdk": "annotators/review/client.py",
    "lavis": "annotators/encoders/lavis_worker.py",  # which runs in another environment
}
HEAVY = (
    "torch",
    "fiftyone",
    "prefect",
    "cv2",
    "pyarrow",
    "supervision",
    "transformers",
    "pandas",
    "matplotlib",
)


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, type checking aside."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_links_without_init(room: str) -> None:
    link = ROOT / room
    assert link.is_symlink()
    assert link.readlink() == Path("src/labelmill") / room
    assert not (SOURCE / room / "__init__.py").exists()


def test_imports_point_one_way() -> None:
    wrong = []
    for path in modules():
        place = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if place in ABOVE:
            continue
        allowed = ROOMS[ROOMS.index(place) :] if place in ROOMS else ()
        # The flows wire whole lines.
        upper = {"line"} if place == "flows" else set()
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "labelmill" and len(parts) > 1:
                target = parts[1]
                if (target in ROOMS and target not in allowed) or target in ABOVE - upper:
                    wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert wrong == []


def test_frameworks_stay_in_their_rooms() -> None:
    wrong = []
    for path in modules():
        place = path.relative_to(SOURCE).as_posix()
        tops = {name.split(".")[0] for name in imported(path)}
        if any(top.startswith("prefect") for top in tops) and not place.startswith("flows/"):
            wrong.append(f"{place} imports prefect")
        for package, home in ONE_MODULE_ONLY.items():
            if package in tops and place != home:
                wrong.append(f"{place} imports {package}")
        if "groundingdino" in tops and not place.startswith("annotators/proposers/groundingdino_py"):
            wrong.append(f"{place} imports groundingdino")
    assert wrong == []


def test_hugging_face_datasets_is_not_shadowed() -> None:
    code = "import datasets, transformers; print(datasets.__version__, datasets.Dataset.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "Dataset"


def test_command_line_imports_nothing_heavy_and_quickly() -> None:
    code = (
        "import sys, time; started = time.process_time(); import labelmill.cli; "
        f"spent = time.process_time() - started; print(spent, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    best = min(
        (
            subprocess.run(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env={"PYTHONPATH": str(SOURCE.parent), "PATH": ""},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for _ in range(3)
        ),
        key=lambda text: float(text.split()[0]),
    )
    seconds, heavy = best.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 0.5


def test_lock_names_no_index_and_no_path() -> None:
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        requirement = line.split(";")[0].strip()
        assert requirement.count("==") == 1, line
        assert "://" not in line, line
        assert "@" not in line, line


def test_every_bound_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    section = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    unexplained = [
        line.strip()
        for line in section.splitlines()
        if line.strip().startswith('"')
        and any(sign in line for sign in ("==", ">=", "<"))
        and "#" not in line
    ]
    plain = [line for line in unexplained if line.split(">=")[0].strip('" ,') not in PLAIN_FLOORS]
    assert plain == []


PLAIN_FLOORS = {
    "pyyaml", "safetensors", "accelerate", "scikit-learn", "onnxruntime", "openvino", "hypothesis", "mypy",
    "pytest", "pytest-timeout", "ruff",
}  # fmt: skip
"""Floors that are the release this was written with."""
