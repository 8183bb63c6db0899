"""Boxes around whatever moves before a fixed camera: no weights, no training.

The background of a frame is the per-pixel median of the frames around it, before and after. Looking a
little ahead is what makes it clean: a thing that was put down, or the place of a thing that was taken
away, already looks as it will look from now on, and so is background at once, while a hand that only
rests for a moment is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from labelmill.annotators.types import Frame
from labelmill.config import MakerConfig

if TYPE_CHECKING:
    import supervision as sv

    from labelmill.annotators.proposers.motion_scene import Scene


class MotionConfig(MakerConfig):
    """Settings of the `motion` proposer. Sizes are shares of the frame, so that they fit any resolution.

    Times are counted in frames of the source, whatever is sampled; a still image counts as 8.

    Attributes:
        phrase: What the boxes are called.
        contrast: How much a pixel must differ from the background, in grey levels of 255: lower finds
            fainter things. Three times the noise of the footage, where that is more.
        min_area: Smallest moving area, as a share of the frame's area.
        max_area: Largest moving area, likewise.
        max_changed: When more than this share of the frame changed, the light or the camera did: no boxes.
        merge_distance: Areas nearer to each other than this share of the frame's longer side are one.
        shadows: "drop" takes darkening and slight brightening without a change of colour for shadow and
            reflection; "keep" is for grey things on grey ground.
        skin: What to do with bare skin, for lines where people work by hand. "ignore": nothing. "prefer":
            in frames where moving skin is seen, box that, not the sleeve and what the hand holds; other
            frames as they are. "require": box moving skin only. A rule on colour: it knows no gloves, takes
            bare wood and cardboard for skin when they move, and wants a tolerable white balance.
        history_frames: Frames of the source before a frame that its background is made of. What is in place
            for less than half of history and look-ahead together can be told from it.
        lookahead_frames: Frames after it. 0 for a causal background: things put down and taken away then
            leave boxes behind until they have rested long enough.
        rest_frames: What keeps still for three quarters of so many frames of the source is background at
            once. Longer keeps hands that pause; shorter forgets things put down sooner.
        work_px: Longer side of the picture that is worked on, in pixels.
    """

    kind: Literal["motion"] = "motion"
    phrase: str = Field(default="motion", min_length=1)
    contrast: float = Field(default=16.0, gt=0, le=255)
    min_area: float = Field(default=0.001, gt=0, lt=1)
    max_area: float = Field(default=0.5, gt=0, le=1)
    max_changed: float = Field(default=0.6, gt=0, le=1)
    merge_distance: float = Field(default=0.04, ge=0, le=1)
    shadows: Literal["drop", "keep"] = "drop"
    skin: Literal["ignore", "prefer", "require"] = "ignore"
    history_frames: int = Field(default=192, ge=64, le=2048)
    lookahead_frames: int = Field(default=64, ge=0, le=512)
    rest_frames: int = Field(default=64, ge=16, le=2048)
    work_px: int = Field(default=320, ge=64, le=1920)

    def reach(self) -> tuple[int, int]:
        """Frames before and after a shard that its backgrounds are made of."""
        return self.history_frames, self.lookahead_frames


class Motion:
    """Boxes around what moves.

    Args:
        config: Settings.
    """

    Config: ClassVar[type[MotionConfig]] = MotionConfig
    version = 1
    sees_repeats = True

    def __init__(self, config: MotionConfig) -> None:
        self.config = config

    def propose(self, frames: Iterator[Frame]) -> Iterator[sv.Detections]:
        """Yield the moving boxes of each frame, at most `lookahead_frames` frames later.

        Where the size of the frames changes, all starts anew.
        """
        from labelmill.annotators.proposers.motion_scene import Scene

        scene: Scene | None = None
        for frame in frames:
            height, width = frame.image.shape[:2]
            if scene is None or scene.size_wh != (width, height):
                if scene is not None:
                    yield from scene.finish()
                scene = Scene(self.config, (width, height))
            yield from scene.feed(frame)
        if scene is not None:
            yield from scene.finish()
