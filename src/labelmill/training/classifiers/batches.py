"""Crops from disk as batches, decoded ahead in threads.

Every random number comes from (seed, epoch, crop), never from what ran before: a resumed training sees the
pictures that an undisturbed one sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import cv2
import numpy as np
import torch

from labelmill.annotators.crops import stack_crops
from labelmill.annotators.types import Image
from labelmill.training.inputs import Crop, load_rgb

_AHEAD = 2  # batches decoded before they are asked for
_ASPECT = (3 / 4, 4 / 3)
_MIN_AREA = 0.5  # of the crop that a training view keeps
_LIGHT = 0.2  # most change of brightness and contrast, as a share


class Batch(NamedTuple):
    """Some crops.

    Attributes:
        images: RGB 0 to 1, shape (n, 3, side, side), float32.
        labels: Index of each class, shape (n,).
    """

    images: torch.Tensor
    labels: torch.Tensor


class Crops:
    """The crops of one split.

    Args:
        crops: Files and their labels.
        classes: Names by index; every label is among them.
        image_px: Side of the pictures.
        workers: Threads that decode.
    """

    def __init__(
        self, crops: Sequence[Crop], classes: Sequence[str], image_px: int, workers: int = 2
    ) -> None:
        index = {name: number for number, name in enumerate(classes)}
        self._paths = [crop.path for crop in crops]
        self.labels = np.array([index[crop.label] for crop in crops], np.int64)
        self.image_px = image_px
        self._workers = workers

    def __len__(self) -> int:
        return len(self._paths)

    def in_order(self, size: int) -> Iterator[Batch]:
        """Every crop once, unchanged, in the order of the split."""
        return self._batches(np.arange(len(self)), size, None, flip=False)

    def shuffled(self, size: int, seed: int, epoch: int, *, flip: bool) -> Iterator[Batch]:
        """Every crop once, in the order of this epoch, each changed a little."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        return self._batches(order, size, (seed, epoch), flip=flip)

    def _batches(
        self,
        order: np.ndarray[tuple[int], np.dtype[np.int64]],
        size: int,
        key: tuple[int, int] | None,
        *,
        flip: bool,
    ) -> Iterator[Batch]:
        def load(number: int) -> Image:
            image = load_rgb(self._paths[number])
            if key is not None:
                image = vary(image, np.random.default_rng((*key, number)), flip=flip)
            square: Image = stack_crops([image], self.image_px)[0]
            return square

        def ready(waiting: deque[tuple[list[int], list[Future[Image]]]]) -> Batch:
            numbers, futures = waiting.popleft()
            pixels = np.stack([future.result() for future in futures])
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
            return Batch(images, torch.from_numpy(self.labels[numbers]))

        with ThreadPoolExecutor(self._workers) as pool, closing(_Cancel(pool)):
            waiting: deque[tuple[list[int], list[Future[Image]]]] = deque()
            for start in range(0, len(order), size):
                numbers = order[start : start + size].tolist()
                waiting.append((numbers, [pool.submit(load, number) for number in numbers]))
                if len(waiting) > _AHEAD:
                    yield ready(waiting)
            while waiting:
                yield ready(waiting)


class _Cancel:
    """Lets a reader that stops early go without decoding the rest."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def vary(image: Image, random: np.random.Generator, *, flip: bool) -> Image:
    """A training view: a part of the crop, perhaps mirrored, a little brighter or darker.

    Args:
        image: RGB.
        random: The only source of chance.
        flip: Whether it may be mirrored.
    """
    height, width = image.shape[:2]
    area = random.uniform(_MIN_AREA, 1)
    aspect = np.exp(random.uniform(*np.log(_ASPECT)))
    part_w = min(width, max(1, round(width * np.sqrt(area * aspect))))
    part_h = min(height, max(1, round(height * np.sqrt(area / aspect))))
    left, top = int(random.integers(width - part_w + 1)), int(random.integers(height - part_h + 1))
    view = image[top : top + part_h, left : left + part_w]
    if flip and random.random() < 0.5:
        view = view[:, ::-1]
    contrast = random.uniform(1 - _LIGHT, 1 + _LIGHT)
    brightness = random.uniform(-_LIGHT, _LIGHT) * 255
    grey = 127.5
    levels = np.clip((np.arange(256) - grey) * contrast + grey + brightness, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(view), levels), np.uint8)
