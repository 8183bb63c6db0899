from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.annotators.grounding.tiny import write_original, write_port
from tests.conftest import make_bench

from labelmill.errors import WeightsError
from labelmill.line import load_line
from labelmill.verbs.demo_foundation import announce, cost, with_foundation

EXAMPLE = Path(__file__).parents[2] / "examples" / "foundation-line.yaml"


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABELMILL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))


def test_it_says_what_it_will_download_before_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bench(tmp_path, frames=2)
    with pytest.raises(WeightsError, match="labelmill models pull IDEA-Research/grounding-dino-tiny"):
        with_foundation(tmp_path / "line.yaml")
    said = capsys.readouterr().err
    place = tmp_path / "models" / "Salesforce--blip2-itm-vit-g"
    assert (
        f"Salesforce/blip2-itm-vit-g: will be downloaded once to {place}, about 4,690 MB, licence MIT" in said
    )
    written = yaml.safe_load((tmp_path / "foundation-line.yaml").read_text())
    assert written["proposer"]["kind"] == "grounding-dino"
    assert written["encoder"] == {"kind": "blip2"}
    assert written["selection"]["shard_frames"] <= 32  # a kill costs no hours
    assert written["name"] == "bench"


def test_it_says_what_a_thousand_frames_cost(tmp_path: Path) -> None:
    port = write_port(tmp_path / "port", write_original(tmp_path / "original"))
    make_bench(tmp_path, frames=2)
    text = (tmp_path / "line.yaml").read_text()
    settings = f"{{kind: grounding-dino, model: {port}, prompts: hand, dtype: float32, shortest_px: 96}}"
    (tmp_path / "line.yaml").write_text(text.replace("{kind: motion}", settings))
    line = load_line(tmp_path / "line.yaml")
    assert cost(line).startswith("1,000 frames with a region each take about ")
    assert announce([str(port)]) == [f"{port}: on this machine"]


def test_the_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_DATA", "/somewhere")
    line = load_line(EXAMPLE)
    assert (line.proposer.kind, line.encoder.kind) == ("grounding-dino", "blip2")
    assert line.selection.shard_frames == 32
