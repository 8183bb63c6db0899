"""The `sources` and `selection` sections of a line file."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from labelmill.config import Config, FilePath


class SourceConfig(Config):
    """One source of footage: a video file, or a folder of videos or of images.

    Attributes:
        video: A video file, or a folder whose video files are taken in the order of their names.
        images: A folder of still images, taken in the order of their names, sub-folders included.
    """

    video: FilePath | None = None
    images: FilePath | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.video is None) == (self.images is None):
            raise PydanticCustomError("source", "a source is either `video: PATH` or `images: FOLDER`")
        return self


class RepeatsConfig(Config):
    """When a frame counts as a repeat of the last one that was kept.

    Attributes:
        threshold: Largest change of any cell (about a fortieth of the picture's width) for which a frame
            is still a repeat, in grey levels of 255. Sensor noise and compression move a cell by 1 or 2.
    """

    threshold: Annotated[float, Field(ge=0, le=255)] = 4.0


class SelectionConfig(Config):
    """Which frames are looked at.

    Attributes:
        stride: Take every n-th frame.
        fps: Take so many frames a second instead; still images are all taken.
        repeats: Drop near-identical frames of a fixed camera; `false` keeps them.
        shard_frames: Sampled frames in one shard, the unit of work. The first frame of a shard is never a
            repeat, so that shards do not wait for each other.
    """

    stride: Annotated[int, Field(ge=1)] = 1
    fps: Annotated[float, Field(gt=0)] | None = None
    repeats: RepeatsConfig | None = RepeatsConfig()
    shard_frames: Annotated[int, Field(ge=1, le=100_000)] = 512

    @field_validator("repeats", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        if value is True:
            return {}
        return None if value is False else value

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.fps is not None and self.stride != 1:
            raise PydanticCustomError("selection", "give either `stride` or `fps`, not both")
        return self
