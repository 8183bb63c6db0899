"""Pascal VOC: `JPEGImages/`, `Annotations/*.xml`, `ImageSets/Main/<split>.txt`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from labelmill.datasets.versions.pull.choose import Box, Chosen, Item, Picture


def items(chosen: Chosen) -> Iterator[Item]:
    """Files of a detector set."""
    for picture in chosen.pictures:
        yield Item(f"JPEGImages/{picture.name}.jpg", media=picture.media)
        yield Item(f"Annotations/{picture.name}.xml", data=_xml(picture, chosen.manifest.name).encode())
    for split in chosen.splits:
        names = [picture.name for picture in chosen.pictures if picture.split == split]
        yield Item(f"ImageSets/Main/{split}.txt", data="".join(f"{name}\n" for name in names).encode())


def _xml(picture: Picture, version: str) -> str:
    objects = "".join(_object(box, picture) for box in picture.boxes)
    size = f"<width>{picture.width_px}</width><height>{picture.height_px}</height><depth>3</depth>"
    return (
        "<annotation>\n"
        "  <folder>JPEGImages</folder>\n"
        f"  <filename>{picture.name}.jpg</filename>\n"
        f"  <source><database>{escape(version)}</database></source>\n"
        f"  <size>{size}</size>\n"
        "  <segmented>0</segmented>\n"
        f"{objects}</annotation>\n"
    )


def _object(box: Box, picture: Picture) -> str:
    x1, y1, x2, y2 = box.xyxy
    # whole pixels counted from 1, both ends inside (VOC 2012 development kit, section 8.2)
    corners = {
        "xmin": math.floor(x1) + 1,
        "ymin": math.floor(y1) + 1,
        "xmax": min(max(math.ceil(x2), math.floor(x1) + 1), picture.width_px),
        "ymax": min(max(math.ceil(y2), math.floor(y1) + 1), picture.height_px),
    }
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
    return (
        f"  <object><name>{escape(box.label)}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox>{inside}</bndbox></object>\n"
    )
