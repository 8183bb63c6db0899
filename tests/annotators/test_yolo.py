"""Letterboxing, decoding and suppression by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labelmill.annotators.yolo.decode import decode, suppress
from labelmill.annotators.yolo.letterbox import letterbox, to_frame


@pytest.mark.parametrize(
    ("size_wh", "image_px", "input_wh"),
    [
        ((640, 360), 640, (640, 384)),
        ((360, 640), 640, (384, 640)),
        ((100, 100), 64, (64, 64)),
        ((33, 7), 64, (64, 32)),
    ],
)
def test_boxes_come_back_from_the_letterbox(
    size_wh: tuple[int, int], image_px: int, input_wh: tuple[int, int]
) -> None:
    width, height = size_wh
    image = np.zeros((height, width, 3), np.uint8)
    picture, placement = letterbox(image, image_px)
    assert (picture.shape[1], picture.shape[0]) == input_wh
    frame = np.array([[1, 2, width - 3, height - 1]], np.float32)
    scale, offset = np.tile(placement.scale_xy, 2), np.tile(placement.offset_xy, 2)
    assert to_frame(frame * scale + offset, placement) == pytest.approx(frame, abs=1e-3)
    assert to_frame(np.array([[-50, -50, 5000, 5000]]), placement).tolist() == [[0, 0, width, height]]


def test_the_frame_is_whole_and_the_rest_is_grey() -> None:
    picture, placement = letterbox(np.full((360, 640, 3), 255, np.uint8), 640)
    assert placement.offset_xy == (0, 12)
    assert (picture[12:372] == 255).all()
    assert (picture[:12] == 114).all()


def test_decoding_by_hand() -> None:
    """Two classes, four anchors: two overlap in one class, one is another class's, one is too unsure."""
    raw = np.array(
        [
            [10, 11, 10, 50],  # centre x
            [10, 10, 10, 50],  # centre y
            [8, 8, 8, 10],  # width
            [8, 8, 8, 10],  # height
            [0.6, 0.9, 0.1, 0.2],
            [0.1, 0.2, 0.7, 0.1],
        ],
        np.float32,
    )
    found = decode(raw, 0.25, 0.5)
    assert found.xyxy.tolist() == [[7, 6, 15, 14], [6, 6, 14, 14]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.classes.tolist() == [0, 1]
    assert len(decode(raw, 0.95, 0.5).xyxy) == 0


def test_suppression_agrees_with_torchvision() -> None:
    import torch
    from torchvision.ops import batched_nms

    random = np.random.default_rng(0)
    low = random.uniform(0, 100, (400, 2))
    xyxy = np.concatenate([low, low + random.uniform(5, 40, (400, 2))], axis=1)
    scores = np.sort(random.random(400))[::-1].copy()
    classes = random.integers(0, 3, 400)
    expected = batched_nms(
        torch.from_numpy(xyxy), torch.from_numpy(scores), torch.from_numpy(classes), 0.5
    ).tolist()
    assert suppress(xyxy, classes, 0.5, 400).tolist() == expected
    assert suppress(xyxy, classes, 0.5, 7).tolist() == expected[:7]


def test_ultralytics_leaves_stdout_and_pillow_alone(tmp_path: Path) -> None:
    """Also where somebody imported it before us, with its own settings; so in a process of its own."""
    text = tmp_path / "lying.jpg"
    text.write_text("I am a text file")
    code = f"""
import ultralytics
from PIL import Image, UnidentifiedImageError
from labelmill.annotators.yolo.network import build
build("yolov5n", 1)
ultralytics.utils.LOGGER.info("settled")
ultralytics.utils.LOGGER.warning("careful")
try:
    Image.open({str(text)!r})
except UnidentifiedImageError:
    print("no image")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "YOLO_CONFIG_DIR": str(tmp_path)},
        check=False,
    )
    assert done.stdout.endswith("no image\n"), done.stderr
    assert "settled" not in done.stdout + done.stderr
    assert "careful" in done.stderr
