"""Which box is the same thing as in the frame before, and what that thing most likely is.

supervision's own tracker left that package in its release 0.31; see docs/decisions. Association follows
ByteTrack (Zhang et al., ECCV 2022): sure boxes first, then unsure ones for the tracks that are left, so that
a hand that blurs for a moment keeps its track. Labels are settled by the mean of the classifier's
probabilities over the last moments of a track, and change only when another label leads for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from labelmill.annotators.types import Boxes
from labelmill.training.average_precision import match
from labelmill.training.evaluation import iou

Floats = npt.NDArray[np.float64]

_VELOCITY_SHARE = 0.5  # of the newest movement in a track's velocity


@dataclass
class Track:
    """One thing over time.

    Attributes:
        identity: Counted from 1.
        xyxy: Its last box, shape (4,).
        velocity: Of the box's corners, pixels a second.
        seen_s: When it was last seen.
        first_s: When it was first seen.
        hits: In how many frames it was seen.
        belief: Mean probability of each label, newer frames counting more, shape (labels,).
        label: Index of its settled label; -1 before there is one.
        contender: Index of the label that leads now.
        contender_since_s: Since when it leads.
    """

    identity: int
    xyxy: Floats
    seen_s: float
    first_s: float
    belief: Floats
    velocity: Floats = field(default_factory=lambda: np.zeros(4))
    hits: int = 1
    label: int = -1
    contender: int = -1
    contender_since_s: float = 0.0

    def expected(self, now_s: float) -> Floats:
        """Where its box should be by now."""
        return self.xyxy + self.velocity * (now_s - self.seen_s)


class Tracker:
    """Follows boxes and settles their labels.

    Args:
        labels: How many there are.
        sure: Score from which a box may begin a track.
        least_iou: Of a box with where its track should be.
        forget_s: A track that was not seen for so long is over.
        half_life_s: After which a frame counts half in a label.
        settle_s: How long another label must lead before a track takes it.
        min_hits: Frames in which a thing must be seen before it counts.
    """

    def __init__(
        self,
        labels: int,
        *,
        sure: float = 0.4,
        least_iou: float = 0.2,
        forget_s: float = 1.0,
        half_life_s: float = 0.25,
        settle_s: float = 0.15,
        min_hits: int = 3,
    ) -> None:
        self.tracks: list[Track] = []
        self._labels = labels
        self._sure = sure
        self._least_iou = least_iou
        self._forget_s = forget_s
        self._half_life_s = half_life_s
        self._settle_s = settle_s
        self._min_hits = min_hits
        self._count = 0

    def update(
        self, now_s: float, xyxy: Boxes, scores: npt.NDArray[np.floating], probabilities: Floats
    ) -> tuple[list[Track | None], list[Track]]:
        """Follow the boxes of one frame.

        Args:
            now_s: Time of the frame.
            xyxy: Boxes, shape (n, 4).
            scores: The detector's, shape (n,).
            probabilities: Of each label, shape (n, labels).

        Returns:
            The track of each box, None for an unsure box that belongs to none; and the tracks that are over.
        """
        assigned: list[Track | None] = [None] * len(xyxy)
        open_tracks = list(self.tracks)
        order = np.argsort(-scores, kind="stable")
        for rows in (order[scores[order] >= self._sure], order[scores[order] < self._sure]):
            if not len(rows) or not open_tracks:
                continue
            expected = np.stack([track.expected(now_s) for track in open_tracks]).astype(np.float32)
            columns = match(iou(xyxy[rows], expected), self._least_iou)
            taken = set()
            for row, column in zip(rows, columns, strict=True):
                if column >= 0:
                    track = open_tracks[column]
                    self._see(track, now_s, xyxy[row].astype(np.float64), probabilities[row])
                    assigned[row] = track
                    taken.add(int(column))
            open_tracks = [track for number, track in enumerate(open_tracks) if number not in taken]
        for row in order:
            if assigned[row] is None and scores[row] >= self._sure:
                assigned[row] = self._begin(now_s, xyxy[row].astype(np.float64), probabilities[row])
        over = [track for track in self.tracks if now_s - track.seen_s > self._forget_s]
        self.tracks = [track for track in self.tracks if now_s - track.seen_s <= self._forget_s]
        return assigned, over

    def counts(self, track: Track) -> bool:
        """Whether a track was seen often enough to be no flicker."""
        return track.hits >= self._min_hits

    def _begin(self, now_s: float, xyxy: Floats, probabilities: Floats) -> Track:
        self._count += 1
        best = int(probabilities.argmax())
        track = Track(
            self._count, xyxy, now_s, now_s, probabilities.copy(), contender=best, contender_since_s=now_s
        )
        if self._min_hits <= 1:
            track.label = best
        self.tracks.append(track)
        return track

    def _see(self, track: Track, now_s: float, xyxy: Floats, probabilities: Floats) -> None:
        passed_s = max(now_s - track.seen_s, 1e-6)
        moved = (xyxy - track.xyxy) / passed_s
        track.velocity = (1 - _VELOCITY_SHARE) * track.velocity + _VELOCITY_SHARE * moved
        old = 0.5 ** (passed_s / self._half_life_s)
        track.belief = old * track.belief + (1 - old) * probabilities
        track.xyxy, track.seen_s, track.hits = xyxy, now_s, track.hits + 1
        leading = int(track.belief.argmax())
        if leading != track.contender:
            track.contender, track.contender_since_s = leading, now_s
        if (track.label < 0 and self.counts(track)) or (
            leading != track.label and track.label >= 0 and now_s - track.contender_since_s >= self._settle_s
        ):
            track.label = leading
