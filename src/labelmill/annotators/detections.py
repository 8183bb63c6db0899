"""supervision's box container, without the rest of supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelmill.imports import outline

if TYPE_CHECKING:
    import supervision as sv


def detections_class() -> type[sv.Detections]:
    """`supervision.Detections`.

    The whole package takes seconds of processor time to import, most of them for scipy's interpolation, which
    one of its painters uses.
    """
    outline("supervision")
    from supervision.detection.core import Detections

    found: type[sv.Detections] = Detections
    return found
