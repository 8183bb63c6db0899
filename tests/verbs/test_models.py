from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.annotators.fake_hub import FILES, REVISION, Hub, running_hub

from labelmill.cli import main


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LABELMILL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield running


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["models", *arguments])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    _, out, _ = run(capsys, *arguments, "--json")
    return json.loads(out)


def test_list_pull_verify(
    hub: Hub, store: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    listed = document(capsys, "list")
    assert listed["folder"] == str(store)
    names = {row["model"]: row for row in listed["models"]}
    assert names["IDEA-Research/grounding-dino-tiny"]["licence"] == "Apache-2.0"
    assert names["IDEA-Research/grounding-dino-tiny"]["folder"] is None

    status, out, _ = run(capsys, "pull", "acme/tiny")
    assert (status, out) == (0, f"acme/tiny at {REVISION[:12]} lies in {store / 'acme--tiny'}\n")
    assert f"fetching acme/tiny: 0 MB, licence mit, to {store / 'acme--tiny'}" in caplog.messages

    again = document(capsys, "pull", "acme/tiny")
    assert again["revision"] == REVISION
    assert set(again["files"]) == {"config.json", "model.safetensors", "vocab.txt"}
    row = document(capsys, "list")["models"][-1]
    assert (row["model"], row["licence"], row["folder"]) == ("acme/tiny", "mit", str(store / "acme--tiny"))

    assert run(capsys, "verify") == (0, "acme/tiny: ok\n", "")
    assert document(capsys, "verify") == {"ok": True, "models": {"acme/tiny": []}}
    (store / "acme--tiny" / "vocab.txt").write_bytes(FILES["vocab.txt"] + b"more")
    status, out, _ = run(capsys, "verify", "acme/tiny")
    assert status == 2
    assert out == "acme/tiny: vocab.txt has 9 bytes instead of 5\ncure: labelmill models pull acme/tiny\n"


def test_nothing_was_pulled(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify") == (0, "no model was pulled yet\n", "")


def test_no_hub_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    status, out, err = run(capsys, "pull", "acme/tiny")
    assert (status, out) == (2, "")
    assert err.startswith("labelmill: weights of acme/tiny are not on this machine, and the hub")
    assert err.count("\n") == 1
