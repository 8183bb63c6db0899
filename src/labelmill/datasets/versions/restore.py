"""FiftyOne made again from the versions' own files."""

from __future__ import annotations

from labelmill.datasets.versions.show import Progress, Window, gather
from labelmill.datasets.versions.store import Version, VersionStore
from labelmill.datasets.versions.verify import verify
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError


def restore(workspace: Workspace, version: Version, window: Window, progress: Progress) -> None:
    """Write a version into FiftyOne, in place of what stands there. Call under the workspace's lock.

    Args:
        workspace: Of the version.
        version: The version.
        window: FiftyOne.
        progress: Called as the work goes on.

    Raises:
        VersionError: The version's files are not what its manifest says, or a picture is gone.
        ServiceError: The database does not answer.
    """
    found = verify(workspace, version, media=False)
    if not found.ok:
        raise VersionError(
            f"{version.manifest.name} is damaged",
            got=found.faults[0],
            expected="a version that labelmill verify proves",
            do="restore its files from a copy first",
        )
    manifest = version.manifest
    store = VersionStore(workspace)
    parent = None
    if manifest.parent is not None and manifest.parent.number in store.numbers(manifest.dataset):
        parent = store.load(manifest.dataset, manifest.parent.number)
    shown = gather(workspace, manifest, version.frames, version.regions, parent)
    window.reveal(window.stage(shown, progress), manifest, version.digest)
