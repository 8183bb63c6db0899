"""Checkpoints that are whole, ours, and plain: a kill at any moment leaves one to go on from.

`checkpoints.json` names each file with its SHA-256 and is written last. A file whose bytes differ is never
opened; PyTorch's restricted reader opens the others, so that not even our own file could run a program.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelmill.errors import TrainingError, WorkspaceFullError
from labelmill.files import digest_bytes, disk_errors, sweep_temporary, write_bytes

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

LEDGER = "checkpoints.json"
_KEPT = 2  # the last may be lost to a bad disk; the one before it costs one epoch

State = dict[str, Any]
"""Tensors, numbers, strings, None, and lists and dicts of them."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: Where they lie; made when the first is saved.
        settings: Digest of everything that decides the result: data, settings, initial weights.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self._best: State | None = None

    def save(self, epoch: int, state: State, best: dict[str, torch.Tensor] | None = None) -> None:
        """Save the state after an epoch.

        Args:
            epoch: How many epochs are done.
            state: All that the next epoch needs.
            best: The best weights so far, where this epoch improved on them.

        Raises:
            TrainingError: The disk is full or read-only.
        """
        import torch

        ledger = self._ledger()
        with writing(self.folder):
            buffer = io.BytesIO()
            torch.save(state, buffer)
            entry = self._write(f"epoch-{epoch}.pt", buffer.getvalue()) | {"epoch": epoch}
            if best is not None:
                self._best = self._write(f"best-{epoch}.safetensors", _to_safetensors(best))
            kept = [old for old in ledger["checkpoints"] if old["epoch"] < epoch][: _KEPT - 1]
            ledger["checkpoints"] = [entry | {"best": self._best}, *kept]
            ledger["settings"] = self.settings
            write_bytes(self.folder / LEDGER, json.dumps(ledger, indent=2).encode())
            self._sweep(ledger)

    def load(self) -> State | None:
        """The newest state that is whole; None where a training starts anew.

        Raises:
            TrainingError: The folder's training has other settings.
        """
        import torch

        ledger = self._ledger()
        if not ledger["checkpoints"]:
            return None
        if ledger["settings"] != self.settings:
            raise TrainingError(
                f"{self.folder.parent} holds an unfinished training with other data or settings",
                do="repeat its settings to go on, name another --out, or add --restart to drop it",
            )
        for entry in ledger["checkpoints"]:
            data = self._read(entry)
            best_is_whole = entry["best"] is None or self._read(entry["best"]) is not None
            if data is None or not best_is_whole:
                continue
            try:
                state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
                logger.warning("%s is no checkpoint of tensors: it was not loaded", entry["file"])
                continue
            self._best = entry["best"]
            return state
        logger.warning("no checkpoint in %s is whole: the training starts anew", self.folder)
        return None

    def best(self) -> dict[str, torch.Tensor] | None:
        """The best weights up to the state that was saved or loaded last."""
        data = self._read(self._best) if self._best is not None else None
        return _from_safetensors(data) if data is not None else None

    def clear(self) -> None:
        """Remove every checkpoint, the ledger first."""
        with suppress(FileNotFoundError):
            (self.folder / LEDGER).unlink()
        for path in [*self.folder.glob("epoch-*.pt"), *self.folder.glob("best-*.safetensors")]:
            path.unlink(missing_ok=True)

    def _ledger(self) -> State:
        empty: State = {"settings": self.settings, "checkpoints": []}
        try:
            found: State = json.loads((self.folder / LEDGER).read_text())
            entries = [*found["checkpoints"], *(entry["best"] for entry in found["checkpoints"])]
            if all(entry is None or (entry["file"] and entry["sha256"]) for entry in entries):
                return {"settings": str(found["settings"]), "checkpoints": found["checkpoints"]}
        except FileNotFoundError:
            return empty
        except (OSError, ValueError, KeyError, TypeError):
            pass
        logger.warning("%s is damaged: the training starts anew", self.folder / LEDGER)
        return empty

    def _write(self, name: str, data: bytes) -> State:
        write_bytes(self.folder / name, data)
        return {"file": name, "sha256": digest_bytes(data)}

    def _read(self, entry: State) -> bytes | None:
        path = self.folder / Path(entry["file"]).name
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        if digest_bytes(data) == entry["sha256"]:
            return data
        logger.warning("checkpoint %s is damaged or absent: going on from an earlier one", path)
        return None

    def _sweep(self, ledger: State) -> None:
        named = {entry["file"] for entry in ledger["checkpoints"]}
        named |= {entry["best"]["file"] for entry in ledger["checkpoints"] if entry["best"]}
        for path in [*self.folder.glob("epoch-*.pt"), *self.folder.glob("best-*.safetensors")]:
            if path.name not in named:
                path.unlink(missing_ok=True)
        sweep_temporary(self.folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the disk's refusals into a line about a model folder.

    Raises:
        TrainingError: No space is left.
        WorkspaceError: The disk is read-only.
    """
    try:
        with disk_errors(folder):
            yield
    except WorkspaceFullError as error:
        raise TrainingError(
            f"no space left in {folder}",
            do="free some and run the same command again: it goes on from the last checkpoint",
        ) from error


def _to_safetensors(tensors: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    data: bytes = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    return data


def _from_safetensors(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    tensors: dict[str, torch.Tensor] = load(data)
    return tensors
