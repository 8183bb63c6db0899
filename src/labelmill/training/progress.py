"""What a training says while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """Where a training stands.

    Attributes:
        done: Steps done, over the whole training.
        total: Steps of the whole training, should nothing stop it early.
        text: The last epoch's figures, for people.
    """

    done: int
    total: int
    text: str = ""


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Say nothing."""
