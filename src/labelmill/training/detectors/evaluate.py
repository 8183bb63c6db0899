"""A trained detector, measured on a split; with a classifier, both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labelmill.annotators.yolo.detector import Detector
from labelmill.errors import TrainingError
from labelmill.training.average_precision import AveragePrecision, Predicted, average_precision
from labelmill.training.evaluation import BoxSet, Tally, evaluate, pair
from labelmill.training.inputs import DetectionData, Picture, load_rgb

if TYPE_CHECKING:
    from labelmill.images import Image
    from labelmill.training.classifiers.predictor import CropClassifier

WORKING_THRESHOLD = 0.25  # at which a detector is used, and its recall and precision are told
_RANKING_THRESHOLD = 0.001  # low, because average precision looks at the whole ranking
_IOUS = (0.3, 0.4, 0.5)
_BATCH = 16


@dataclass(frozen=True, eq=False)
class DetectionMetrics:
    """What a detector found on a split.

    Attributes:
        ranking: Average precision.
        threshold: Score at which recall and precision are told.
        tallies: Boxes that are right, wrong and missed at that score, by IoU threshold.
    """

    ranking: AveragePrecision
    threshold: float
    tallies: dict[float, Tally]

    def as_dict(self) -> dict[str, Any]:
        """JSON values; what is undefined is null."""
        per_class = zip(self.ranking.classes, self.ranking.table, strict=True)
        return {
            "mAP50": _json(self.ranking.at_50),
            "mAP50-95": _json(self.ranking.at_50_95),
            "threshold": self.threshold,
            "at_iou": {
                str(iou): {
                    "recall": _json(tally.recall),
                    "precision": _json(tally.precision),
                    "f1": _json(tally.f1),
                    "true_boxes": tally.true_positives + tally.false_negatives,
                    "boxes": tally.true_positives + tally.false_positives,
                }
                for iou, tally in self.tallies.items()
            },
            "classes": {
                name: {"AP50": _json(row[0]), "AP50-95": _json(float(row.mean()))} for name, row in per_class
            },
        }


def predict(
    detector: Detector, pictures: Sequence[Picture], threshold: float = _RANKING_THRESHOLD
) -> list[Predicted]:
    """Detect in every picture of a split, in its order."""
    found: list[Predicted] = []
    images = (load_rgb(picture.path) for picture in pictures)
    while batch := list(islice(images, _BATCH)):
        for boxes in detector.detect(batch, threshold):
            confidence = np.asarray(boxes.confidence, np.float32)
            found.append(Predicted(boxes.xyxy, confidence, np.asarray(boxes.class_id, np.int64)))
    return found


def evaluate_detector(
    detector: Detector, data: DetectionData, split: str, threshold: float = WORKING_THRESHOLD
) -> DetectionMetrics:
    """Measure a detector on a split.

    Raises:
        TrainingError: The split is empty, or its classes are not the detector's.
    """
    pictures = data.split(split)
    _same_classes(detector.info.classes, data.classes)
    return measure(pictures, predict(detector, pictures), data.classes, threshold)


def measure(
    pictures: Sequence[Picture], found: Sequence[Predicted], classes: Sequence[str], threshold: float
) -> DetectionMetrics:
    """Metrics from predictions, whatever made them."""
    truth = [(picture.xyxy, picture.classes) for picture in pictures]
    ranking = average_precision(truth, found, classes)
    tallies = {iou: _tallies(pictures, found, classes, iou, threshold) for iou in _IOUS}
    return DetectionMetrics(ranking, threshold, tallies)


@dataclass(frozen=True)
class JointMetrics:
    """Detector and classifier together, as they work on a line (LRIAR, eq. 7).

    Attributes:
        true: True boxes.
        found: True boxes that the detector found, whatever the label.
        right: True boxes that were found and got their label.
        given: Boxes with a label other than NG.
    """

    true: int
    found: int
    right: int
    given: int

    def as_dict(self) -> dict[str, Any]:
        """JSON values; what is undefined is null."""
        return {
            "true_boxes": self.true,
            "detector_recall": _share(self.found, self.true),
            "joint_accuracy": _share(self.right, self.true),
            "label_accuracy_of_found": _share(self.right, self.found),
            "joint_precision": _share(self.right, self.given),
        }


def evaluate_jointly(
    detector: Detector,
    classifier: CropClassifier,
    data: DetectionData,
    split: str,
    *,
    iou: float = 0.5,
    threshold: float = WORKING_THRESHOLD,
    margin: float = 0.0,
) -> JointMetrics:
    """Detect, then classify the crops, and compare with true boxes whose classes are the classifier's.

    A box counts as found by position alone; the label is the classifier's.

    Args:
        detector: Of any classes.
        classifier: Knows the classes of `data`.
        data: True boxes, named by what the classifier tells apart.
        split: Of it.
        iou: Least overlap of a found box with the true one.
        threshold: The detector's.
        margin: By which a box is widened on every side before it is cropped, as a share of its sides.

    Raises:
        TrainingError: The split is empty, or the classes have nothing in common.
    """
    from labelmill.datasets.tables import NG

    if not set(classifier.info.classes) & set(data.classes):
        raise TrainingError(
            f"the classifier knows none of the classes of {data.root}",
            got=", ".join(data.classes),
            expected=", ".join(classifier.info.classes),
        )
    true = found_boxes = right = given = 0
    for picture in data.split(split):
        image = load_rgb(picture.path)
        (boxes,) = detector.detect([image], threshold)
        labels = [verdict.label for verdict in classifier.classify(crop_boxes(image, boxes.xyxy, margin))]
        scores = np.asarray(boxes.confidence if len(boxes) else np.empty(0), np.float32)
        pairs = pair(BoxSet(boxes.xyxy, (), scores), BoxSet(picture.xyxy), iou, pairing="score")
        true += len(picture.xyxy)
        found_boxes += len(pairs)
        given += sum(label != NG for label in labels)
        right += sum(labels[row] == data.classes[picture.classes[column]] for row, column in pairs)
    return JointMetrics(true, found_boxes, right, given)


def crop_boxes(image: Image, xyxy: npt.NDArray[np.float32], margin: float = 0.0) -> list[Image]:
    """Cut boxes out of a frame, at least one pixel each."""
    height, width = image.shape[:2]
    crops = []
    for x1, y1, x2, y2 in xyxy.astype(np.float64):
        grow_x, grow_y = margin * (x2 - x1), margin * (y2 - y1)
        left, top = (
            int(np.clip(np.floor(v), 0, limit - 1))
            for v, limit in ((x1 - grow_x, width), (y1 - grow_y, height))
        )
        right = int(np.clip(np.ceil(x2 + grow_x), left + 1, width))
        bottom = int(np.clip(np.ceil(y2 + grow_y), top + 1, height))
        crops.append(image[top:bottom, left:right])
    return crops


def _tallies(
    pictures: Sequence[Picture],
    found: Sequence[Predicted],
    classes: Sequence[str],
    iou_threshold: float,
    threshold: float,
) -> Tally:
    """Right, wrong and missed boxes of all classes, each box paired within its class."""
    above = [boxes.scores >= threshold for boxes in found]
    predicted = [
        BoxSet(boxes.xyxy[keep], _names(boxes.classes[keep], classes), boxes.scores[keep])
        for boxes, keep in zip(found, above, strict=True)
    ]
    true = [BoxSet(picture.xyxy, _names(picture.classes, classes)) for picture in pictures]
    measured = evaluate(predicted, true, iou_threshold, pairing="score")
    return sum(measured.classes.values(), Tally())


def _names(numbers: npt.NDArray[np.int64], classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(classes[number] for number in numbers)


def _same_classes(known: Sequence[str], asked: Sequence[str]) -> None:
    if tuple(known) != tuple(asked):
        raise TrainingError(
            "the detector was trained on other classes",
            got=", ".join(known),
            expected=", ".join(asked),
            do="evaluate on a version with its classes, or train on this one",
        )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _json(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
