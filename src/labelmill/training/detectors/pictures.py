"""Our pictures as ultralytics' dataset: labels from memory, nothing written beside the user's data.

Left alone, ultralytics leaves `labels/*.cache` (a pickle) beside the labels, and rewrites JPEGs that it takes
for damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ultralytics.data.dataset import YOLODataset

from labelmill.training.inputs import Picture


class Pictures(YOLODataset):  # type: ignore[misc]  # ultralytics has no types
    """The pictures of one split.

    Args:
        pictures: With their boxes.
        settings: For ultralytics' own dataset.
    """

    def __init__(self, pictures: Sequence[Picture], **settings: Any) -> None:
        self._pictures = pictures
        super().__init__(img_path="", task="detect", **settings)

    def get_img_files(self, img_path: Any) -> list[str]:
        """Paths of the pictures."""
        return [str(picture.path) for picture in self._pictures]

    def get_labels(self) -> list[dict[str, Any]]:
        """One entry a picture, as ultralytics keeps them."""
        return [_label(picture) for picture in self._pictures]

    def begin_epoch(self, random: np.random.Generator) -> None:
        """Fill the buffer from which mosaics choose anew, so that an epoch depends on nothing before it.

        Args:
            random: The only source of chance.
        """
        for number in self.buffer:
            self.ims[number] = self.im_hw0[number] = self.im_hw[number] = None
        self.buffer: list[int] = random.permutation(self.ni)[: self.max_buffer_length].tolist()


def _label(picture: Picture) -> dict[str, Any]:
    wh = np.array([picture.width_px, picture.height_px], np.float32)
    low, high = picture.xyxy[:, :2] / wh, picture.xyxy[:, 2:] / wh
    return {
        "im_file": str(picture.path),
        "shape": (picture.height_px, picture.width_px),
        "cls": picture.classes.reshape(-1, 1).astype(np.float32),
        "bboxes": np.concatenate([(low + high) / 2, high - low], axis=1).astype(np.float32),
        "segments": [],
        "keypoints": None,
        "normalized": True,
        "bbox_format": "xywh",
    }
