"""A whole line with Grounding DINO as its proposer, from a line file to the final tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.conftest import make_bench

from labelmill.datasets.annotate import annotate
from labelmill.datasets.check import check_line
from labelmill.datasets.workspace import Workspace
from labelmill.line import Line, load_line


def line_with(folder: Path, proposer: str) -> Line:
    make_bench(folder, frames=6)
    path = folder / "line.yaml"
    settings = f"{{{proposer}, device: cpu, dtype: float32, shortest_px: 96, longest_px: 160}}"
    path.write_text(path.read_text().replace("{kind: motion}", settings))
    return load_line(path)


@pytest.mark.parametrize("kind", ["grounding-dino", "groundingdino-py"])
def test_a_line_runs_and_is_computed_once(kind: str, original: Path, port: Path, tmp_path: Path) -> None:
    prompts = "prompts: [{phrase: red bottle, class: thing}, hand]"
    own = {
        "grounding-dino": f"model: {port}",
        "groundingdino-py": f"model: {original}, text_encoder: {original}/bert",
    }
    line = line_with(tmp_path, f"kind: {kind}, {own[kind]}, {prompts}")
    workspace = Workspace(tmp_path / "workspace")
    first = annotate(line, workspace)
    assert first["shards"] == {"computed": 1, "reused": 0}
    regions = pq.read_table(workspace.table("regions"))
    assert regions.num_rows > 0
    assert set(regions["phrase"].to_pylist()) <= {"thing", "hand"}
    assert annotate(line, workspace)["shards"] == {"computed": 0, "reused": 1}


def test_other_weights_are_computed_again(port: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(port, tmp_path / "model")
    line = line_with(tmp_path, f"kind: grounding-dino, model: {tmp_path / 'model'}, prompts: hand")
    workspace = Workspace(tmp_path / "workspace")
    annotate(line, workspace)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    name = next(name for name in tensors if name.endswith("level_embed"))
    tensors[name] = tensors[name] + 1
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    assert annotate(line, workspace)["shards"] == {"computed": 1, "reused": 0}


def test_a_check_shows_what_is_looked_for(port: Path, tmp_path: Path) -> None:
    """A misspelt class is no fault that a program could find; a person sees it."""
    prompts = "prompts: [hand, {phrase: work glove, class: hnad}, red bag, {phrase: glove, class: hand}]"
    line = line_with(tmp_path, f"kind: grounding-dino, model: {port}, {prompts}, phrases_per_pass: 3")
    assert check_line(line, Workspace(tmp_path / "workspace"))[2] == {
        "what": "proposer grounding-dino",
        "ok": True,
        "detail": "loads (GroundingDino), finds hand by 'hand', 'glove'; hnad by 'work glove'; red bag by "
        "'red bag', 2 passes a frame",
    }
