"""Whether FiftyOne shows what a version says; asked of its database, without importing FiftyOne."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labelmill.datasets.database import open_database
from labelmill.datasets.versions.documents import FIELDS, INFO_KEY, documents
from labelmill.datasets.versions.manifest import Manifest
from labelmill.datasets.versions.store import Version
from labelmill.datasets.workspace import Workspace


def shows(folder: Path, manifest: Manifest, digest: str) -> bool:
    """Whether FiftyOne has this very version.

    Args:
        folder: Of the embedded database.
        manifest: The version.
        digest: Its identity.
    """
    with open_database(folder) as database:
        known = database.datasets.find_one({"name": manifest.window_name}, {"info": 1}) or {}
    info: dict[str, Any] = (known.get("info") or {}).get(INFO_KEY) or {}
    return info.get("digest") == digest


def differences(workspace: Workspace, folder: Path, version: Version) -> list[str] | None:
    """Find samples that FiftyOne shows otherwise than the version says.

    Tags, views and fields that people added are theirs, and no difference.

    Args:
        workspace: Where its media are.
        folder: Of the embedded database.
        version: The version.

    Returns:
        Frame ids, sorted; None where FiftyOne does not have the version.
    """
    import bson

    with open_database(folder) as database:
        found = database.datasets.find_one({"name": version.manifest.window_name})
        if found is None:
            return None
        keys = ("_id", "filepath", *FIELDS, "regions")
        samples = database[found["sample_collection_name"]]
        stored = {sample["_id"]: sample for sample in samples.find({}, dict.fromkeys(keys, 1))}
    different: list[str] = []
    for batch in documents(version.frames, version.regions, workspace.media, None, datetime.now(UTC)):
        for document in map(bson.decode, batch):
            expected = {key: document[key] for key in keys}
            if _content(stored.pop(document["_id"], {})) != _content(expected):
                different.append(document["frame_id"])
    return sorted([*different, *(str(name) for name in stored)])


def _content(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample document without the tags that people give to regions."""
    regions = (sample.get("regions") or {}).get("detections", [])
    stripped = [{key: value for key, value in region.items() if key != "tags"} for region in regions]
    return {**sample, "regions": stripped}
