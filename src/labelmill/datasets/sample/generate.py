"""Writing the sample: video, truth, templates and line file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmill.errors import WorkspaceError
from labelmill.files import digest_bytes, digest_file, disk_errors, replacing, write_bytes

if TYPE_CHECKING:
    from labelmill.datasets.sample.scene import Scene, Truth
    from labelmill.images import Image

GENERATOR = 1
"""Raised when the same seed gives other files than before."""

FPS = 15
CROP_MARGIN = 0.15  # shows what the finger tips hold
LABELS = ("hand_empty", "hand_with_part")

_MANIFEST = "sample.json"
_LINE = """\
# The line of `labelmill demo`: a bench camera whose hands are empty or hold a part.
# Every key is described in docs/line-file.md; unknown keys are errors.
name: demo-line
sources:
  - video: bench.mp4
proposer:
  kind: motion
  phrase: hand
  skin: prefer # boxes end at the cuff where bare skin is seen
crop:
  margin: @MARGIN@ # shows what the finger tips hold
encoder:
  kind: hog
templates:
  folder: templates
  ng: templates_ng
matching:
  lambda: auto
"""

Progress = Callable[[int, int], None]
"""Called with frames done and their total."""


@dataclass(frozen=True)
class Sample:
    """Where a generated sample lies.

    Attributes:
        folder: All of it.
        video: H.264, 640 x 360, 15 frames a second.
        truth: Boxes, labels, events and distractions, as `read_truth` gives them.
        templates: One folder of crops per class.
        templates_ng: Crops of what must not fire.
        line: A line file for all of these.
        digest: Of the files' digests: names this sample.
    """

    folder: Path
    video: Path
    truth: Path
    templates: Path
    templates_ng: Path
    line: Path
    digest: str


def generate_sample(
    folder: Path, *, seed: int = 0, duration_s: float = 30.0, progress: Progress | None = None
) -> Sample:
    """Make the sample, or find it whole from an earlier call.

    Args:
        folder: Where to put it; made if absent. Other files in it are left alone.
        seed: Of everything random: the same seed gives the same bytes, with the same versions of the
            libraries that draw and encode.
        duration_s: Length of the video; at least one frame is made.
        progress: Told about frames drawn.

    Raises:
        WorkspaceError: The folder cannot be written.
    """
    settings = {"generator": GENERATOR, "seed": int(seed), "duration_s": float(duration_s)}
    known = _read_manifest(folder)
    if known and known["settings"] == settings and _whole(folder, known["files"]):
        return _sample(folder, known["files"])
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise WorkspaceError(
                f"{folder} is not a folder", expected="a folder for the sample", do="name another with --out"
            ) from error
        (folder / _MANIFEST).unlink(missing_ok=True)  # from here until the end it is not whole
        files = dict(_write_all(folder, int(seed), float(duration_s), progress or _silent))
        for stale in set(known["files"] if known else {}) - set(files):
            (folder / stale).unlink(missing_ok=True)
            with suppress(OSError):  # other files are in it
                (folder / stale).parent.rmdir()
        manifest = {"settings": settings, "files": files}
        write_bytes(folder / _MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return _sample(folder, files)


def read_truth(path: Path) -> dict[str, Any]:
    """Read `truth.json`.

    Returns:
        `boxes`: for each frame, in order, a list of [x1, y1, x2, y2, label]; `unclear`: frames in which a
        hand is cut by the border or about to grip, so that no one can say which label is right; `events`
        and `distractions`: [first frame, last frame, name], inclusive; `fps`, `width_px`, `height_px`,
        `labels`.
    """
    truth: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return truth


def _silent(done: int, total: int) -> None:
    del done, total


def _sample(folder: Path, files: dict[str, str]) -> Sample:
    return Sample(
        folder=folder,
        video=folder / "bench.mp4",
        truth=folder / "truth.json",
        templates=folder / "templates",
        templates_ng=folder / "templates_ng",
        line=folder / "demo-line.yaml",
        digest=digest_bytes(json.dumps(files, sort_keys=True).encode()),
    )


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        files = found["files"]
        if not isinstance(files, dict) or not isinstance(found["settings"], dict):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in files)
    return {"settings": found["settings"], "files": files} if inside else None


def _whole(folder: Path, files: dict[str, str]) -> bool:
    try:
        return all(digest_file(folder / name) == digest for name, digest in files.items())
    except OSError:
        return False


def _write_all(folder: Path, seed: int, duration_s: float, progress: Progress) -> Iterator[tuple[str, str]]:
    """Write every file; yield its name and digest."""
    from labelmill.datasets.sample.crops import draw_crops
    from labelmill.datasets.sample.scene import Scene
    from labelmill.datasets.sample.script import write_script

    total = max(1, round(duration_s * FPS))
    scene = Scene(write_script((seed, 1), duration_s), seed=seed, fps=FPS)
    truths: list[list[Truth]] = []
    video = folder / "bench.mp4"
    with replacing(video) as temporary:
        write_video(temporary, _frames(scene, total, truths, progress), fps=FPS)
    yield video.name, digest_file(video)

    truth = json.dumps(_truth(scene, truths), separators=(",", ":")).replace("]],[", "]],\n[") + "\n"
    yield _put(folder, "truth.json", truth.encode())

    for name, crop in draw_crops(seed):
        yield _put(folder, f"{name}.png", _png(crop))
    yield _put(folder, "demo-line.yaml", _LINE.replace("@MARGIN@", str(CROP_MARGIN)).encode())


def _put(folder: Path, name: str, data: bytes) -> tuple[str, str]:
    write_bytes(folder / name, data)
    return name, digest_bytes(data)


def _frames(scene: Scene, total: int, truths: list[list[Truth]], progress: Progress) -> Iterator[Image]:
    for index in range(total):
        image, found = scene.frame(index)
        truths.append(found)
        yield image
        progress(index + 1, total)


def _truth(scene: Scene, truths: list[list[Truth]]) -> dict[str, Any]:
    last = len(truths) - 1

    def spans(things: Iterable[tuple[float, float, str]]) -> list[tuple[int, int, str]]:
        rows = [
            (max(0, round(start * FPS)), min(last, round(end * FPS)), name) for start, end, name in things
        ]
        return [row for row in rows if row[0] <= row[1]]

    events = []
    for number, visit in enumerate(scene.script.visits):
        seen = [index for index, found in enumerate(truths) if any(t.visit == number for t in found)]
        if seen:
            events.append([seen[0], seen[-1], visit.name])
    return {
        "fps": FPS,
        "width_px": 640,
        "height_px": 360,
        "labels": list(LABELS),
        "events": events,
        "distractions": spans((d.start_s, d.end_s, d.name) for d in scene.script.distractions),
        "unclear": [index for index, found in enumerate(truths) if any(not t.clear for t in found)],
        "boxes": [[[*t.xyxy, t.label] for t in found] for found in truths],
    }


def write_video(path: Path, frames: Iterable[Image], *, fps: int) -> None:
    """Encode RGB frames of one size as H.264 in MP4.

    Two threads always, so that the bytes do not depend on the machine's cores.
    """
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for image in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 2
                stream.options = {"preset": "veryfast", "crf": "20", "g": str(4 * fps)}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())


def _png(image: Image) -> bytes:
    import cv2
    import numpy as np

    _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return data.tobytes()
