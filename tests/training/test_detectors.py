"""Training YOLOv5n on drawn boxes: nothing written beside the data, resumed to the bit, judged, proposing."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.data import write_boxes

from labelmill.annotators.model_folder import read_model
from labelmill.annotators.proposers.yolo import Yolo, YoloConfig
from labelmill.annotators.types import Frame
from labelmill.annotators.yolo.detector import Detector
from labelmill.errors import TrainingError, WeightsError
from labelmill.makers import PROPOSERS
from labelmill.training.config import DetectorConfig
from labelmill.training.detectors.evaluate import evaluate_detector
from labelmill.training.detectors.train import train_detector
from labelmill.training.export import TOLERANCE, export
from labelmill.training.inputs import load_rgb, read_detection
from labelmill.training.model_writing import Written
from labelmill.training.progress import Progress


def config(**changes: Any) -> DetectorConfig:
    usual = {
        "image_px": 64,
        "epochs": 2,
        "batch": 8,
        "device": "cpu",
        "optimizer": "AdamW",
        "learning_rate": 2e-3,
    }
    return DetectorConfig.model_validate(usual | changes)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(tmp_path_factory.mktemp("data") / "boxes")


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Undisturbed, while every file beside the data is watched."""
    before = contents(boxes.parent)
    written = train_detector(read_detection(boxes), config(), tmp_path_factory.mktemp("models") / "whole")
    assert contents(boxes.parent) == before
    return written


def test_a_whole_model_is_written(trained: Written) -> None:
    assert {path.name for path in trained.folder.iterdir()} >= {
        "README.md", "metrics.json", "model.json", "model.safetensors", "plots",
    }  # fmt: skip
    assert not any(path.suffix in (".pt", ".pth", ".pkl") for path in trained.folder.rglob("*"))
    figures = trained.metrics["splits"]["val"]
    assert set(figures["at_iou"]) == {"0.3", "0.4", "0.5"}
    assert figures["at_iou"]["0.5"]["true_boxes"] > 0
    assert "random: nothing was pretrained" in (trained.folder / "README.md").read_text()


class KilledError(Exception):
    pass


def test_a_resumed_training_is_the_undisturbed_one_to_the_bit(
    boxes: Path, trained: Written, tmp_path: Path
) -> None:
    def die(progress: Progress) -> None:
        if progress.done == 3:
            raise KilledError

    data = read_detection(boxes)
    with pytest.raises(KilledError):
        train_detector(data, config(), tmp_path / "killed", report=die)
    resumed = train_detector(data, config(), tmp_path / "killed")
    assert resumed.info.files["model.safetensors"] == trained.info.files["model.safetensors"]
    assert resumed.metrics["splits"] == trained.metrics["splits"]
    assert resumed.metrics["history"] == trained.metrics["history"]


def test_a_finished_training_is_not_repeated(boxes: Path, trained: Written) -> None:
    assert not train_detector(read_detection(boxes), config(), trained.folder).trained


def test_evaluation_of_the_folder_repeats_the_metrics(boxes: Path, trained: Written) -> None:
    figures = evaluate_detector(
        Detector.load(trained.folder, device="cpu"), read_detection(boxes), "val"
    ).as_dict()
    assert figures == trained.metrics["splits"]["val"]


def test_exports_equal_pytorch(trained: Written, boxes: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(trained.folder, folder)
    differences = export(folder)
    assert set(differences) == {"onnx", "openvino"}
    assert max(differences.values()) <= TOLERANCE
    images = [load_rgb(picture.path) for picture in read_detection(boxes).split("val")[:2]]
    reference = Detector.load(folder, "torch", device="cpu").detect(images, 0.001)
    for backend in ("onnx", "openvino"):
        given = Detector.load(folder, backend).detect(images, 0.001)
        for ours, theirs in zip(given, reference, strict=True):
            assert np.abs(ours.confidence - theirs.confidence).max() < 1e-5
            assert np.abs(ours.xyxy - theirs.xyxy).max() < 1e-2
    (folder / "openvino" / "model.bin").write_bytes(b"exchanged")
    with pytest.raises(WeightsError, match="damaged or was exchanged"):
        Detector.load(folder, "openvino")


def test_it_proposes(trained: Written, boxes: Path) -> None:
    settings = YoloConfig(model=trained.folder, threshold=0.001, batch_size=2, device="cpu")
    assert PROPOSERS.load("yolo") is Yolo
    assert settings.files() == (trained.folder / "model.safetensors",)
    assert settings.key_fields()["classes"] == ["red", "blue"]
    pictures = read_detection(boxes).split("val")[:3]
    frames = [Frame("s", number, 0.0, load_rgb(picture.path)) for number, picture in enumerate(pictures)]
    found = list(PROPOSERS.make(settings).propose(iter(frames)))
    assert len(found) == 3
    (alone,) = Yolo(settings).propose(iter(frames[1:2]))
    assert np.abs(alone.xyxy - found[1].xyxy).max() < 1e-3  # a batch gives what a frame alone gives
    assert set(found[0].data["phrase"]) <= {"red", "blue"}
    assert found[0].xyxy.min() >= 0
    assert (found[0].xyxy[:, [0, 2]] <= 96).all()


def test_a_retrain_starts_from_the_version_before(trained: Written, boxes: Path, tmp_path: Path) -> None:
    written = train_detector(read_detection(boxes), config(weights=trained.folder, epochs=1), tmp_path / "v4")
    total = len(torch.nn.Module.state_dict(_network()))
    assert f"detector of boxes, {total} of {total} tensors" in (written.folder / "README.md").read_text()


def _network() -> torch.nn.Module:
    from labelmill.annotators.yolo.network import build

    return build("yolov5n", 2)


def test_weights_of_another_size_are_refused(trained: Written, boxes: Path, tmp_path: Path) -> None:
    settings = config(model="yolov5s", weights=trained.folder / "model.safetensors")
    with pytest.raises(WeightsError, match="do not fit the detector"):
        train_detector(read_detection(boxes), settings, tmp_path / "model")


def test_a_foreign_checkpoint_is_refused_with_the_conversion(boxes: Path, tmp_path: Path) -> None:
    torch.save({"model": _network()}, tmp_path / "yolov5nu.pt")
    with pytest.raises(WeightsError, match=r"pickle of live objects.*python -c"):
        train_detector(read_detection(boxes), config(weights=tmp_path / "yolov5nu.pt"), tmp_path / "model")


def test_a_loss_that_is_not_finite_is_one_line(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labelmill.training.detectors.trainer import DetectorTrainer

    honest = DetectorTrainer.validate

    def broken(self: DetectorTrainer) -> Any:
        self.loss = self.loss * float("nan")
        return honest(self)

    monkeypatch.setattr(DetectorTrainer, "validate", broken)
    with pytest.raises(TrainingError, match=r"the loss is not finite in epoch 1.*lower --learning-rate"):
        train_detector(read_detection(boxes), config(), tmp_path / "m")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train": 4, "val": 0}, "split 'val' .* holds no picture"),
        ({"val": 4}, "split 'train' .* holds no picture"),
    ],
)
def test_an_empty_split_is_one_line(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    data = read_detection(write_boxes(tmp_path / "boxes", counts))
    with pytest.raises(TrainingError, match=message):
        train_detector(data, config(), tmp_path / "model")


@pytest.mark.parametrize("rare", [0, 1])
def test_a_class_with_one_box_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, rare: int) -> None:
    from labelmill.training.detectors.train import _check

    root = write_boxes(tmp_path / "boxes", names=("red",))
    (root / "data.yaml").write_text("names: [red, rare]\n")
    with (root / "labels" / "train" / "000.txt").open("a") as file:
        file.write("1 0.5 0.5 0.2 0.2\n" * rare)
    with caplog.at_level(logging.WARNING):
        _check(read_detection(root))
    assert f"class 'rare' has {rare} training boxes: expect it to be missed" in caplog.text
    assert ("class 'rare' has no validation box" in caplog.text) is bool(rare)


def test_ultralytics_is_kept_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from labelmill.annotators.yolo.network import quiet

    for name in ("YOLO_OFFLINE", "YOLO_AUTOINSTALL"):
        monkeypatch.delenv(name, raising=False)
    quiet()
    assert (os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"]) == ("true", "false")


def test_a_model_folder_of_another_kind_is_refused(trained: Written, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is a detector, expected a classifier"):
        read_model(trained.folder, "classifier")
    with pytest.raises(TrainingError, match="is not a model folder"):
        Detector.load(tmp_path)
