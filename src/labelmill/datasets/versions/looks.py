"""How a version looks in the FiftyOne App: descriptions, sidebar, colours and saved views.

Takes the fiftyone package as an argument, so that one module alone imports it.
"""

from __future__ import annotations

from typing import Any

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.manifest import Manifest

_COLOURS = (
    "#2f7ed8",
    "#e8891c",
    "#2ca05a",
    "#8e5bd0",
    "#c94f9b",
    "#17a2b8",
    "#a3792f",
    "#5f6fd4",
    "#84a819",
    "#d4604d",
)
_NG_COLOUR = "#8a8f98"


def dress(fo: Any, dataset: Any, manifest: Manifest) -> None:
    """Make a staged dataset pleasant to look at."""
    dataset.default_classes = [*manifest.classes, NG]
    dataset.save()
