"""How well predicted boxes and labels agree with the truth: recall, precision, F1, confusion.

Plain arithmetic on arrays, used by every model, benchmark and test, so that figures can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Boxes

Pairing = Literal["most", "score"]
"""How boxes are paired: "most" makes as many pairs as can be; "score" lets the surest box choose first, as
COCO's evaluation does."""

Pairs = list[tuple[int, int]]
"""(number of the predicted box, number of the true box), each number at most once."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxSet:
    """The boxes of one picture.

    Attributes:
        xyxy: Corners in pixels, shape (n, 4), float32.
        labels: Class of each box, length n; empty when classes don't matter.
        scores: Sureness of each box, 0 to 1, shape (n,); None for the truth.
    """

    xyxy: Boxes
    labels: tuple[str, ...] = ()
    scores: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.xyxy.ndim != 2 or self.xyxy.shape[1] != 4:
            raise ValueError(f"xyxy must have shape (n, 4), got {self.xyxy.shape}")
        if self.labels and len(self.labels) != len(self.xyxy):
            raise ValueError(f"{len(self.xyxy)} boxes need as many labels, got {len(self.labels)}")
        if self.scores is not None and self.scores.shape != (len(self.xyxy),):
            raise ValueError(f"{len(self.xyxy)} boxes need as many scores, got shape {self.scores.shape}")

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]], labels: Iterable[str] = ()) -> BoxSet:
        """Make one from rows of corners; no rows are an empty set."""
        return cls(np.array(rows, np.float32).reshape(-1, 4), tuple(labels))

    def __len__(self) -> int:
        return len(self.xyxy)

    def only(self, label: str) -> BoxSet:
        """The boxes of one class."""
        keep = np.array([name == label for name in self.labels], bool)
        scores = None if self.scores is None else self.scores[keep]
        return BoxSet(self.xyxy[keep], (label,) * int(keep.sum()), scores)


@dataclass(frozen=True, slots=True)
class Tally:
    """What was found, invented and missed.

    Attributes:
        true_positives: Predicted boxes paired with a true one.
        false_positives: Predicted boxes without one.
        false_negatives: True boxes without a predicted one.
    """

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def recall(self) -> float:
        """Share of the true boxes that were found; NaN without any."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """Share of the predicted boxes that are right; NaN without any."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision; NaN without any box at all."""
        found = 2 * self.true_positives
        return _share(found, found + self.false_positives + self.false_negatives)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Agreement of predicted with true boxes at one IoU threshold.

    Attributes:
        iou_threshold: Least overlap (intersection over union) of a pair, 0 to 1.
        boxes: Whatever the class.
        classes: Each class on its own, where both sides have labels.
    """

    iou_threshold: float
    boxes: Tally
    classes: Mapping[str, Tally]


def evaluate(
    predicted: Sequence[BoxSet],
    true: Sequence[BoxSet],
    iou_threshold: float = 0.5,
    pairing: Pairing = "most",
) -> Evaluation:
    """Compare predicted with true boxes, picture by picture.

    Args:
        predicted: One set a picture.
        true: The truth of the same pictures, in the same order.
        iou_threshold: Least overlap of a pair, 0 to 1.
        pairing: How boxes are paired.

    Raises:
        ValueError: The two have different lengths.
    """
    labels = sorted({label for sets in (predicted, true) for boxes in sets for label in boxes.labels})
    overall = Tally()
    classes = dict.fromkeys(labels, Tally())
    for found, real in zip(predicted, true, strict=True):
        overall += tally(found, real, iou_threshold, pairing)
        if bool(found.labels) == bool(len(found)) and bool(real.labels) == bool(len(real)):
            for label in labels:
                classes[label] += tally(found.only(label), real.only(label), iou_threshold, pairing)
    return Evaluation(iou_threshold, overall, classes)


def tally(predicted: BoxSet, true: BoxSet, iou_threshold: float, pairing: Pairing = "most") -> Tally:
    """Count the pairs of one picture, and what stays alone."""
    found = len(pair(predicted, true, iou_threshold, pairing))
    return Tally(found, len(predicted) - found, len(true) - found)


def pair(predicted: BoxSet, true: BoxSet, iou_threshold: float, pairing: Pairing = "most") -> Pairs:
    """Pair predicted with true boxes that overlap at least so much, whatever their classes.

    Returns:
        Pairs in the order of the predicted boxes.

    Raises:
        ValueError: Pairing by score, and the predicted boxes have none.
    """
    overlap = iou(predicted.xyxy, true.xyxy)
    if pairing == "most":
        return _most_pairs(overlap, iou_threshold)
    if predicted.scores is None:
        raise ValueError("pairing by score needs scores of the predicted boxes")
    free = np.ones(len(true), bool)
    pairs: Pairs = []
    for number in np.argsort(-predicted.scores, kind="stable"):
        row = np.where(free, overlap[number], -1.0)
        best = int(row.argmax()) if len(row) else -1
        if best >= 0 and row[best] >= iou_threshold:
            free[best] = False
            pairs.append((int(number), best))
    return sorted(pairs)


def iou(first: Boxes, second: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of every box of one set with every box of another.

    In double precision, so that an overlap of exactly the threshold counts.

    Returns:
        Shape (len(first), len(second)), 0 to 1; 0 where both boxes are empty.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.asarray(np.clip(high - low, 0, None).prod(axis=2, dtype=np.float64))
    union = _areas(first)[:, None] + _areas(second)[None, :] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def confusion(true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Count how often each true label got each predicted one.

    Returns:
        Shape (len(labels), len(labels)): true labels down, predicted labels across.

    Raises:
        ValueError: A label is not among `labels`, or the lengths differ.
    """
    place = {label: number for number, label in enumerate(labels)}
    unknown = sorted({*true, *predicted} - set(place))
    if unknown:
        raise ValueError(f"labels {unknown} are not among {list(labels)}")
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for real, found in zip(true, predicted, strict=True):
        counts[place[real], place[found]] += 1
    return counts


def _most_pairs(overlap: npt.NDArray[np.float64], iou_threshold: float) -> Pairs:
    """Make the most pairs, by augmenting paths (Kuhn's algorithm), trying great overlaps first."""
    taken: dict[int, int] = {}  # true box to predicted box

    def place(number: int, tried: set[int]) -> bool:
        for wish in np.argsort(-overlap[number], kind="stable").tolist():
            if overlap[number, wish] < iou_threshold:
                return False
            if wish in tried:
                continue
            tried.add(wish)
            if wish not in taken or place(taken[wish], tried):
                taken[wish] = number
                return True
        return False

    if overlap.size:
        for number in np.argsort(-overlap.max(axis=1), kind="stable").tolist():
            place(number, set())
    return sorted((number, wish) for wish, number in taken.items())


def _areas(boxes: Boxes) -> npt.NDArray[np.float64]:
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1, dtype=np.float64))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
