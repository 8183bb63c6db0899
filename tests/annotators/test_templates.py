from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.conftest import save, square

from labelmill.annotators.config import MatchingConfig, TemplatesConfig
from labelmill.annotators.similarity import unit_rows
from labelmill.annotators.templates import (
    LAMBDA_WITHOUT_EVIDENCE,
    TemplateBank,
    TemplateFiles,
    check_space,
    find_templates,
    read_templates,
    suggest_lambda,
    suggest_review_floor,
)
from labelmill.errors import TemplateError


def found(folder: Path, ng: Path | None = None) -> tuple[tuple[str, ...], list[str], tuple[int, ...]]:
    files = find_templates(TemplatesConfig(folder=folder, ng=ng))
    return files.classes, [path.relative_to(folder.parent).as_posix() for path in files.paths], files.owners


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("t/b/2.png", "t/b/1.png", "t/a/x/deep.png", "ng/n.png", "ng/more/m.png"):
        save(tmp_path / name, square((9, 9, 9), 4))
    (tmp_path / "t" / "README.md").write_text("not a class")
    (tmp_path / "t" / ".cache").mkdir()
    return tmp_path / "t"


def test_a_sub_folder_is_a_class(folder: Path) -> None:
    assert found(folder) == (("a", "b"), ["t/a/x/deep.png", "t/b/1.png", "t/b/2.png"], (0, 1, 1))


def test_ng_examples_belong_to_no_class(folder: Path) -> None:
    classes, paths, owners = found(folder, folder.parent / "ng")
    assert classes == ("a", "b")
    assert paths[3:] == ["ng/more/m.png", "ng/n.png"]
    assert owners == (0, 1, 1, -1, -1)


def test_a_class_without_images(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "notes.txt").write_text("soon")
    with pytest.raises(
        TemplateError, match=r"class 'c' has no images, got an empty folder .* put some crops"
    ):
        found(folder)


def test_no_class_at_all(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"no class in .*, expected one sub-folder of images per class"):
        found(tmp_path)
    with pytest.raises(TemplateError, match=r"no template folder .*gone"):
        found(tmp_path / "gone")


def test_ng_without_images(folder: Path) -> None:
    (folder.parent / "none").mkdir()
    with pytest.raises(TemplateError, match=r"no image in .*none, expected NG examples"):
        found(folder, folder.parent / "none")
    with pytest.raises(TemplateError, match=r"no folder .*gone, expected a folder of NG examples"):
        found(folder, folder.parent / "gone")


def test_a_template_that_is_no_image(folder: Path) -> None:
    (folder / "a" / "bad.jpg").write_bytes(b"")
    files = find_templates(TemplatesConfig(folder=folder))
    with pytest.raises(
        TemplateError, match=r"template .*bad\.jpg cannot be read, got the file is empty; replace"
    ):
        read_templates(files)


def on_circle(owners: list[int], degrees: list[float], classes: int = 2) -> TemplateBank:
    """Templates as directions in the plane: the similarity of two is the cosine of the angle between."""
    angles = np.radians(degrees)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return TemplateBank(tuple("abc"[:classes]), unit_rows(rows), np.array(owners, dtype=np.int64))


def cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))


@pytest.mark.parametrize(
    ("owners", "degrees", "expected"),
    [
        # Right: cos 10 (a), cos 20 (b). Wrong, each class being NG to the other: cos 80 at most.
        ([0, 0, 1, 1], [0, 10, 90, 110], (cos(20) + cos(80)) / 2),
        # With NG templates they alone are wrong: at 45 degrees from both classes.
        ([0, 0, 1, 1, -1], [0, 10, 90, 110, 50], (cos(20) + cos(40)) / 2),
        # One template a class: nothing right to measure; half way from the worst wrong to 1.
        ([0, 1], [0, 60], (1 + cos(60)) / 2),
        ([0, -1], [0, 60], (1 + cos(60)) / 2),
        # One class, several templates, no NG: as far below the worst right as that is below 1, halved.
        ([0, 0], [0, 60], cos(60) - (1 - cos(60)) / 2),
        # A class of one beside a class of two: the two measure what is right.
        ([0, 0, 1], [0, 10, 90], (cos(10) + cos(80)) / 2),
        # Nothing to measure from.
        ([0], [0], LAMBDA_WITHOUT_EVIDENCE),
        # Not separable: right is cos 40 twice, wrong are cos 20 and cos 60; between cos 60 and cos 40 one of
        # the four errs, elsewhere two or more.
        ([0, 0, -1, -1], [0, 40, 60, 100], (cos(60) + cos(40)) / 2),
    ],
)
def test_lambda_from_templates(owners: list[int], degrees: list[float], expected: float) -> None:
    classes = max(owners) + 1
    assert suggest_lambda(on_circle(owners, degrees, classes)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("owners", "degrees", "expected"),
    [
        ([0, 1], [0, 60], cos(60)),
        # The least of what each template is to the nearest other class: cos 60, cos 40 and cos 40.
        ([0, 1, 2], [0, 60, 100], cos(60)),
        # With NG templates they alone are wrong.
        ([0, 1, -1, -1], [0, 20, 60, 110], cos(90)),
        # Nothing is known to be wrong: nothing is NG.
        ([0], [0], -1),
        # Two templates of one class show what is right.
        ([0, 0, 1], [0, 10, 90], None),
    ],
)
def test_what_goes_to_people_when_nothing_shows_a_right_match(
    owners: list[int], degrees: list[float], expected: float | None
) -> None:
    found = suggest_review_floor(on_circle(owners, degrees, max(owners) + 1))
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-6))


@given(
    arrays(np.float32, (7, 4), elements=st.floats(-1, 1, width=32)),
    st.lists(st.integers(-1, 2), min_size=7, max_size=7),
)
def test_lambda_is_always_a_cosine(rows: np.ndarray, owners: list[int]) -> None:
    bank = TemplateBank(("a", "b", "c"), unit_rows(rows), np.array(owners, dtype=np.int64))
    assert -1 <= suggest_lambda(bank) <= 1


def test_the_background_comes_last_and_is_no_class(folder: Path) -> None:
    save(folder.parent / "crops" / "1.png", square((9, 9, 9), 4))
    files = find_templates(
        TemplatesConfig(folder=folder, ng=folder.parent / "ng", background=folder.parent / "crops")
    )
    assert files.classes == ("a", "b")
    assert files.owners == (0, 1, 1, -1, -1, -2)
    assert files.paths[-1].name == "1.png"
    (folder.parent / "none").mkdir()
    for name, message in (("none", "no image in"), ("gone", "no folder")):
        with pytest.raises(
            TemplateError, match=rf"{message} .*{name}, expected .*unlabelled crops of the line"
        ):
            find_templates(TemplatesConfig(folder=folder, background=folder.parent / name))


@pytest.mark.parametrize("space", ["centred", "discriminant"])
def test_one_class_cannot_be_centred(space: Literal["centred", "discriminant"]) -> None:
    one, two = (TemplateFiles(classes, (), ()) for classes in (("a",), ("a", "b")))
    with pytest.raises(TemplateError, match=r"got one class, expected two .* write `space: whitened`"):
        check_space(one, MatchingConfig(space=space))
    check_space(two, MatchingConfig(space=space))
    check_space(one, MatchingConfig())
