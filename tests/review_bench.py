"""A small line whose every crop goes to people, with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tests.conftest import save

from labelmill.images import Image

CLASSES = ("bar", "disc", "nut & bolt <M6>")
"""The last one has every sign that XML and HTML would trip over."""

_CELL_PX = 64


def make_review_line(folder: Path, images: int, *, review: str = "{}", seed: int = 0) -> Path:
    """Write `line.yaml`, `images/`, `labels/` and `templates/`: four crops an image.

    Returns:
        The line file.
    """
    rng = np.random.default_rng(seed)
    (folder / "labels").mkdir(parents=True)
    for number in range(images):
        kinds = rng.integers(0, len(CLASSES), 4).tolist()
        save(folder / "images" / f"{number:04}.png", scene(kinds, rng))
        side = 0.5 - 2 / _CELL_PX
        rows = [
            f"{kind} {(place % 2 + 0.5) / 2} {(place // 2 + 0.5) / 2} {side} {side}"
            for place, kind in enumerate(kinds)
        ]
        (folder / "labels" / f"{number:04}.txt").write_text("\n".join(rows) + "\n")
    for kind, name in enumerate(CLASSES):
        for copy in range(2):
            save(folder / "templates" / name / f"{copy}.png", part(kind, rng))
    names = ", ".join(f'"{name}"' for name in CLASSES)
    line = folder / "line.yaml"
    line.write_text(
        f"""
name: review-test
sources: [{{images: images}}]
selection: {{repeats: false}}
proposer: {{kind: boxes, labels: labels, names: [{names}]}}
encoder: {{kind: hog}}
templates: {{folder: templates}}
matching: {{lambda: 0.3, margin: 2}}
review: {review}
"""
    )
    return line


def scene(kinds: Sequence[int], rng: np.random.Generator) -> Image:
    """Four parts in a square."""
    cells = [part(kind, rng) for kind in kinds]
    return np.vstack([np.hstack(cells[:2]), np.hstack(cells[2:])])


def part(kind: int, rng: np.random.Generator) -> Image:
    """A drawn part of one kind, never twice the same."""
    image = rng.integers(60, 110, (_CELL_PX, _CELL_PX, 3)).astype(np.uint8)
    colour = tuple(int(value) for value in rng.integers(150, 255, 3))
    x, y = (int(value) for value in rng.integers(26, 38, 2))
    size = int(rng.integers(12, 20))
    if kind == 0:
        cv2.rectangle(image, (x - size, y - 5), (x + size, y + 5), colour, -1)
    elif kind == 1:
        cv2.circle(image, (x, y), size, colour, -1)
    else:
        turn = float(rng.uniform(0, 1))
        angles = turn + np.arange(6) * np.pi / 3
        corners = np.stack([x + size * np.cos(angles), y + size * np.sin(angles)], axis=1).astype(np.int32)
        cv2.fillPoly(image, [corners], colour)
        cv2.circle(image, (x, y), size // 3, (40, 40, 40), -1)
    return image
