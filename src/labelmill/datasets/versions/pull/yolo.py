"""YOLO, as ultralytics reads it: `images/<split>`, `labels/<split>`, `data.yaml`."""

from __future__ import annotations

from collections.abc import Iterator

from labelmill.datasets.versions.pull.choose import Chosen, Item, Picture

_KEYS = ("train", "val", "test")
"""Words that ultralytics looks for in data.yaml; its `path` is left out: the folder of the file is meant."""


def items(chosen: Chosen) -> Iterator[Item]:
    """Files of a detector set; a frame without boxes has an empty label file, and is background."""
    import yaml

    number = {label: index for index, label in enumerate(chosen.classes)}
    for picture in chosen.pictures:
        yield Item(f"images/{picture.split}/{picture.name}.jpg", media=picture.media)
        yield Item(f"labels/{picture.split}/{picture.name}.txt", data=_lines(picture, number).encode())
    named = {split: f"images/{split}" for split in chosen.splits}
    if "train" not in named or "val" not in named:  # splits of other names stand in, in their order
        free = iter([key for key in _KEYS if key not in named])
        named |= {next(free, split): folder for split, folder in list(named.items()) if split not in _KEYS}
    document = {**named, "names": dict(enumerate(chosen.classes))}
    head = f"# {chosen.manifest.name} {chosen.digest}, pulled by labelmill\n"
    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    yield Item("data.yaml", data=(head + text).encode())


def _lines(picture: Picture, number: dict[str, int]) -> str:
    lines = []
    for box in picture.boxes:
        x1, y1, x2, y2 = box.xyxy
        centre_x, centre_y = (x1 + x2) / 2 / picture.width_px, (y1 + y2) / 2 / picture.height_px
        width, height = (x2 - x1) / picture.width_px, (y2 - y1) / picture.height_px
        values = " ".join(f"{min(max(value, 0.0), 1.0):.6f}" for value in (centre_x, centre_y, width, height))
        lines.append(f"{number[box.label]} {values}\n")
    return "".join(lines)
