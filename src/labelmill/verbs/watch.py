"""`labelmill watch`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.verbs.common import AsJson, emit, note

if TYPE_CHECKING:
    from labelmill.annotators.model_folder import Backend
    from labelmill.training.runtime.watch import Look


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Examples: `labelmill watch --detector models/d --classifier models/c day.mp4 --events e.jsonl"
        "` · `labelmill watch --detector models/d rtsp://camera/stream --video seen.mp4` · "
        "`labelmill watch --detector models/d 0 --preview`. Stop with Ctrl-C: what was written is whole."
    )(watch)


def watch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A video, rtsp://…, /dev/video0 or a camera's number.", show_default=False
        ),
    ],
    detector: Annotated[Path, typer.Option(help="A detector's folder.", show_default=False)],
    classifier: Annotated[
        Path | None,
        typer.Option(
            help="A classifier's folder; without it the detector names the boxes.", show_default=False
        ),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="JSON Lines file to append to; - for stdout.", show_default=False)
    ] = None,
    video: Annotated[Path | None, typer.Option(help="Write an annotated video.", show_default=False)] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Show a window; q closes it.")] = False,
    backend: Annotated[
        str, typer.Option(help="torch, onnx, openvino, or auto: openvino where exported and no GPU is there.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="With OpenVINO: float32 or bfloat16.")] = "float32",
    image_px: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Longer side of the detector's input; default: as trained.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Lowest score of a box, 0 to 1.")] = 0.25,
    margin: Annotated[
        float, typer.Option(help="Share of a box that is added on each side before cropping.")
    ] = 0.0,
    queue: Annotated[
        int, typer.Option(metavar="FRAMES", help="Most frames waiting; a live source drops the oldest.")
    ] = 2,
    realtime: Annotated[bool, typer.Option("--realtime", help="Play a file as a camera would.")] = False,
    every_frame: Annotated[bool, typer.Option("--every-frame", help="An event for each frame, too.")] = False,
    frames: Annotated[
        int | None, typer.Option(help="Stop after so many; default: at the end.", show_default=False)
    ] = None,
    give_up: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long a lost camera is looked for; default: for ever.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="For torch: auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Detect, classify and follow on live video; write what changes."""
    from labelmill.annotators.yolo.detector import Detector
    from labelmill.errors import TrainingError
    from labelmill.training.classifiers.predictor import CropClassifier
    from labelmill.training.runtime.events import EventLog
    from labelmill.training.runtime.overlay import Painter, VideoFile, Window
    from labelmill.training.runtime.stream import Stream
    from labelmill.training.runtime.watch import Watch, WatchSettings

    if as_json and events is not None and str(events) == "-":
        raise TrainingError("--json and --events - both want stdout", do="name a file for the events")
    folders = [detector] if classifier is None else [detector, classifier]
    chosen = _backend(backend, folders, device)
    if precision not in ("float32", "bfloat16"):
        raise TrainingError(f"unknown precision {precision!r}", expected="float32 or bfloat16")
    number: Any = precision
    finder = Detector.load(detector, chosen, image_px=image_px, device=device, precision=number)
    namer = (
        CropClassifier.load(classifier, chosen, device=device, precision=number)
        if classifier is not None
        else None
    )
    settings = WatchSettings(threshold=threshold, margin=margin, every_frame=every_frame, frames=frames)
    work = Watch(finder, namer, settings)
    stream = Stream(source, queue_frames=queue, realtime=realtime, give_up_s=give_up)
    with ExitStack() as stack:
        painter = Painter(work.labels) if video is not None or preview else None
        file = VideoFile(video, stream.fps) if video is not None else None
        window = Window(f"labelmill {source}") if preview else None
        for thing in (file, window):
            if thing is not None:
                stack.callback(thing.close)

        def show(look: Look) -> bool:
            if painter is None:
                return True
            picture = painter.paint(look.frame.image, look.boxes, look.tracks)
            if file is not None:
                file.write(picture, look.frame.time_s)
            return window is None or window.show(picture)

        log = stack.enter_context(EventLog(events))
        work.warm_up(_blank(stream))
        speed = work.run(stream, log, show=show, tell=lambda speed: note(speed.line))
    document = {
        "source": source,
        "backend": chosen,
        "events": log.count,
        **{name: None if value != value else value for name, value in speed._asdict().items()},
    }
    emit(document, as_json=as_json or False, text=lambda: f"{speed.line}, {log.count} events")


def _backend(name: str, folders: list[Path], device: str) -> Backend:
    """What runs the models: an export where both have one and no GPU is there."""
    from labelmill.annotators.devices import choose_device
    from labelmill.annotators.model_folder import OPENVINO, read_model
    from labelmill.config import nearest
    from labelmill.errors import TrainingError

    known: tuple[Backend, ...] = ("torch", "onnx", "openvino")
    if name == "auto":
        exported = all(OPENVINO in read_model(folder).files for folder in folders)
        return "openvino" if exported and choose_device(device).type == "cpu" else "torch"
    for backend in known:
        if backend == name:
            return backend
    raise TrainingError(f"unknown backend {name!r}", do=nearest(name, ["auto", *known]))


def _blank(stream: Any) -> Any:
    import numpy as np

    width, height = stream.size_wh
    return np.zeros((height, width, 3), np.uint8)
