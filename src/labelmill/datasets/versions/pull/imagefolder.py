"""Crops in a folder per class, as torchvision's ImageFolder and Hugging Face's imagefolder read it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from labelmill.datasets.versions.pull.choose import Chosen, Item


def items(chosen: Chosen) -> Iterator[Item]:
    """Files of a classifier set: `<split>/<class>/<region id>.jpg`, and `classes.json`."""
    for picture in chosen.pictures:
        for box in picture.boxes:
            yield Item(f"{picture.split}/{chosen.folders[box.label]}/{box.region_id}.jpg", media=box.crop)
    document = {
        "version": chosen.manifest.name,
        "digest": chosen.digest,
        "classes": [
            {"number": number, "label": label, "folder": chosen.folders[label]}
            for number, label in enumerate(sorted(chosen.classes, key=lambda label: chosen.folders[label]))
        ],
    }
    yield Item("classes.json", data=(json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode())


def warnings(chosen: Chosen) -> list[str]:
    """What a trainer would stumble over."""
    counts = chosen.counts()
    return [
        f"{split} has no crop of {label!r}: torchvision's ImageFolder numbers the classes of each split on "
        "its own, so take the numbers from classes.json"
        for split in chosen.splits
        for label in chosen.classes
        if not counts[split].get(label)
    ]
