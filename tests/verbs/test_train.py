"""Training, evaluating, exporting and watching from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import moving_square
from tests.footage import write_video
from tests.training.data import write_boxes, write_crops

from labelmill.cli import main

TOY = ["--backbone", "test_vit", "--no-pretrained", "--image-px", "32", "--batch", "8", "--device", "cpu"]


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_train_evaluate_export_and_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ultralytics import SETTINGS

    monkeypatch.chdir(tmp_path)
    crops, boxes = write_crops(tmp_path / "crops"), write_boxes(tmp_path / "boxes")
    namer, finder = tmp_path / "namer", tmp_path / "finder"
    assert (
        call("train", "classifier", crops, *TOY, "--epochs", "2", "--out", namer, "--set", "rank=4", "--json")
        == 0
    )
    trained: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert trained["trainable_parameters"] == 6 * 4 * (64 + 192) + 130
    small = ["--image-px", "64", "--batch", "8", "--epochs", "1", "--device", "cpu"]
    foreign = Path(SETTINGS["runs_dir"]) / "detect" / "finder"
    assert call("train", "detector", boxes, *small, "--out", "finder", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == str(finder)
    assert not foreign.exists()
    assert found["splits"]["val"]["at_iou"]["0.5"]["true_boxes"] > 0
    assert call("evaluate", namer, crops, "--json") == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["accuracy"] == trained["splits"]["val"]["accuracy"]
    assert call("export", namer, "--format", "onnx", "--json") == 0
    assert json.loads(capsys.readouterr().out)["differences"]["onnx"] <= 1e-4
    assert call("evaluate", namer, crops, "--backend", "onnx", "--json") == 0
    assert json.loads(capsys.readouterr().out)["confusion"] == evaluated["confusion"]
    clip = write_video(tmp_path / "clip.mp4", [moving_square(number) for number in range(12)])
    events = tmp_path / "events.jsonl"
    watched: list[str | Path] = [
        "--detector",
        finder,
        "--classifier",
        namer,
        clip,
        "--threshold",
        "0.001",
        "--events",
        events,
    ]
    assert call("watch", *watched, "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 12
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()][-1] == "end"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "detector", "parts@v1"], "no workspace here has a dataset 'parts'"),
        (["train", "classifier", ".", "--set", "rnak=4"], "unknown key 'rnak', did you mean 'rank'"),
        (
            ["train", "detector", ".", "--image-px", "100"],
            "must be a multiple of 32; the nearest are 96 and 128",
        ),
        (["train", "classifier", ".", "--method", "lroa"], "did you mean 'lora'"),
        (["train", "detector", "."], "is not a YOLO folder"),
        (["evaluate", ".", "parts@v1"], "is not a model folder"),
        (["watch", "--detector", ".", "x.mp4"], "is not a model folder"),
    ],
)
def test_a_users_error_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


_KILLED = """
import os, signal, sys
from pathlib import Path
import timm, matplotlib.pyplot  # once for all: what is forked below finds them
from labelmill.training.classifiers.train import train_classifier
from labelmill.training.config import ClassifierConfig
from labelmill.training.inputs import read_crops

config = ClassifierConfig(
    method="probe", backbone="test_vit", pretrained=False, image_px=32, batch=8, epochs=3, device="cpu"
)

def run(out, step):
    child = os.fork()
    if not child:
        die = lambda p: os.kill(os.getpid(), signal.SIGKILL) if p.done == step else None
        train_classifier(read_crops(Path(sys.argv[1])), config, Path(sys.argv[2], out), report=die)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

codes = [run("killed", 7)]
assert not Path(sys.argv[2], "killed", "model.json").exists()
print(codes + [run("killed", -1), run("whole", -1)])
"""


def test_a_killed_training_goes_on_with_the_same_command(tmp_path: Path) -> None:
    """SIGKILL, sent by the process to itself in mid-epoch; the second one ends as an undisturbed one."""
    crops = write_crops(tmp_path / "crops")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _KILLED, str(crops), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [f"[{-signal.SIGKILL}, 0, 0]"], done.stderr
    digests = [
        json.loads((tmp_path / out / "model.json").read_text())["files"]["model.safetensors"]
        for out in ("killed", "whole")
    ]
    assert digests[0] == digests[1]
