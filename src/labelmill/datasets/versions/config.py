"""The `dataset` part of a line file."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from labelmill.config import Config, FilePath

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class DatasetConfig(Config):
    """How labelled frames become dataset versions.

    Attributes:
        name: The dataset's name; default the line's.
        splits: Split names and their shares of the frames, which add up to 1. The first is the training
            split: a group that must leave its split goes to the earliest named one.
        time_block_s: Frames of one source within one block of this length stay in one split; default a
            twentieth of the source, 5 to 60 s.
        guard_s: Frames of one source nearer than this are neighbours, and never in two splits. Where a
            split changes in the middle of continuous footage, frames of this length are set aside.
        near_duplicate: Cosine similarity from which two crops of a class count as the same picture; the
            frames that hold them stay in one split. `auto` starts at 0.95 and goes up as long as one group
            would hold more than 40 % of the frames; `null` switches the search off.
        near_duplicate_bits: In how many of 256 bits the difference hashes of two stills may differ, flips
            included, and they count as the same picture and stay in one split. `auto` starts at 10 and goes
            down as long as one group would hold more than 40 % of the frames; `null` switches it off.
        assignments: A CSV file with columns source, frame_index, split, where the splits are given. The
            gate against leaks holds for them too.
        jpeg_quality: Of stored frames, 1 to 100.
    """

    name: str | None = None
    splits: dict[str, float] = Field(default={"train": 0.7, "val": 0.15, "test": 0.15}, min_length=1)
    time_block_s: float | None = Field(default=None, gt=0)
    guard_s: float = Field(default=1.0, ge=0)
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] | None = "auto"
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] | None = "auto"
    assignments: FilePath | None = None
    jpeg_quality: int = Field(default=95, ge=1, le=100)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(
                "a dataset's name is up to 64 letters, digits, dots, underscores and dashes, "
                "starting with a letter or digit"
            )
        return name

    @field_validator("splits")
    @classmethod
    def _splits(cls, splits: dict[str, float]) -> dict[str, float]:
        for name, share in splits.items():
            if not _NAME.fullmatch(name) or name == "aside":
                raise ValueError(f"{name!r} cannot be a split's name: use letters and digits, not 'aside'")
            if not 0 <= share <= 1:
                raise ValueError(f"the share of {name!r} must be between 0 and 1, got {share}")
        if abs(sum(splits.values()) - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, got {sum(splits.values()):g}")
        return splits
