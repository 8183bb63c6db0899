"""What the verbs say when a server, a database or the user stops them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.annotators.fake_hub import running_hub
from tests.conftest import make_bench
from tests.datasets.versions.made import made_run

from labelmill import __version__
from labelmill.cli import main
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.publish import publish
from labelmill.errors import WorkspaceError


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command line."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_a_stopped_label_studio_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABELMILL_SERVICES", str(tmp_path / "services"))
    folder = tmp_path / "services" / "label-studio"
    folder.mkdir(parents=True)
    secrets = dict.fromkeys(("login", "password", "token", "secret_key"), "x")
    (folder / "access.json").write_text(json.dumps({"url": "http://127.0.0.1:9", **secrets}))
    line = make_bench(tmp_path / "line", frames=2) / "line.yaml"
    expected = "labelmill: Label Studio does not run; start it: labelmill services up\n"
    assert run(capsys, "review", "status", line, "-w", tmp_path / "ws") == (2, "", expected)
    (folder / "process.json").write_text('{"pid": 1, "started": "long ago"}')  # killed: it is waited for
    line.write_text(line.read_text() + "review: {patience_s: 0}\n")
    code, _, err = run(capsys, "review", "status", line, "-w", tmp_path / "ws")
    assert (code, err.count("\n")) == (2, 1)
    assert "Label Studio at http://127.0.0.1:9 does not answer" in err


def test_a_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labelmill", "--version"], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout == f"labelmill {__version__}\n"


@pytest.mark.parametrize(
    ("verb", "module", "kept"),
    [
        ("annotate", "labelmill.verbs.common.load", True),
        ("report", "labelmill.verbs.common.load", False),
        ("browse", "labelmill.verbs.versions.find_store", False),
    ],
)
def test_an_interruption_says_what_is_kept(
    verb: str, module: str, kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    name = module.rpartition(".")[2]
    for place in ("annotate", "report", "versions"):
        monkeypatch.setattr(f"labelmill.verbs.{place}.{name}", interrupted, raising=False)
    tail = "; finished work is kept, run the same command to go on" if kept else ""
    assert run(capsys, verb, "x") == (130, "", f"labelmill: interrupted{tail}\n")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with bench@v1."""
    made = made_run(tmp_path / "w", sources=3, frames=20)
    with made.workspace.lock():
        publish(made.workspace, DatasetConfig(name="bench"), made.origin(), None)
    return made.workspace.root


def test_a_pull_of_crops_counts_crops(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "pull", "bench@v1", tmp_path / "crops", "-f", "imagefolder", "-w", workspace)
    files = {
        split: len(list((tmp_path / "crops" / split).rglob("*.jpg"))) for split in ("test", "train", "val")
    }
    counts = ", ".join(f"{number} {split}" for split, number in files.items())
    assert code == 0
    assert f": crops: {counts}; {sum(files.values()) + 1} files written" in out
    code, out, _ = run(capsys, "pull", "bench@v1", tmp_path / "coco", "-f", "coco", "-w", workspace, "--json")
    result = json.loads(out)
    assert "crops" not in result
    assert result["frames"] == {
        split: len(list((tmp_path / "coco" / split).glob("*.jpg"))) for split in ("train", "val", "test")
    }


def test_a_version_is_proved_where_its_database_cannot_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise WorkspaceError("cannot work in fiftyone", got="read-only file system")

    monkeypatch.setattr("labelmill.datasets.versions.mirror.differences", refused)
    code, out, _ = run(capsys, "verify", "bench@v1", "-w", workspace)
    assert code == 2
    assert out.splitlines()[1:] == [
        "ok   120 rows as published, 120 pictures whole",
        "FAIL FiftyOne: cannot be asked: cannot work in fiftyone, got read-only file system; leave it out: "
        "--no-fiftyone",
    ]
    assert run(capsys, "verify", "bench@v1", "-w", workspace, "--no-fiftyone")[0] == 0


def test_a_check_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABELMILL_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    line = make_bench(tmp_path / "line", frames=2) / "line.yaml"
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        text = line.read_text().replace(
            "{kind: motion}", "{kind: grounding-dino, model: acme/tiny, prompts: hand}"
        )
        line.write_text(text)
        code, out, _ = run(capsys, "check", line, "-w", tmp_path / "ws", "--json")
        served = hub.served
    finding = json.loads(out)["findings"][2]
    assert (code, finding["ok"], served) == (2, False, [])
    assert finding["detail"].startswith(
        "acme/tiny is not on this machine; run `labelmill models pull acme/tiny`"
    )
