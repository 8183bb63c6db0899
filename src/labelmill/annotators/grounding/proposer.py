"""The proposer around a Grounding DINO network, whoever made it: batches, prompts, boxes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from labelmill.annotators.box_choice import choose
from labelmill.annotators.devices import Dtype, choose_device, choose_dtype, memory_errors
from labelmill.annotators.prompts import Prompts, TokenGroup, Tokenizer, group_tokens
from labelmill.annotators.shape_batches import ShapeBatches
from labelmill.annotators.types import Frame
from labelmill.config import MakerConfig
from labelmill.errors import LineFileError, WeightsError

if TYPE_CHECKING:
    import supervision as sv
    import torch

_WINDOW_BATCHES = 4
"""Frames of mixed shapes may wait for their like for so many batches."""

Handle = TypeVar("Handle")

Pass = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""What the network says of a batch and one group of phrases: logits and boxes, as in `Network.forward`."""


class GroundingConfig(MakerConfig):
    """Settings of both makers of Grounding DINO.

    Attributes:
        prompts: Phrases to look for, each with the class that its boxes answer to.
        box_threshold: A box stays if its best phrase scores above this (0.3 in the paper).
        text_threshold: A box answers to the phrases that score above this.
        nms_iou: Of two boxes that overlap more than this, the better stays, whatever their classes; null:
            both stay.
        phrases_per_pass: At most so many phrases in one forward pass; null: as many as the text encoder's 256
            tokens hold. Phrases that disturb one another are told apart by a smaller number.
        shortest_px: Frames are scaled until their shorter side has this length …
        longest_px: … unless the longer side would exceed this one.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" is half precision where the hardware has units for it.
        batch_size: Frames in one forward pass; 0: 8 on an accelerator, 1 on a CPU, where more is slower.
    """

    not_in_key: ClassVar[frozenset[str]] = frozenset({"model", "device", "batch_size"})

    prompts: Prompts
    box_threshold: float = Field(default=0.3, ge=0, lt=1)
    text_threshold: float = Field(default=0.25, ge=0, lt=1)
    nms_iou: float | None = Field(default=0.7, gt=0, le=1)
    phrases_per_pass: int | None = Field(default=None, ge=1)
    shortest_px: int = Field(default=800, ge=32, le=4096)
    longest_px: int = Field(default=1333, ge=32, le=8192)
    device: str = "auto"
    dtype: Dtype = "auto"
    batch_size: int = Field(default=0, ge=0, le=256)

    def key_fields(self) -> dict[str, object]:
        """As for every maker, with the number format that `auto` stands for on this machine."""
        return {**super().key_fields(), "dtype": str(choose_dtype(self.dtype, choose_device(self.device)))}


class Network(Protocol):
    """A Grounding DINO network that knows its prompts.

    Attributes:
        tokenizer: Of the text side.
        max_tokens: Length of the text side.
        queries: How many boxes it gives for a frame.
    """

    tokenizer: Tokenizer
    max_tokens: int
    queries: int

    def learn(self, groups: Sequence[TokenGroup]) -> None:
        """Take the prompts that every later pass is about."""
        ...

    def forward(self, pixels: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Look for one group of phrases.

        Args:
            pixels: Normalised, shape (images, 3, height_px, width_px).
            group: Number of the group.

        Returns:
            Logits of every token, shape (images, queries, tokens), and boxes as centre and size relative to
            the image, shape (images, queries, 4).
        """
        ...


class GroundingProposer:
    """Boxes for text prompts; a base class that a maker completes with its network.

    Args:
        config: Settings.
        network: The loaded network.
        device: Where it is.
    """

    context_frames = 0
    lookahead_frames = 0
    sees_repeats = False

    def __init__(self, config: GroundingConfig, network: Network, device: torch.device) -> None:
        from labelmill.annotators.grounding.pixels import PixelReader

        self.config = config
        self.network = network
        self.groups = group_tokens(
            config.prompts, network.tokenizer, network.max_tokens, config.phrases_per_pass
        )
        with memory_errors(config.kind):
            network.learn(self.groups)
        self._read = PixelReader(device, config.shortest_px, config.longest_px)
        self._accelerated = device.type != "cpu"
        self._lock = threading.Lock()  # shards of one run may share a proposer between threads

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings, and load there."""
        return type(self), (self.config,)

    @property
    def batch_size(self) -> int:
        """Frames in one forward pass."""
        return self.config.batch_size or (8 if self._accelerated else 1)

    def propose(self, frames: Iterator[Frame]) -> Iterator[sv.Detections]:
        """Yield the boxes of each frame; reads ahead by a few batches.

        An accelerator's passes run on a thread of their own. Within a pass the networks ask the device for
        numbers a dozen times and wait, so that only another thread can use earlier answers meanwhile.
        """
        if not self._accelerated:
            yield from self._batches(self.look, self.collect, overlap=0).answer(frames)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="grounding") as pool:
            yield from self._batches(
                lambda batch: pool.submit(self.look, batch),
                lambda batch, passes: self.collect(batch, passes.result()),
                overlap=1,
            ).answer(frames)

    def _batches(
        self,
        launch: Callable[[Sequence[Frame]], Handle],
        collect: Callable[[Sequence[Frame], Handle], list[sv.Detections]],
        overlap: int,
    ) -> ShapeBatches[Frame, Handle, sv.Detections]:
        return ShapeBatches(
            shape=lambda frame: frame.image.shape,
            launch=launch,
            collect=collect,
            batch_size=self.batch_size,
            window=self.batch_size * _WINDOW_BATCHES,
            overlap=overlap,
        )

    def launch(self, frames: Sequence[Frame]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Start the forward passes of frames of one shape: logits and boxes of each prompt group.

        Raises:
            LineFileError: The frames are too small or too long for the model, or do not fit into memory.
        """
        import torch

        self._check_size(frames[0])
        with self._lock, torch.inference_mode(), memory_errors(self.config.kind):
            pixels = self._read([frame.image for frame in frames])
            return [self.network.forward(pixels, number) for number in range(len(self.groups))]

    def _check_size(self, frame: Frame) -> None:
        from labelmill.annotators.grounding.pixels import places, target_hw

        height, width = frame.image.shape[:2]
        scaled_hw = target_hw(height, width, self.config.shortest_px, self.config.longest_px)
        if places(*scaled_hw) < self.network.queries:
            raise LineFileError(
                f"frame {frame.name or frame.index} is too small or too long for {self.config.kind!r}",
                got=f"{width}x{height} px, scaled to {scaled_hw[1]}x{scaled_hw[0]}",
                expected=f"at least {self.network.queries} places for boxes",
                do="write a larger shortest_px or longest_px, or take the frame out",
            )

    def look(self, frames: Sequence[Frame]) -> list[Pass]:
        """What `launch` starts, waited for and brought off the device."""
        return [
            (logits.float().cpu().numpy(), boxes.float().cpu().numpy())
            for logits, boxes in self.launch(frames)
        ]

    def collect(self, frames: Sequence[Frame], passes: list[Pass]) -> list[sv.Detections]:
        """Turn what the network said into detections.

        Raises:
            WeightsError: The network gave no numbers, as half precision may.
        """
        scores = []
        for group, (logits, _) in zip(self.groups, passes, strict=True):
            found = np.zeros((*logits.shape[:2], len(self.config.prompts)), dtype=np.float32)
            found[..., group.prompts] = group.scores(logits)
            scores.append(found)
        all_scores = np.concatenate(scores, axis=1)
        all_boxes = np.concatenate([boxes for _, boxes in passes], axis=1)
        if not (np.isfinite(all_scores).all() and np.isfinite(all_boxes).all()):
            raise WeightsError(
                f"the proposer {self.config.kind!r} gave values that are no numbers",
                expected="scores and boxes",
                do="write dtype: float32 in the line file; if that is set, verify the weights",
            )
        return [
            choose(
                all_boxes[number],
                all_scores[number],
                self.config.prompts,
                (frame.image.shape[1], frame.image.shape[0]),
                box_threshold=self.config.box_threshold,
                text_threshold=self.config.text_threshold,
                nms_iou=self.config.nms_iou,
            )
            for number, frame in enumerate(frames)
        ]
