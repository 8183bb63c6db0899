"""A line with a `training:` section, run as one flow against a real Prefect server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import save, square
from tests.flows.test_factory import labelmill
from tests.training.data import write_boxes

from labelmill.annotators.model_folder import read_model

pytestmark = pytest.mark.server

LINE = """
name: bench
sources: [{images: boxes/images}]
selection: {repeats: false}
proposer: {kind: boxes, labels: boxes/labels, names: [red, blue]}
templates: {folder: templates}
matching: {lambda: 0.2, margin: 0}
dataset: {splits: {train: 0.7, val: 0.3}, near_duplicate: null}
training:
  detector: {image_px: 64, epochs: 1, batch: 8, device: cpu}
  classifier: {backbone: test_vit, pretrained: false, image_px: 32, epochs: 1, batch: 8, device: cpu}
"""


def test_a_run_trains_what_it_published_and_goes_on_from_the_version_before(
    tmp_path: Path, prefect_environment: dict[str, str]
) -> None:
    write_boxes(tmp_path / "boxes")
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        save(tmp_path / "templates" / name / "a.png", square(colour))
    line, workspace = tmp_path / "line.yaml", tmp_path / "workspace"
    line.write_text(LINE)

    def run() -> dict[str, Any]:
        environment = prefect_environment | {"OMP_NUM_THREADS": "1"}
        done = labelmill(environment, "run", str(line), "-w", str(workspace), "--json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    first = run()
    assert first["version"] == "bench@v1"
    assert {kind: model["trained"] for kind, model in first["models"].items()} == {
        "detector": True,
        "classifier": True,
    }
    assert first["models"]["detector"]["val"]["at_iou"]["0.5"]["true_boxes"] > 0
    (tmp_path / "boxes" / "images" / "train" / "000.png").unlink()
    second = run()
    assert second["version"] == "bench@v2"
    for kind in ("detector", "classifier"):
        folder = workspace / "models" / f"{kind}-v2"
        assert second["models"][kind]["model"] == str(folder)
        assert read_model(folder).dataset == "bench@v2"
        assert f"{kind} of bench@v1" in (folder / "README.md").read_text()
