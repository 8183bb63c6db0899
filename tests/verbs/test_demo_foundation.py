from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
import yaml
from tests.annotators.grounding.tiny import write_original, write_port
from tests.annotators.test_blip2 import small_settings
from tests.conftest import make_bench

from labelmill.annotators.model_store import Manifest, folder_of
from labelmill.cli import main
from labelmill.errors import WeightsError
from labelmill.line import load_line
from labelmill.verbs import demo_foundation
from labelmill.verbs.demo_foundation import announce, with_foundation

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


def test_half_a_model_in_the_cache_is_still_to_be_downloaded(tmp_path: Path) -> None:
    model = "IDEA-Research/grounding-dino-tiny"
    cached = tmp_path / "hf" / "models--IDEA-Research--grounding-dino-tiny"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc" / "config.json").touch()
    assert "will be downloaded once" in announce([model])[0]
    (cached / "snapshots" / "abc" / "model.safetensors").touch()
    assert announce([model]) == [f"{model}: on this machine"]


def test_the_whole_demo_runs_on_pulled_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dino, blip2 = "IDEA-Research/grounding-dino-tiny", "Salesforce/blip2-itm-vit-g"
    write_port(folder_of(dino), write_original(tmp_path / "original"))
    transformers.Blip2ForImageTextRetrieval(small_settings()).save_pretrained(folder_of(blip2))
    for model in (dino, blip2):
        Manifest(model, "0", "", "", {}).write(folder_of(model))
    monkeypatch.setitem(demo_foundation.PROPOSER, "shortest_px", 96)
    with pytest.raises(SystemExit) as left:
        main(
            ["demo", "--foundation", "--seconds", "1", "--no-publish", "--json", "-o", str(tmp_path / "out")]
        )
    out, err = capsys.readouterr()
    assert left.value.code == 0, err
    said = f"{dino}: on this machine\n{blip2}: on this machine\nloading both, and trying them on a frame …\n"
    assert f"{said}1,000 frames with a region each take" in err
    document = json.loads(out)
    assert document["line"].endswith("foundation-line.yaml")
    assert document["counts"]["frames"] == 15
    assert document["counts"]["regions"] > 0
    assert Path(document["report"]).is_file()


def test_the_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_DATA", "/somewhere")
    line = load_line(EXAMPLE)
    assert (line.proposer.kind, line.encoder.kind) == ("grounding-dino", "blip2")
    assert line.selection.shard_frames == 32
