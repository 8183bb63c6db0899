"""Why a region has its label: everything that led to it, from the footage to the version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from labelmill.config import nearest
from labelmill.datasets.versions.store import Version
from labelmill.datasets.versions.tables import DecidedBy
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError


@dataclass(frozen=True)
class Explanation:
    """The way of one region into one version.

    Attributes:
        version: The version that is explained.
        region: Its row, columns `tables.REGIONS`.
        frame: Its frame's row, columns `tables.FRAMES`.
        history: Version name and label, or None where it was absent, oldest first.
    """

    version: Version
    region: dict[str, Any]
    frame: dict[str, Any]
    history: list[tuple[str, str | None]]

    def because(self) -> str:
        """The reason in one sentence."""
        region = self.region
        if region["decided_by"] == DecidedBy.PERSON.value:
            said = f"{region['annotator']} said so on {region['decided_at']:%Y-%m-%d %H:%M} UTC"
            machine = region["machine_label"]
            agreed = (
                "as the machine had"
                if machine == region["label"]
                else f"where the machine had said {machine}"
            )
            return f"{said}, {agreed}"
        return f"the machine said so ({region['route']}): {region['reason']}"


def explain(versions: list[Version], region_id: str) -> Explanation:
    """Find a region in the newest of some versions that has it.

    Args:
        versions: Of one dataset, oldest first.
        region_id: Or its first 6 or more characters.

    Raises:
        VersionError: No version has it, or several regions begin so.
    """
    history: list[tuple[str, str | None]] = []
    found: tuple[Version, dict[str, Any]] | None = None
    full = region_id
    for version in reversed(versions):
        ids = version.regions["region_id"]
        hits = version.regions.filter(
            pc.equal(ids, full) if found or len(full) < 6 else pc.starts_with(ids, full)
        )
        if hits.num_rows > 1:
            names = ", ".join(hits["region_id"].to_pylist()[:3])
            raise VersionError(f"{hits.num_rows} regions begin with {region_id}", got=names, expected="one")
        label = hits["label"][0].as_py() if hits.num_rows else None
        history.append((version.manifest.name, label))
        if hits.num_rows and found is None:
            found = version, hits.to_pylist()[0]
            full = found[1]["region_id"]
    if found is None:
        if 0 < len(region_id) < 6:
            raise VersionError(
                f"{region_id!r} is too short to find a region by",
                expected="an id, or its first 6 characters or more",
            )
        where = ", ".join(version.manifest.name for version in versions[-3:])
        raise VersionError(
            f"no region {region_id!r} in {where or 'any version'}",
            do="regions that wait for review are in no version; FiftyOne and labelmill diff --json show ids",
        )
    version, region = found
    frames = version.frames
    (frame,) = frames.filter(pc.equal(frames["frame_id"], region["frame_id"])).to_pylist()
    return Explanation(version, region, frame, history[::-1])


def to_json(explanation: Explanation, workspace: Workspace) -> dict[str, Any]:
    """As one JSON value."""
    lineage = explanation.version.manifest.lineage
    region = dict(explanation.region)
    if region["decided_at"] is not None:
        region["decided_at"] = region["decided_at"].isoformat()
    return {
        "version": explanation.version.manifest.name,
        "digest": explanation.version.digest,
        "because": explanation.because(),
        "region": region,
        "frame": explanation.frame,
        "crop": str(workspace.media.path(region["crop_digest"])),
        "picture": str(workspace.media.path(explanation.frame["media_digest"])),
        "history": [{"version": name, "label": label} for name, label in explanation.history],
        "line": {"name": lineage.line, "digest": lineage.line_digest},
        "run": lineage.run,
        "code": lineage.code,
        "flow_run": lineage.flow_run,
    }


def as_text(explanation: Explanation, workspace: Workspace) -> str:
    """For people."""
    region, frame = explanation.region, explanation.frame
    manifest = explanation.version.manifest
    run = manifest.lineage.run
    rows = [
        ("region", f"{region['region_id']} is {region['label']!r} in {manifest.name}"),
        ("because", explanation.because()),
        ("similarity", _figures(region, run.get("lambda"))),
        ("box", f"{_box(region['xyxy'])}, phrase {region['phrase']!r}, score {region['score']:.3f}"),
    ]
    if region["machine_xyxy"] is not None:
        rows.append(("corrected", f"the machine's box was {_box(region['machine_xyxy'])}"))
    if region["decision_id"] is not None:
        seconds = f", {region['seconds']:.1f} s" if region["seconds"] is not None else ""
        rows.append(("decision", f"{region['decision_id']} by {region['annotator']}{seconds}"))
    rows += [
        ("frame", f"{frame['source']} frame {frame['frame_index']}, {frame['timestamp_s']:.2f} s"),
        ("source", f"sha256 {frame['source_digest']}"),
        ("split", f"{frame['split']}, group {frame['group']}"),
        ("crop", str(workspace.media.path(region["crop_digest"]))),
        ("picture", str(workspace.media.path(frame["media_digest"]))),
        ("history", " · ".join(f"{name} {label or '–'}" for name, label in explanation.history)),
        ("line", f"{manifest.lineage.line}, file sha256 {manifest.lineage.line_digest}"),
        ("version", f"{manifest.created_at} by labelmill {manifest.lineage.code}"),
    ]
    rows += [
        ("made by", f"{stage}: {_plain(what)}") for stage, what in sorted(run.get("identities", {}).items())
    ]
    if manifest.lineage.flow_run:
        rows.append(("flow run", manifest.lineage.flow_run))
    return "\n".join(f"{name:<11} {text}" for name, text in rows)


def _figures(region: dict[str, Any], threshold: float | None) -> str:
    text = f"{region['similarity']:.3f} to {region['nearest']!r}"
    if threshold is not None:
        text += f", λ {threshold:.3f}"
    if region["margin"] is not None:
        text += f", margin {region['margin']:.3f} to {region['runner_up']!r}"
    if region["ng_similarity"] is not None:
        text += f", NG {region['ng_similarity']:.3f}"
    return text


def _box(xyxy: list[float]) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in xyxy) + ") px"


def _plain(what: object) -> str:
    if isinstance(what, dict):
        return ", ".join(
            f"{name.rstrip('_')} {value}" for name, value in what.items() if value not in ([], None)
        )
    return str(what)


def dataset_of(names: list[str], dataset: str | None) -> str:
    """Which dataset a person means.

    Raises:
        VersionError: There is none of this name, or several and none was named.
    """
    if dataset is not None and dataset in names:
        return dataset
    if dataset is None and len(names) == 1:
        return names[0]
    raise VersionError(
        "name the dataset" if dataset is None else f"no dataset {dataset!r}",
        do=nearest(dataset or "", names) if names else "nothing is published yet",
    )
