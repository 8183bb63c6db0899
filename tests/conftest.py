"""What every test shares: small generated footage, and the evaluation data where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.footage import write_video

from labelmill.annotators.review.server import LabelStudioServer
from labelmill.images import Image


@pytest.fixture(scope="session")
def data() -> Path:
    """The evaluation data that LABELMILL_DATA points to."""
    root = os.environ.get("LABELMILL_DATA")
    if not root:
        pytest.skip("LABELMILL_DATA is not set: this test needs the evaluation footage")
    return Path(root)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with a line file, a short video of a moving square, and templates."""
    return make_bench(tmp_path)


def make_bench(folder: Path, frames: int = 40) -> Path:
    """Write a whole small line: `line.yaml`, `clip.mp4`, `templates/`, `templates_ng/`."""
    write_video(folder / "clip.mp4", [moving_square(number) for number in range(frames)], fps=10)
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 60, 220))):
        save(folder / "templates" / name / "a.png", square(colour))
    save(folder / "templates_ng" / "grey.png", square((128, 128, 128)))
    (folder / "line.yaml").write_text(
        """
name: bench
sources: [{video: clip.mp4}]
selection: {repeats: false, shard_frames: 16}
proposer: {kind: motion}
encoder: {kind: hog}
templates: {folder: templates, ng: templates_ng}
"""
    )
    return folder


def moving_square(number: int, size_wh: tuple[int, int] = (160, 96)) -> Image:
    """A grey picture in which a red square moves 3 pixels a frame, after 10 still frames."""
    image = np.full((size_wh[1], size_wh[0], 3), 128, dtype=np.uint8)
    if number >= 10:
        left = 4 + 3 * (number - 10)
        image[30:60, left : left + 30] = (220, 40, 40)
    return image


def square(colour: tuple[int, int, int], side_px: int = 30) -> Image:
    """A crop of one colour."""
    return np.full((side_px, side_px, 3), colour, dtype=np.uint8)


def save(path: Path, image: Image) -> None:
    """Write a PNG, folders included."""
    from PIL import Image as Pillow

    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(image).save(path)


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A real Label Studio, one for all tests; its environment is made on first use and kept."""
    if kept := os.environ.get("LABELMILL_TEST_SERVICES"):  # one that runs already, while tests are written
        yield LabelStudioServer(Path(kept) / "label-studio")
        return
    server = LabelStudioServer(tmp_path_factory.mktemp("services") / "label-studio")
    try:
        server.up()
        yield server
    finally:
        server.down()
