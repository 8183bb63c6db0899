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

_DESCRIPTIONS = {
    "split": "Which split the frame belongs to; aside: between two splits, in neither",
    "group": "Frames of one group are never in two splits",
    "pending": "Regions on this frame that wait for a person and are not in the version",
    "timestamp_s": "Seconds from the start of the source",
    "regions": "Labelled boxes; NG is the label of what matches no class",
    "regions.detections.similarity": "Cosine to the nearest template, -1 to 1",
    "regions.detections.margin": "Similarity less that of the runner-up",
    "regions.detections.route": "accepted, review or ng: what the machine made of it",
    "regions.detections.decided_by": "machine, or person where somebody reviewed it",
    "regions.detections.machine_label": "What the machine said, also where a person said otherwise",
    "regions.detections.crop": "Digest of the crop's file in media/",
    "regions.detections.confidence": "The proposer's score",
}


def dress(fo: Any, dataset: Any, manifest: Manifest) -> None:
    """Make a staged dataset pleasant to look at."""
    for path, text in _DESCRIPTIONS.items():
        field = dataset.get_field(path)
        field.description = text
        field.save()
    dataset.default_classes = [*manifest.classes, NG]
    dataset.save()
