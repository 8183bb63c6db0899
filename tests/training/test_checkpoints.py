"""Checkpoints survive kills and bad disks, and never run what a file says."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from labelmill.errors import TrainingError
from labelmill.files import digest_bytes
from labelmill.training.checkpoints import LEDGER, Checkpoints


def state(epoch: int) -> dict[str, Any]:
    return {"weights": {"w": torch.full((2,), float(epoch))}, "epoch": epoch}


def filled(folder: Path, epochs: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder, "settings")
    for epoch in range(1, epochs + 1):
        checkpoints.save(epoch, state(epoch), {"w": torch.full((2,), float(epoch))} if epoch < 3 else None)
    return checkpoints


def test_the_newest_comes_back(tmp_path: Path) -> None:
    filled(tmp_path)
    again = Checkpoints(tmp_path, "settings")
    found = again.load()
    assert found is not None
    assert found["epoch"] == 3
    best = again.best()
    assert best is not None
    assert best["w"].tolist() == [2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-2.safetensors",
        LEDGER,
        "epoch-2.pt",
        "epoch-3.pt",
    ]


@pytest.mark.parametrize("damage", ["truncated", "exchanged", "gone"])
def test_a_damaged_checkpoint_costs_one_epoch(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    path = tmp_path / "epoch-3.pt"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "truncated" else b"something else")
    found = Checkpoints(tmp_path, "settings").load()
    assert found is not None
    assert found["epoch"] == 2
    assert "damaged or absent" in caplog.text


def test_when_all_are_damaged_the_training_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    for path in tmp_path.glob("epoch-*.pt"):
        path.write_bytes(b"")
    assert Checkpoints(tmp_path, "settings").load() is None
    assert "starts anew" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"checkpoints": [{}]}', '{"checkpoints": [], "settings": 1}']
)
def test_a_damaged_ledger_starts_anew(tmp_path: Path, text: str) -> None:
    filled(tmp_path)
    (tmp_path / LEDGER).write_text(text)
    assert Checkpoints(tmp_path, "settings").load() is None


def test_a_kill_between_the_files_and_the_ledger_keeps_the_old_state(tmp_path: Path) -> None:
    filled(tmp_path)
    ledger = (tmp_path / LEDGER).read_bytes()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Checkpoints(tmp_path, "settings").save(4, state(4), {"w": torch.ones(2)})
    (tmp_path / LEDGER).write_bytes(ledger)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = Checkpoints(tmp_path, "settings").load()
    assert found is not None
    assert found["epoch"] == 3


def test_other_settings_are_refused_with_the_cure(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(TrainingError, match=r"other data or settings.*--restart"):
        Checkpoints(tmp_path, "others").load()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_foreign_pickle_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where somebody wrote its digest into the ledger."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    filled(folder)
    data = pickle.dumps(Bomb(), protocol=2)
    (folder / "epoch-3.pt").write_bytes(data)
    ledger = json.loads((folder / LEDGER).read_text())
    ledger["checkpoints"][0]["sha256"] = digest_bytes(data)
    (folder / LEDGER).write_text(json.dumps(ledger))
    found = Checkpoints(folder, "settings").load()
    assert found is not None
    assert found["epoch"] == 2
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = filled(tmp_path)
    monkeypatch.setattr("labelmill.training.checkpoints.write_bytes", full)
    with pytest.raises(TrainingError, match=r"no space left.*run the same command again"):
        checkpoints.save(4, state(4))
    monkeypatch.undo()
    found = Checkpoints(tmp_path, "settings").load()
    assert found is not None
    assert found["epoch"] == 3
