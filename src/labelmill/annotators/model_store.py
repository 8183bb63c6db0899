"""Models on this machine: where they lie, and whether their bytes are still those that were pulled.

Pulled models lie in one folder each below the models folder (`LABELMILL_MODELS`, or the user's data folder),
with a manifest of digests beside the weights. A folder that a user made is used as it is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelmill.annotators.known_models import near, size_of
from labelmill.errors import WeightsError
from labelmill.files import digest_file, write_bytes

MANIFEST = "labelmill-model.json"
_fetching: ContextVar[bool] = ContextVar("fetching", default=True)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a pulled model."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was pulled.

    Attributes:
        model: Hub id.
        revision: Commit on the hub.
        licence: As the model's page says; empty when it says nothing.
        source: Address of the hub.
        files: By name, relative to the model's folder.
    """

    model: str
    revision: str
    licence: str
    source: str
    files: Mapping[str, FileEntry]

    def write(self, folder: Path) -> None:
        """Write `labelmill-model.json`."""
        write_bytes(folder / MANIFEST, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Read a folder's manifest; None where there is none.

        Raises:
            WeightsError: The manifest is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            raw: dict[str, Any] = json.loads(path.read_text())
            files = {name: FileEntry(**entry) for name, entry in raw.pop("files").items()}
            return cls(**raw, files=files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path} is damaged", expected="what `labelmill models pull` wrote", do="pull the model again"
            ) from error


def models_folder() -> Path:
    """Where pulled models lie: `LABELMILL_MODELS`, else `labelmill/models` in the user's data folder."""
    if named := os.environ.get("LABELMILL_MODELS"):
        return Path(os.path.abspath(Path(named).expanduser()))  # noqa: PTH100 - links stay as they were written
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "labelmill" / "models"


def folder_of(model: str) -> Path:
    """Where a hub id's files lie once pulled."""
    return models_folder() / model.replace("/", "--")


def is_hub_id(model: str) -> bool:
    """Whether a text could name a model on the hub: `organisation/name`."""
    return _HUB_ID.fullmatch(model) is not None


def pulled() -> list[Manifest]:
    """The manifests of every pulled model, by name."""
    whole = (path for path in models_folder().glob(f"[!.]*/{MANIFEST}"))  # not what a killed pull left
    found = (Manifest.read(path.parent) for path in sorted(whole))
    return [manifest for manifest in found if manifest is not None]


def verify(model: str) -> list[str]:
    """Compare a pulled model's bytes with its manifest.

    Returns:
        One line for each file that is absent or differs; empty when all is well.

    Raises:
        WeightsError: The model was never pulled.
    """
    folder = folder_of(model)
    manifest = Manifest.read(folder)
    if manifest is None:
        raise WeightsError(
            f"{model} was not pulled to {models_folder()}", do=f"run: labelmill models pull {model}"
        )
    problems = []
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is absent")
        elif path.stat().st_size != entry.size_bytes:
            problems.append(f"{name} has {path.stat().st_size} bytes instead of {entry.size_bytes}")
        elif digest_file(path) != entry.sha256:
            problems.append(f"{name} has other bytes than those pulled")
    return problems


def local_folder(model: str, needs: tuple[str, ...]) -> Path | None:
    """Find a model on this machine without asking the network.

    Args:
        model: A folder, or a hub id: then a pulled one, or one in the Hugging Face cache.
        needs: Patterns of file names; a folder counts when each has a match. Alternatives are parted by `|`.

    Raises:
        WeightsError: `model` is a path, and there is no such folder, or it lacks a file.
    """
    path = Path(model)
    if path.is_dir() or not is_hub_id(model):
        _check_folder(path, needs)
        return path
    if Manifest.read(folder_of(model)) is not None:
        _check_folder(folder_of(model), needs)
        return folder_of(model)
    cached = _hugging_face_cache(model)
    return cached if cached is not None and not _lacking(cached, needs) else None


def obtain(model: str, needs: tuple[str, ...]) -> Path:
    """Find a model on this machine, or pull it.

    Args:
        model: A folder or a hub id.
        needs: As in `local_folder`.

    Raises:
        WeightsError: It is nowhere, and the hub does not answer or does not know it, or `nothing_fetched`.
    """
    found = local_folder(model, needs)
    if found is None:
        if not may_fetch():
            raise WeightsError(
                f"{model} is not on this machine",
                do=how_to_pull(model, f" ({size_of(model)}), here or"),
            )
        from labelmill.annotators.hub import pull

        found = pull(model)
        _check_folder(found, needs)
    return found


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Within, what is not on this machine is an error that says how to fetch it."""
    token = _fetching.set(False)
    try:
        yield
    finally:
        _fetching.reset(token)


def may_fetch() -> bool:
    """Whether gigabytes may be fetched now."""
    return _fetching.get()


def how_to_pull(model: str, place: str = "") -> str:
    """How a model comes to this machine, also without a network, for messages.

    Args:
        model: Hub id.
        place: What stands before "where the hub can be reached".
    """
    return (
        f"{near(model)}run `labelmill models pull {model}`{place} where the hub can be reached, and carry "
        f"the folder that it names to {folder_of(model)} here; or write a local folder in the line file "
        "(model: ./path/to/folder)"
    )


def _hugging_face_cache(model: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None


def _lacking(folder: Path, needs: tuple[str, ...]) -> list[str]:
    return [need for need in needs if not any(any(folder.glob(pattern)) for pattern in need.split("|"))]


def _check_folder(folder: Path, needs: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise WeightsError(
            f"model {folder} is absent",
            expected="a folder with the model's files, or a hub id (organisation/name)",
            do=f"{near(str(folder))}check the path; labelmill models list names the usual ids",
        )
    if lacking := _lacking(folder, needs):
        raise WeightsError(
            f"model folder {folder} lacks {', '.join(need.replace('|', ' or ') for need in lacking)}",
            do="complete it, or write the model's hub id in the line file",
        )
