"""Fetching a model from the hub once, with the digest of every file written down."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from labelmill.annotators.known_models import known, near
from labelmill.annotators.model_store import (
    FileEntry,
    Manifest,
    folder_of,
    how_to_pull,
    is_hub_id,
    models_folder,
    verify,
)
from labelmill.errors import WeightsError
from labelmill.files import digest_file

_log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.pth")
"""In order of preference: a page with safetensors gives no pickle."""
_BESIDE = ("*.json", "*.txt", "*.model", "*.cfg.py")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file on the hub; `sha256` is None for small files, whose digest the hub does not publish."""

    name: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull would fetch.

    Attributes:
        model: Hub id.
        revision: Commit.
        licence: As the page says.
        source: Address of the hub.
        files: Those that a maker reads.
    """

    model: str
    revision: str
    licence: str
    source: str
    files: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


def hub_address() -> str:
    """The hub, or the mirror that `HF_ENDPOINT` names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def plan(model: str, revision: str | None = None) -> Plan:
    """Ask the hub what a model consists of, and fetch nothing.

    Raises:
        WeightsError: No such model or revision, no permission, or no answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if not is_hub_id(model):
        raise WeightsError(
            f"{model!r} is no hub id",
            expected="organisation/name",
            do=f"{near(model)}labelmill models list names the usual ones",
        )
    try:
        info = HfApi(endpoint=hub_address()).model_info(
            model, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
        )
    except GatedRepoError as error:
        raise WeightsError(
            f"the hub does not give {model} to everybody",
            do=f"accept its terms at {hub_address()}/{model}, and set HF_TOKEN",
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"the hub knows no revision {revision!r} of {model}") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"the hub knows no model {model}",
            do=f"{near(model)}check its spelling; set HF_TOKEN if it is private",
        ) from error
    except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(model, error) from error
    remote = [
        RemoteFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
        if "/" not in file.rfilename
    ]
    chosen = _choose(model, remote)
    if not chosen:
        raise WeightsError(
            f"the hub's page of {model} holds no weights that labelmill reads",
            expected=" or ".join(_WEIGHTS),
            do="fetch it by hand and write the folder in the line file",
        )
    card = info.card_data
    licence = str(card.license) if card is not None and card.license else ""
    return Plan(model, str(info.sha), licence, hub_address(), tuple(chosen))


def pull(model: str, revision: str | None = None) -> Path:
    """Fetch a model into the models folder, unless this revision lies there whole.

    Files that a broken pull had fetched whole are not fetched again.

    Returns:
        The model's folder, with its manifest.

    Raises:
        WeightsError: The hub does not give it, the disk has no room, or bytes arrived damaged.
    """
    from filelock import FileLock
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    wanted = plan(model, revision)
    target = folder_of(model)
    partial = models_folder() / f".partial-{target.name}"
    try:
        models_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(models_folder() / f".lock-{target.name}"):
            if _lies_whole(wanted, target):
                return target
            partial.mkdir(exist_ok=True)
            # What the hub's client was killed over has a random name: it never goes on with it.
            for leftover in (partial / ".cache").rglob("*.incomplete"):
                leftover.unlink()
            _check_room(wanted, partial)
            _log.warning(  # whoever asked for it: a first run may wait for gigabytes
                "fetching %s: %s MB, licence %s, to %s",
                model,
                f"{wanted.size_bytes / 1e6:,.0f}",
                wanted.licence or "not stated",
                target,
            )
            for file in wanted.files:
                hf_hub_download(
                    model,
                    file.name,
                    revision=wanted.revision,
                    local_dir=partial,
                    etag_timeout=_TIMEOUT_S,
                    endpoint=wanted.source,
                )
            manifest = _manifest(wanted, partial)
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            manifest.write(partial)
            if target.exists():
                shutil.rmtree(target)
            partial.replace(target)
    except (HfHubHTTPError, HTTPError) as error:
        raise _unreachable(model, error) from error
    except OSError as error:
        if error.errno is None:  # the client's own, of what did not arrive
            raise _unreachable(model, error) from error
        raise WeightsError(
            f"{model} cannot be stored in {models_folder()}",
            got=error.strerror,
            do="name another folder with LABELMILL_MODELS",
        ) from error
    return target


def _choose(model: str, remote: list[RemoteFile]) -> list[RemoteFile]:
    entry = known(model)
    if entry is not None and entry.files:
        return [file for file in remote if file.name in entry.files]
    beside = [file for file in remote if any(fnmatch.fnmatch(file.name, pattern) for pattern in _BESIDE)]
    for pattern in _WEIGHTS:
        weights = [file for file in remote if fnmatch.fnmatch(file.name, pattern)]
        if weights:
            return [*beside, *weights]
    return []


def _manifest(wanted: Plan, folder: Path) -> Manifest:
    files = {}
    for file in wanted.files:
        path = folder / file.name
        sha256 = digest_file(path)
        if file.sha256 not in (None, sha256):
            path.unlink()
            raise WeightsError(
                f"{file.name} of {wanted.model} arrived damaged",
                got=f"SHA-256 {sha256[:12]}…",
                expected=f"{str(file.sha256)[:12]}…",
                do="pull it again",
            )
        files[file.name] = FileEntry(sha256, path.stat().st_size)
    return Manifest(wanted.model, wanted.revision, wanted.licence, wanted.source, files)


def _lies_whole(wanted: Plan, target: Path) -> bool:
    try:
        manifest = Manifest.read(target)
    except WeightsError:  # damaged: what it says of the files is lost
        return False
    return (
        manifest is not None
        and manifest.revision == wanted.revision
        and set(manifest.files) == {file.name for file in wanted.files}
        and not verify(wanted.model)
    )


def _check_room(wanted: Plan, folder: Path) -> None:
    fetched = (folder / file.name for file in wanted.files)
    present = sum(path.stat().st_size for path in fetched if path.is_file())
    free = shutil.disk_usage(folder).free
    if wanted.size_bytes - present > free:
        raise WeightsError(
            f"no room for {wanted.model} in {models_folder()}",
            got=f"{free / 1e6:.0f} MB free",
            expected=f"{wanted.size_bytes / 1e6:.0f} MB",
            do="free some space, or name another folder with LABELMILL_MODELS",
        )


def _unreachable(model: str, error: Exception) -> WeightsError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"weights of {model} are not on this machine, and the hub {hub_address()} does not give them",
        got=said,
        do=how_to_pull(model),
    )
