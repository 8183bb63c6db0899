"""How a version looks in the FiftyOne App: colours, sidebar, saved views, and the map of the crops.

Takes the fiftyone package as an argument, so that one module alone imports it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labelmill.datasets.tables import NG
from labelmill.datasets.versions.documents import region_object_id
from labelmill.datasets.versions.show import Comparison, Shown
from labelmill.datasets.versions.tables import ASIDE

_PALETTE = ("#2f7ed8", "#e8891c", "#2ca05a", "#8e5bd0", "#c94f9b", "#17a2b8", "#a3792f", "#5f6fd4", "#84a819")
_GREY = "#8a8f98"
_SPLITS = {"train": "#2f7ed8", "val": "#e8891c", "test": "#8e5bd0", ASIDE: _GREY}
_CLOSEST = 200
"""Regions in the view of those nearest to λ."""


_METADATA = ("width", "height", "mime_type", "size_bytes", "num_channels")


def dress(fo: Any, dataset: Any, shown: Shown) -> None:
    """Give a staged dataset its colours, sidebar groups and saved views."""
    labels = [*shown.manifest.classes, NG]
    dataset.default_classes = labels
    config = dataset.app_config
    config.color_scheme = _colours(fo, shown)
    config.sidebar_groups = _sidebar(fo, shown)
    config.active_fields = fo.ActiveFields(paths=["regions", "split"], exclude=False)
    dataset.save()
    _views(fo, dataset, shown)


def colour_of(number: int, label: str) -> str:
    """A class keeps its colour as long as the sorted label set begins the same; NG is grey."""
    return _GREY if label == NG else _PALETTE[number % len(_PALETTE)]


def before_field(comparison: Comparison) -> str:
    """Name of the field that holds what stood before."""
    return f"before_v{comparison.number}"


def _colours(fo: Any, shown: Shown) -> Any:
    values = [
        {"value": label, "color": colour_of(number, label)}
        for number, label in enumerate([*shown.manifest.classes, NG])
    ]
    splits = [{"value": name, "color": colour} for name, colour in _SPLITS.items()]
    fields = [
        {"path": "regions", "colorByAttribute": "label", "valueColors": values},
        {"path": "split", "colorByAttribute": "value", "valueColors": splits},
    ]
    if shown.since is not None:
        fields.append({"path": before_field(shown.since), "fieldColor": "#d43d3d"})
    return fo.ColorScheme(color_by="value", color_pool=[*_PALETTE, _GREY], fields=fields, opacity=0.7)


def _sidebar(fo: Any, shown: Shown) -> list[Any]:
    before = [] if shown.since is None else [before_field(shown.since)]
    groups = {
        "labels": (["regions", *before], True),
        "split": (["split", "group", "pending"], True),
        "footage": (["source", "frame_index", "timestamp_s", "frame_id"], False),
        "tags": (["tags"], False),
        "metadata": ([f"metadata.{name}" for name in _METADATA], False),
        "other": (["id", "filepath", "created_at", "last_modified_at"], False),
    }
    from_name = fo.SidebarGroupDocument
    return [from_name(name=name, paths=paths, expanded=open_) for name, (paths, open_) in groups.items()]


def _views(fo: Any, dataset: Any, shown: Shown) -> None:
    F = fo.ViewField  # noqa: N806 - as FiftyOne's own documentation writes it
    for split in sorted(set(shown.frames["split"].to_pylist())):
        view = dataset.match(F("split") == split)
        dataset.save_view(f"split {split}", view, description=f"Frames of {split}", color=_SPLITS.get(split))
    _save_patches(fo, dataset, "NG", F("label") == NG, "Crops that match no class", _GREY)
    _save_patches(fo, dataset, "corrected by people", F("corrected") == True, "Label or box was changed")  # noqa: E712
    other = (F("label") != F("machine_label")) | (F("agreement").is_number() & (F("agreement") < 1))
    which = (F("decided_by") == "person") & other
    _save_patches(fo, dataset, "disagreements", which, "People or machine said different things")
    if shown.threshold is not None and shown.regions.num_rows:
        distance = np.abs(shown.regions["similarity"].to_numpy() - shown.threshold)
        width = float(np.sort(distance)[min(_CLOSEST, len(distance)) - 1]) + 1e-9
        near = (F("similarity") - shown.threshold).abs()
        order = (F("regions.similarity") - shown.threshold).abs()
        text = f"Crops nearest to λ = {shown.threshold:.3f}, the least sure first"
        _save_patches(fo, dataset, "closest to λ", near <= width, text, sort_by=order)


def save_comparison(fo: Any, dataset: Any, comparison: Comparison) -> None:
    """Save the view of what changed, with what stood before beside what stands now."""
    gone = f"; {comparison.gone} frames are no longer in it" if comparison.gone else ""
    field = before_field(comparison)
    dataset.save_view(
        f"changed since v{comparison.number}",
        dataset.exists(field).select_fields([*_KEPT, "regions", field]),
        description=f"What changed since {comparison.name}: {field} holds the labels of then{gone}",
        color="#d43d3d",
        overwrite=True,
    )


_KEPT = ("source", "frame_index", "timestamp_s", "split", "group", "pending")


def _save_patches(
    fo: Any, dataset: Any, name: str, which: Any, text: str, colour: str | None = None, sort_by: Any = None
) -> None:
    """Save a view of crops without making it now: FiftyOne makes it when somebody opens it."""
    view = dataset.filter_labels("regions", which)
    view._stages.append(fo.ToPatches(field="regions"))
    if sort_by is not None:
        view._stages.append(fo.SortBy(sort_by))
    dataset.save_view(name, view, description=text, color=colour)


def add_maps(brain: Any, dataset: Any, shown: Shown) -> None:
    """Let the App sort crops by similarity and plot them in the plane, from the stored embeddings."""
    if shown.embedded is None:
        return
    ids = [str(region_object_id(name)) for name in shown.embedded.region_ids]
    brain.compute_visualization(
        dataset,
        patches_field="regions",
        points=dict(zip(ids, shown.embedded.points, strict=True)),
        brain_key="crops",
        method="manual",
        progress=False,
    )
    index = brain.compute_similarity(
        dataset, patches_field="regions", embeddings=False, brain_key="crops_similarity", backend="sklearn"
    )
    index.add_to_index(
        shown.embedded.vectors, np.array(shown.embedded.frame_ids), label_ids=np.array(ids), reload=False
    )
    index.save()
