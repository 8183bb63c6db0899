"""Detector and classifier on the bottle footage: PyTorch, ONNX and OpenVINO against a plain ultralytics loop.

    LABELMILL_DATA=... python -m benchmarks.watch [--frames 600] [--keep DIR]

The models are made for the purpose: YOLOv5n tuned for a moment on the footage's own 48 labelled frames, and a
random ViT-Ti/16 at 96 px. The figures are of speed alone; nothing here says how right the labels are.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image as Pillow

from benchmarks.reports import table, write
from labelmill.annotators.graphs import Precision
from labelmill.annotators.model_folder import Backend, read_model
from labelmill.annotators.yolo.detector import Detector
from labelmill.annotators.yolo.network import quiet
from labelmill.training.classifiers.predictor import CropClassifier, load_network
from labelmill.training.classifiers.train import train_classifier
from labelmill.training.config import ClassifierConfig, DetectorConfig
from labelmill.training.detectors.evaluate import crop_boxes
from labelmill.training.detectors.train import train_detector
from labelmill.training.export import export
from labelmill.training.inputs import read_crops, read_detection
from labelmill.training.runtime.events import EventLog
from labelmill.training.runtime.stream import Stream
from labelmill.training.runtime.watch import Look, Watch, WatchSettings

IMAGE_PX = 640
CROP_PX = 96
THRESHOLD = 0.02  # so low that nearly every frame has a box, true or not: the load of a busy line
AIM_FPS = 25.0
OURS: tuple[tuple[str, Backend, Precision], ...] = (
    ("ours, PyTorch", "torch", "float32"),
    ("ours, ONNX Runtime", "onnx", "float32"),
    ("ours, OpenVINO", "openvino", "float32"),
    ("ours, OpenVINO bfloat16", "openvino", "bfloat16"),
)


def make_models(line: Path, weights: Path, root: Path) -> tuple[Path, Path]:
    """A detector and a classifier, trained for a moment, with their exports."""
    boxes = json.loads((line / "boxes.json").read_text())
    wanted = {int(number): rows for number, rows in boxes.items()}
    with av.open(str(line / "bottle-detection.mp4")) as container:
        for number, picture in enumerate(container.decode(video=0)):
            if number not in wanted:
                continue
            split = "val" if number % 5 == 0 else "train"
            for folder in ("images", "labels"):
                (root / "boxes" / folder / split).mkdir(parents=True, exist_ok=True)
            image = picture.to_ndarray(format="rgb24")
            Pillow.fromarray(image).save(root / "boxes" / "images" / split / f"{number}.png")
            height, width = image.shape[:2]
            lines = [
                f"0 {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
                f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
                for x1, y1, x2, y2, _ in wanted[number]
            ]
            (root / "boxes" / "labels" / split / f"{number}.txt").write_text("".join(lines))
    (root / "boxes" / "data.yaml").write_text("names: [hand]\n")
    detector = train_detector(
        read_detection(root / "boxes"),
        DetectorConfig(
            image_px=320, epochs=12, batch=8, weights=weights, optimizer="AdamW", learning_rate=2e-3,
            warmup_epochs=1, mosaic=0.0, device="cpu",
        ),
        root / "detector",
    )  # fmt: skip
    for split in ("train", "val"):
        for source in [*(line / "templates").iterdir(), *(line / "templates_ng").iterdir()]:
            target = root / "crops" / split / source.name
            target.mkdir(parents=True, exist_ok=True)
            for path in source.iterdir():
                (target / path.name).write_bytes(path.read_bytes())
    classifier = train_classifier(
        read_crops(root / "crops"),
        ClassifierConfig(
            method="probe", backbone="vit-ti16", pretrained=False, image_px=CROP_PX, epochs=1, device="cpu"
        ),
        root / "classifier",
    )
    for written in (detector, classifier):
        if "openvino/model.bin" not in read_model(written.folder).files:
            print(f"exported {written.folder.name}:", export(written.folder), flush=True)
    return detector.folder, classifier.folder


def plain_loop(detector: Path, classifier: Path, video: Path, frames: int) -> dict[str, float]:
    """What one would write first: decode, `YOLO.predict`, and the ViT on each crop."""
    import torch

    quiet()
    from safetensors.torch import load_file
    from ultralytics import YOLO

    info = read_model(classifier)
    network = load_network(classifier, info)
    found = read_model(detector)
    model = YOLO(f"{found.architecture}.yaml")
    from labelmill.annotators.yolo.network import build

    fresh: Any = build(found.architecture, len(found.classes))
    fresh.load_state_dict(load_file(detector / "model.safetensors"))
    fresh.names = dict(enumerate(found.classes))
    model.model = fresh.eval()
    blank = np.zeros((360, 640, 3), np.uint8)
    model.predict(blank, imgsz=IMAGE_PX, conf=THRESHOLD, verbose=False, device="cpu")
    times, boxes = [], 0
    with av.open(str(video)) as container:
        began = last = time.perf_counter()
        for number, picture in enumerate(container.decode(video=0)):
            if number == frames:
                break
            image = picture.to_ndarray(format="bgr24")
            (result,) = model.predict(
                image, imgsz=IMAGE_PX, conf=THRESHOLD, iou=0.6, max_det=16, verbose=False, device="cpu"
            )
            for crop in crop_boxes(image[:, :, ::-1], result.boxes.xyxy.numpy().astype(np.float32)):
                square = np.asarray(Pillow.fromarray(np.ascontiguousarray(crop)).resize((CROP_PX, CROP_PX)))
                with torch.inference_mode():
                    network(torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float() / 255).softmax(1)
                boxes += 1
            now = time.perf_counter()
            times.append(now - last)
            last = now
    return summary(times, last - began, boxes)


def ours(detector: Detector, classifier: CropClassifier, video: Path, frames: int) -> dict[str, float]:
    """Every frame of the file, as fast as it goes."""
    watch = Watch(detector, classifier, WatchSettings(threshold=THRESHOLD, frames=frames))
    watch.warm_up(np.zeros((360, 640, 3), np.uint8))
    times, boxes = [], 0
    last = began = time.perf_counter()

    def show(look: Look) -> bool:
        nonlocal boxes, last
        boxes += len(look.boxes)
        now = time.perf_counter()
        times.append(now - last)
        last = now
        return True

    watch.run(Stream(str(video)), EventLog(None), show=show)
    return summary(times, last - began, boxes)


def live(detector: Detector, classifier: CropClassifier, video: Path, frames: int) -> dict[str, float]:
    """The file played as a camera: what a line would see."""
    watch = Watch(detector, classifier, WatchSettings(threshold=THRESHOLD, frames=frames))
    watch.warm_up(np.zeros((360, 640, 3), np.uint8))
    speed = watch.run(Stream(str(video), realtime=True), EventLog(None))
    return {name: float(value) for name, value in speed._asdict().items()}


def summary(times: list[float], seconds: float, boxes: int) -> dict[str, float]:
    p50, p95 = np.percentile(np.array(times) * 1000, [50, 95])
    return {
        "fps": len(times) / seconds,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "boxes_per_frame": boxes / len(times),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--frames", type=int, default=600)
    arguments.add_argument("--keep", type=Path, help="Keep the models there, for the next run.")
    options = arguments.parse_args()
    data = Path(os.environ["LABELMILL_DATA"])
    video = data / "line" / "bottle-detection.mp4"
    backbone = data.parent / "weights" / "yolov5n_coco_backbone.safetensors"
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        detector, classifier = make_models(data / "line", backbone, root)
        runs: list[tuple[str, Callable[[], dict[str, float]], Callable[[], dict[str, float]] | None]] = []
        runs.append(
            ("plain ultralytics loop", lambda: plain_loop(detector, classifier, video, options.frames), None)
        )
        for name, backend, precision in OURS:
            finder = Detector.load(detector, backend, image_px=IMAGE_PX, device="cpu", precision=precision)
            namer = CropClassifier.load(classifier, backend, device="cpu", precision=precision)
            runs.append(
                (
                    name,
                    lambda f=finder, n=namer: ours(f, n, video, options.frames),  # type: ignore[misc]
                    lambda f=finder, n=namer: live(f, n, video, options.frames),  # type: ignore[misc]
                )
            )
        figures: dict[str, Any] = {}
        loads = []
        for name, full, played in runs:
            loads.append(os.getloadavg()[0])
            spent = time.process_time()
            figures[name] = full() | {"cpu_ms": (time.process_time() - spent) * 1000 / options.frames}
            figures[name] |= {"live": played()} if played is not None else {}
            print(name, figures[name], flush=True)
    base = figures["plain ultralytics loop"]["fps"]
    rows = [
        [
            name,
            f"{row['fps']:.1f}",
            f"{row['fps'] / base:.2f}",
            f"{row['p50_ms']:.0f}",
            f"{row['p95_ms']:.0f}",
            f"{row['cpu_ms']:.0f}",
            f"{row['boxes_per_frame']:.2f}",
            f"{row['live']['p95_ms']:.0f}" if "live" in row else "",
            f"{row['live']['dropped']:.0f}" if "live" in row else "",
        ]
        for name, row in figures.items()
    ]
    best = max(row["fps"] for name, row in figures.items() if name.startswith("ours"))
    head = ["", "fps", "against plain", "frame p50 ms", "frame p95 ms", "CPU ms a frame", "boxes a frame"]
    head += ["live: latency p95 ms", f"live: dropped of {options.frames}"]
    text = (
        f"{options.frames} frames of the 640x360 footage, detector input {IMAGE_PX}x384 (letterboxed), "
        f"YOLOv5n and a ViT-Ti/16 at {CROP_PX} px on each box above {THRESHOLD}; decoding, suppression, "
        "classification and tracking included. `frame` is the time from one finished frame to the next when "
        "every frame is worked on as fast as it goes; `CPU` is the time of all cores together, warming up "
        "included, which others on the machine change least; `live` plays the file at its 29.8 frames a "
        "second like a camera, latency counted from decoding to labels. Both models were made for speed; "
        "their labels mean nothing. The machine's load (tasks that want a core, this one included) was "
        f"{min(loads):.1f} to {max(loads):.1f} as the rows began; two would be this benchmark alone.\n\n"
        + table(head, rows)
        + f"\n\nAim: at least {AIM_FPS:.0f} fps; the best of ours reaches {best:.1f}."
    )
    write("watch", "Real-time inference on two CPU cores", text, figures)


if __name__ == "__main__":
    main()
