"""Detector and classifier on live video (LRIAR, eq. 7): boxes, then labels, per frame, and what changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmill.annotators.yolo.detector import Detector
from labelmill.datasets.tables import NG
from labelmill.images import Image
from labelmill.training.classifiers.predictor import CropClassifier, labels_of
from labelmill.training.detectors.evaluate import crop_boxes
from labelmill.training.runtime.events import EventLog
from labelmill.training.runtime.latency import Speed, Stopwatch
from labelmill.training.runtime.stream import Grabbed, Stream
from labelmill.training.runtime.tracker import Track, Tracker

if TYPE_CHECKING:
    import supervision as sv

_LONGEST_WAIT_S = 0.5  # for a frame, before losses of the source are told


@dataclass(frozen=True)
class WatchSettings:
    """How a watch works.

    Attributes:
        threshold: Lowest score of a box that is followed.
        iou_threshold: Of the detector's non-maximum suppression.
        margin: By which a box is widened before it is cropped, as a share of its sides.
        most_boxes: Best boxes of a frame that are classified.
        every_frame: Write an event for each frame, besides those for changes.
        frames: Stop after so many; None for the source's end.
        tell_every_s: How often the speed is told.
    """

    threshold: float = 0.25
    iou_threshold: float = 0.6
    margin: float = 0.0
    most_boxes: int = 16
    every_frame: bool = False
    frames: int | None = None
    tell_every_s: float = 5.0


@dataclass(eq=False)
class Look:
    """What was seen in one frame.

    Attributes:
        frame: It.
        boxes: The detector's.
        probabilities: Of each label, by box, shape (n, labels).
        tracks: Of each box; None for an unsure box that belongs to none.
    """

    frame: Grabbed
    boxes: sv.Detections
    probabilities: npt.NDArray[np.float64]
    tracks: list[Track | None] = field(default_factory=list)


class Watch:
    """Works on a stream, frame by frame.

    Args:
        detector: Finds regions.
        classifier: Names them; without one the detector's own classes are the labels.
        settings: How.
        tracker: Follows regions; one with default settings when absent.
    """

    def __init__(
        self,
        detector: Detector,
        classifier: CropClassifier | None,
        settings: WatchSettings | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.settings = settings or WatchSettings()
        self.labels = labels_of(classifier.info) if classifier is not None else detector.info.classes
        self._detector = detector
        self._classifier = classifier
        self._tracker = tracker or Tracker(len(self.labels))
        self._told: dict[int, int] = {}
        self._over: list[Track] = []

    def warm_up(self, image: Image) -> None:
        """Run everything once, so that the first frame does not wait for compilations."""
        self._detector.detect([image], self.settings.threshold)
        if self._classifier is not None:
            self._classifier.warm_up(self.settings.most_boxes)

    def look(self, frame: Grabbed) -> Look:
        """Detect and classify in one frame, and follow what was found."""
        (boxes,) = self._detector.detect([frame.image], self.settings.threshold, self.settings.iou_threshold)
        boxes = boxes[: self.settings.most_boxes]
        probabilities = self._probabilities(frame.image, boxes)
        scores = np.asarray(boxes.confidence if len(boxes) else np.empty(0), np.float32)
        look = Look(frame, boxes, probabilities)
        look.tracks, over = self._tracker.update(frame.time_s, boxes.xyxy, scores, probabilities)
        self._over = over
        return look

    def run(
        self,
        stream: Stream,
        log: EventLog,
        *,
        show: Callable[[Look], bool] | None = None,
        tell: Callable[[Speed], None] | None = None,
    ) -> Speed:
        """Work until the source ends, `frames` are done, or `show` says no.

        Args:
            stream: Not yet started; stopped at the end.
            log: Gets the events.
            show: Called with each frame; False ends the watch.
            tell: Called with the speed now and then.
        """
        watch = Stopwatch()
        told_s = 0.0
        log.write("start", source=stream.source, labels=list(self.labels))
        stream.start()
        with contextlib.ExitStack() as stack:
            stack.callback(stream.stop)
            for frame in self._frames(stream, log):
                watch.begin()
                look = self.look(frame)
                watch.end(frame.arrived_s)
                for event, values in self._events(look):
                    log.write(event, **values)
                if show is not None and not show(look):
                    break
                speed_due = frame.arrived_s - told_s >= self.settings.tell_every_s
                if tell is not None and speed_due:
                    told_s = frame.arrived_s
                    tell(watch.speed(stream.queue.dropped))
                if self.settings.frames is not None and watch.frames >= self.settings.frames:
                    break
        speed = watch.speed(stream.queue.dropped)
        for track in self._tracker.tracks:
            for event, values in self._leave(track):
                log.write(event, **values)
        log.write("end", **{name: _json(value) for name, value in speed._asdict().items()})
        return speed

    def _frames(self, stream: Stream, log: EventLog) -> Iterator[Grabbed]:
        while True:
            frame = stream.queue.get(_LONGEST_WAIT_S)
            for what, time_s, reason in stream.take_losses():
                log.write(f"source {what}", time_s=round(time_s, 3), reason=reason)
            if frame is not None:
                yield frame
            elif stream.queue.finished:
                return

    def _probabilities(self, image: Image, boxes: sv.Detections) -> npt.NDArray[np.float64]:
        if not len(boxes):
            return np.empty((0, len(self.labels)))
        if self._classifier is None:
            given = np.zeros((len(boxes), len(self.labels)))
            given[np.arange(len(boxes)), boxes.class_id] = boxes.confidence
            return given
        info = self._classifier.info
        known = self._classifier.probabilities(crop_boxes(image, boxes.xyxy, self.settings.margin))
        if len(self.labels) == len(info.classes):
            return known
        # NG by rejection: a crop below the threshold believes in NG instead of in its best class.
        rejected = known.max(axis=1) < (info.reject_below or 0.0)
        return np.concatenate([known * ~rejected[:, None], rejected[:, None].astype(np.float64)], axis=1)

    def _events(self, look: Look) -> Iterator[tuple[str, dict[str, Any]]]:
        """What changed with this frame: a thing appears, changes its label, or is gone."""
        when = {"frame": look.frame.index, "time_s": round(look.frame.time_s, 3)}
        for row, track in enumerate(look.tracks):
            if track is None or track.label < 0 or self._told.get(track.identity) == track.label:
                continue
            event = "label" if track.identity in self._told else "appear"
            self._told[track.identity] = track.label
            yield event, {**when, **self._about(track), "xyxy": _rounded(look.boxes.xyxy[row])}
        for track in self._over:
            yield from self._leave(track)
        if self.settings.every_frame:
            best = look.probabilities.argmax(axis=1) if len(look.boxes) else np.empty(0, int)
            yield (
                "frame",
                {
                    **when,
                    "boxes": [
                        {
                            "xyxy": _rounded(look.boxes.xyxy[row]),
                            "score": round(float(look.boxes.confidence[row]), 4),
                            "label": self.labels[label],
                            "track": track.identity if (track := look.tracks[row]) is not None else None,
                        }
                        for row, label in enumerate(best)
                    ],
                },
            )

    def _leave(self, track: Track) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._told.pop(track.identity, None) is not None:
            yield "leave", {"time_s": round(track.seen_s, 3), **self._about(track)}

    def _about(self, track: Track) -> dict[str, Any]:
        label = self.labels[track.label]
        return {
            "track": track.identity,
            "label": label,
            "ng": label == NG,
            "score": round(float(track.belief[track.label]), 4),
            "seen_s": round(track.seen_s - track.first_s, 3),
        }


def _rounded(xyxy: npt.NDArray[np.floating]) -> list[float]:
    return [round(float(value), 1) for value in xyxy]


def _json(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)
