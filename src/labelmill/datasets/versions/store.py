"""Where versions lie, how they are named, and how a new one appears: whole, by one rename."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from labelmill.config import nearest
from labelmill.datasets.versions.manifest import Manifest, parse
from labelmill.datasets.versions.tables import FRAMES, REGIONS, read_table
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError
from labelmill.files import TEMPORARY_PREFIX, digest_bytes, disk_errors

_SPEC = re.compile(r"(?P<dataset>[A-Za-z0-9][A-Za-z0-9._-]*)(?:@(?P<which>.+))?")


@dataclass(frozen=True)
class Version:
    """A version on disk.

    Attributes:
        folder: Where its files lie.
        manifest: What it is.
        digest: SHA-256 of the manifest's file: its identity.
    """

    folder: Path
    manifest: Manifest
    digest: str

    @cached_property
    def frames(self) -> pa.Table:
        """Its frames, columns `tables.FRAMES`."""
        return read_table(self.folder / self.manifest.frames.file, FRAMES)

    @cached_property
    def regions(self) -> pa.Table:
        """Its regions, columns `tables.REGIONS`."""
        return read_table(self.folder / self.manifest.regions.file, REGIONS)


class VersionStore:
    """The versions of a workspace.

    Args:
        workspace: The workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.root = workspace.versions

    def datasets(self) -> list[str]:
        """Names of the datasets that have a version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and self.numbers(path.name))

    def numbers(self, dataset: str) -> list[int]:
        """Numbers of a dataset's versions, ascending."""
        folder = self.root / dataset
        if not folder.is_dir():
            return []
        found = (re.fullmatch(r"v([1-9]\d*)", path.name) for path in folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def load(self, dataset: str, number: int) -> Version:
        """Read one version's manifest.

        Raises:
            VersionError: It is absent, damaged, or not what its digest file says.
        """
        folder = self.root / dataset / f"v{number}"
        path = folder / "manifest.json"
        try:
            data = path.read_bytes()
            identity = (folder / "manifest.sha256").read_text().split(maxsplit=1)[0]
        except (OSError, IndexError) as error:
            raise VersionError(
                f"{dataset}@v{number} is not whole",
                got=f"no readable {path.name} and manifest.sha256 in {folder}",
                do="restore the folder from a copy",
            ) from error
        digest = digest_bytes(data)
        if digest != identity:
            raise VersionError(
                f"the manifest of {dataset}@v{number} was edited",
                got=f"digest {digest[:16]}…",
                expected=f"{identity[:16]}…",
                do="versions are immutable: restore the file from a copy, and publish a new version instead",
            )
        manifest = parse(data, str(path))
        if (manifest.dataset, manifest.number) != (dataset, number):
            raise VersionError(
                f"{folder} holds another version", got=manifest.name, expected=f"{dataset}@v{number}"
            )
        return Version(folder, manifest, digest)

    def all(self, dataset: str) -> list[Version]:
        """Every version of a dataset, ascending."""
        return [self.load(dataset, number) for number in self.numbers(dataset)]

    def latest(self, dataset: str) -> Version | None:
        """The version with the highest number, if there is one."""
        numbers = self.numbers(dataset)
        return self.load(dataset, numbers[-1]) if numbers else None

    def resolve(self, spec: str) -> Version:
        """Find the version that a person names.

        Args:
            spec: `dataset@v3`, `dataset@3`, `dataset@latest`, `dataset` (the latest), `v3` or `latest` (of
                the only dataset), or `dataset@sha256:<digest or its first 8 or more digits>`.

        Raises:
            VersionError: There is none, or several.
        """
        if re.fullmatch(r"v?\d+|latest|sha256:[0-9a-f]+", spec):
            spec = f"{self._only()}@{spec}"
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise VersionError("cannot read the version's name", got=repr(spec), expected="DATASET@vN")
        dataset, which = match["dataset"], match["which"] or "latest"
        numbers = self.numbers(dataset)
        if not numbers:
            known = self.datasets()
            hint = (
                nearest(dataset, known) if known else "nothing is published yet: run labelmill publish LINE"
            )
            raise VersionError(f"no dataset {dataset!r} in {self.workspace.root}", do=hint)
        if which == "latest":
            return self.load(dataset, numbers[-1])
        if which.startswith("sha256:"):
            return self._by_digest(dataset, which.removeprefix("sha256:"))
        number = re.fullmatch(r"v?(\d+)", which)
        if number is None or int(number[1]) not in numbers:
            raise VersionError(
                f"{dataset} has no version {which!r}",
                expected=", ".join(f"v{n}" for n in numbers[-8:]),
                do=f"labelmill versions {dataset}",
            )
        return self.load(dataset, int(number[1]))

    def _only(self) -> str:
        known = self.datasets()
        if len(known) != 1:
            raise VersionError(
                "name the dataset too",
                got=f"{len(known)} datasets in {self.workspace.root}",
                expected=", ".join(f"{name}@vN" for name in known) or "one published dataset",
            )
        return known[0]

    def _by_digest(self, dataset: str, prefix: str) -> Version:
        hits = [version for version in self.all(dataset) if version.digest.startswith(prefix)]
        if len(prefix) < 8 or len(hits) != 1:
            raise VersionError(
                f"{len(hits)} versions of {dataset} have this digest",
                got=prefix,
                expected="8 or more hex digits of one version's digest",
                do=f"labelmill versions {dataset} --json lists them",
            )
        return hits[0]

    @contextmanager
    def staging(self, dataset: str) -> Iterator[Path]:
        """A folder to make a version in, removed unless it was committed.

        Call under the workspace's lock.
        """
        folder = self.root / dataset / f"{TEMPORARY_PREFIX}version"
        with disk_errors(self.workspace.root):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()  # only where the dataset has no version at all

    def commit(self, staging: Path, manifest: Manifest) -> Version:
        """Make the staged folder the version: from here on it exists.

        The manifest and its digest are written here; every byte is on the disk before the name is.
        """
        data = manifest.to_bytes()
        digest = digest_bytes(data)
        target = self.root / manifest.dataset / f"v{manifest.number}"
        with disk_errors(self.workspace.root):
            (staging / "manifest.json").write_bytes(data)
            (staging / "manifest.sha256").write_text(f"{digest}  manifest.json\n")
            for path in staging.iterdir():
                _sync(path)
                path.chmod(0o444)
            _sync(staging)
            staging.rename(target)
            _sync(target.parent)
        return Version(target, manifest, digest)


def _sync(path: Path) -> None:
    import os

    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
