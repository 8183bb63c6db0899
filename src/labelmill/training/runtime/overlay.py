"""Pictures for people: boxes and labels on frames, as a video file or in a window."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelmill.errors import MissingDependencyError, SourceError
from labelmill.images import Image
from labelmill.training.runtime.tracker import Track

if TYPE_CHECKING:
    import supervision as sv

_QUIT = (27, ord("q"))


class Painter:
    """Draws tracked boxes.

    Args:
        labels: Names by index.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        import supervision as sv

        self._labels = labels
        self._box = sv.BoxAnnotator(thickness=2)
        self._label = sv.LabelAnnotator(text_scale=0.5)

    def paint(self, image: Image, boxes: sv.Detections, tracks: Sequence[Track | None]) -> Image:
        """A copy of the frame with its settled boxes."""
        shown = [row for row, track in enumerate(tracks) if track is not None and track.label >= 0]
        if not shown:
            return image
        chosen = boxes[np.array(shown)]
        settled = [track for track in tracks if track is not None and track.label >= 0]
        chosen.class_id = np.array([track.label for track in settled])
        chosen.tracker_id = np.array([track.identity for track in settled])
        texts = [
            f"{track.identity} {self._labels[track.label]} {track.belief[track.label]:.2f}"
            for track in settled
        ]
        painted: Image = self._label.annotate(self._box.annotate(image.copy(), chosen), chosen, texts)
        return painted


class VideoFile:
    """Writes frames as H.264, by their own timestamps.

    Args:
        path: The file; its suffix chooses the container.
        fps: Frames a second that players should expect.
    """

    def __init__(self, path: Path, fps: float) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._container = av.open(str(path), "w")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(
                f"cannot write a video to {path}", got=error, expected="a name like out.mp4"
            ) from error
        self._fps = round(fps)
        self._stream: Any = None
        self._last_pts = -1

    def write(self, image: Image, time_s: float) -> None:
        """Append one frame."""
        from fractions import Fraction

        import av

        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2  # H.264 halves both for colour
        if self._stream is None:
            self._stream = self._container.add_stream(
                "libx264", rate=self._fps, options={"preset": "veryfast"}
            )
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, 1000)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
        self._last_pts = max(self._last_pts + 1, round(time_s * 1000))
        frame.pts, frame.time_base = self._last_pts, Fraction(1, 1000)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what waits, and the file's end."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


class Window:
    """Shows frames on this machine's screen.

    Raises:
        MissingDependencyError: The installed OpenCV has no windows, or there is no screen.
    """

    def __init__(self, title: str) -> None:
        import cv2

        self._title = title
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise MissingDependencyError(
                "no preview window can be opened: OpenCV was built without one, or there is no screen",
                do="leave --preview out and write an annotated video with --video",
            ) from error
        self._shown_s = time.perf_counter()

    def show(self, image: Image) -> bool:
        """Show a frame; False once q or Esc was pressed."""
        import cv2

        cv2.imshow(self._title, np.ascontiguousarray(image[:, :, ::-1]))
        return cv2.waitKey(1) & 0xFF not in _QUIT

    def close(self) -> None:
        """Close it."""
        import cv2

        with contextlib.suppress(cv2.error):
            cv2.destroyWindow(self._title)
