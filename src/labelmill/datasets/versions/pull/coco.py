"""COCO detection: `<split>/` of pictures, `annotations/instances_<split>.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from labelmill.datasets.versions.pull.choose import Chosen, Item


def items(chosen: Chosen) -> Iterator[Item]:
    """Files of a detector set. Ids count from 1; `region_id` and `frame_id` name the version's rows."""
    categories = [
        {"id": number, "name": label, "supercategory": ""}
        for number, label in enumerate(chosen.classes, start=1)
    ]
    number = {category["name"]: category["id"] for category in categories}
    for split in chosen.splits:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for picture in chosen.pictures:
            if picture.split != split:
                continue
            file_name = f"{picture.name}.jpg"
            yield Item(f"{split}/{file_name}", media=picture.media)
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": file_name,
                    "width": picture.width_px,
                    "height": picture.height_px,
                    "frame_id": picture.frame_id,
                }
            )
            for box in picture.boxes:
                x1, y1, x2, y2 = box.xyxy
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": number[box.label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "region_id": box.region_id,
                    }
                )
        document = {
            "info": {"description": chosen.manifest.name, "version": chosen.digest},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        data = json.dumps(document, ensure_ascii=False).encode()
        yield Item(f"annotations/instances_{split}.json", data=data)
