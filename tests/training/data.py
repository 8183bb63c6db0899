"""Tiny pulled versions, drawn: discs and stripes for classifiers, red and blue boxes for detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from labelmill.images import Image

SHAPES = ("disc", "stripe")
BACKBONE = "test_vit"
"""timm's own toy: 64 wide, made for tests."""


def draw(name: str, random: np.random.Generator, side_px: int = 32) -> Image:
    """A noisy grey crop; a disc or a stripe on it, nothing for NG."""
    image = random.integers(60, 120, (side_px, side_px, 3)).astype(np.uint8)
    y, x = np.mgrid[:side_px, :side_px]
    if name == "disc":
        image[(x - side_px // 2) ** 2 + (y - side_px // 2) ** 2 < (side_px // 4) ** 2] = (220, 40, 40)
    elif name == "stripe":
        image[side_px // 3 : side_px // 2] = (40, 220, 40)
    return image


def write_crops(root: Path, counts: Mapping[str, Mapping[str, int]] | None = None, seed: int = 0) -> Path:
    """Write an image folder.

    Args:
        root: The folder.
        counts: Crops by split and class; 16 and 8 of each shape without it.
        seed: Of the noise.
    """
    random = np.random.default_rng(seed)
    default = {"train": dict.fromkeys(SHAPES, 16), "val": dict.fromkeys(SHAPES, 8)}
    for split, classes in (counts or default).items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Pillow.fromarray(draw(name, random)).save(folder / f"{number:03}.png")
    return root


def write_boxes(
    root: Path, counts: Mapping[str, int] | None = None, names: Sequence[str] = ("red", "blue")
) -> Path:
    """Write a YOLO folder: 96 by 64 pixels, one or two filled boxes each."""
    random = np.random.default_rng(0)
    for split, count in (counts or {"train": 16, "val": 6}).items():
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = random.integers(60, 120, (64, 96, 3)).astype(np.uint8)
            lines = []
            for _ in range(int(random.integers(1, 3))):
                kind = int(random.integers(len(names)))
                width, height = (int(side) for side in random.integers(16, 30, 2))
                left, top = int(random.integers(96 - width)), int(random.integers(64 - height))
                image[top : top + height, left : left + width] = ((220, 40, 40), (40, 40, 220))[kind % 2]
                lines.append(
                    f"{kind} {(left + width / 2) / 96:.6f} {(top + height / 2) / 64:.6f} "
                    f"{width / 96:.6f} {height / 64:.6f}"
                )
            Pillow.fromarray(image).save(images / f"{number:03}.png")
            (labels / f"{number:03}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text(f"names: [{', '.join(names)}]\ntrain: images/train\nval: images/val\n")
    return root
