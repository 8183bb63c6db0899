"""What a user may get wrong, and the one line that says so."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from labelmill.annotators.devices import choose_device
from labelmill.annotators.proposers.grounding_dino import GroundingDino, GroundingDinoConfig, load_port
from labelmill.annotators.proposers.groundingdino_py import GroundingDinoPy, GroundingDinoPyConfig
from labelmill.errors import LineFileError, WeightsError


class Live:
    """Something that runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("__import__('pathlib').Path('ran').touch()",))


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    """The original's folder, without its checkpoint."""
    shutil.copytree(original, tmp_path / "copy", ignore=shutil.ignore_patterns("*.pth"))
    return tmp_path / "copy"


def py_config(folder: Path, **settings: Any) -> GroundingDinoPyConfig:
    text = str(folder / "bert")
    return GroundingDinoPyConfig.model_validate(
        {"prompts": "hand", "model": str(folder), "text_encoder": text, "device": "cpu", **settings}
    )


def with_architecture(copied: Path, original: Path) -> GroundingDinoPyConfig:
    """The checkpoint of one folder with the configuration of another."""
    return py_config(copied, model=str(original / "tiny.pth"), architecture=copied / "tiny.cfg.py")


def config(model: Path | str, **settings: Any) -> GroundingDinoConfig:
    return GroundingDinoConfig.model_validate({"prompts": "hand", "model": str(model), **settings})


def test_a_pickle_is_refused_with_the_way_to_convert_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Live()}, copied / "evil.pth")
    with pytest.raises(WeightsError, match=r"pickle of live objects.*python -c .*evil\.safetensors"):
        GroundingDinoPy(py_config(copied))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_the_ports_folder_is_refused(
    port: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "port"
    shutil.copytree(port, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Live(), file)
    with pytest.raises(WeightsError, match=r"pickle of live objects.*convert it.*/port/model\.safetensors$"):
        GroundingDino(config(folder))
    assert not (tmp_path / "ran").exists()


def test_an_architecture_that_is_a_program_is_refused(copied: Path, original: Path) -> None:
    (copied / "tiny.cfg.py").write_text("import os\nmodelname = 'groundingdino'\n")
    with pytest.raises(WeightsError, match=r"got line 1: import os, expected lines of `name = value`"):
        GroundingDinoPy(
            py_config(copied, model=str(original / "tiny.pth"), architecture=copied / "tiny.cfg.py")
        )
    (copied / "tiny.cfg.py").write_text("hidden_dim = __import__('os').getpid()\n")
    with pytest.raises(WeightsError, match="malformed node"):
        GroundingDinoPy(
            py_config(copied, model=str(original / "tiny.pth"), architecture=copied / "tiny.cfg.py")
        )


def test_another_architecture_is_refused(copied: Path, original: Path) -> None:
    text = (copied / "tiny.cfg.py").read_text()
    (copied / "tiny.cfg.py").write_text(text.replace("enc_layers = 2", "enc_layers = 3"))
    with pytest.raises(WeightsError, match=r"do not fit the model.*\.2\..* is missing"):
        GroundingDinoPy(
            py_config(copied, model=str(original / "tiny.pth"), architecture=copied / "tiny.cfg.py")
        )
    (copied / "tiny.cfg.py").write_text("modelname = 'groundingdino'\n")
    with pytest.raises(WeightsError, match="the architecture does not make a Grounding DINO"):
        GroundingDinoPy(
            py_config(copied, model=str(original / "tiny.pth"), architecture=copied / "tiny.cfg.py")
        )


def test_two_checkpoints_want_a_choice(copied: Path) -> None:
    for name in ("a.pth", "b.pth"):
        (copied / name).touch()
    with pytest.raises(WeightsError, match=r"holds 2 checkpoints; name one of them .*a\.pth"):
        py_config(copied).files()


def test_a_safetensors_checkpoint_is_read(copied: Path, original: Path) -> None:
    from safetensors.torch import save_file

    from labelmill.annotators.state_dicts import read_state_dict

    tensors = read_state_dict(original / "tiny.pth")
    save_file({name: value.clone() for name, value in tensors.items()}, copied / "tiny.safetensors")
    names = {path.name for path in py_config(copied).files()}
    assert names >= {"tiny.safetensors", "tiny.cfg.py", "config.json", "vocab.txt"}
    GroundingDinoPy(py_config(copied))


def test_absent_weights_name_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABELMILL_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for kind, model in (
        (GroundingDinoConfig, "IDEA-Research/grounding-dino-tiny"),
        (GroundingDinoPyConfig, "google-bert/bert-base-uncased"),
    ):
        with pytest.raises(WeightsError, match=f"labelmill models pull {model}"):
            kind.model_validate({"prompts": "hand"}).files()


def test_another_model_is_refused(tmp_path: Path, port: Path) -> None:
    from tests.annotators.grounding.tiny import BERT
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**BERT)).save_pretrained(tmp_path)
    shutil.copy(port / "tokenizer.json", tmp_path)
    with pytest.raises(WeightsError, match=f"{tmp_path}"):
        GroundingDino(config(tmp_path))


def test_half_a_model_is_refused(tmp_path: Path, port: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(port, tmp_path / "half")
    tensors = load_file(port / "model.safetensors")
    lost = next(name for name in tensors if "enc_output.weight" in name)
    save_file(
        {name: value for name, value in tensors.items() if name != lost}, tmp_path / "half/model.safetensors"
    )
    with pytest.raises(WeightsError, match=r"1 tensors missing, such as .*enc_output\.weight"):
        GroundingDino(config(tmp_path / "half"))


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_damaged_text_files_are_one_line(copied: Path, original: Path, port: Path, name: str) -> None:
    for folder in (copied / "bert", shutil.copytree(port, copied / "port")):
        (folder / name).write_text("{ half a fi")
    cases: list[tuple[Path, Any]] = [
        (copied / "port", lambda: GroundingDino(config(copied / "port"))),
        (copied / "bert", lambda: GroundingDinoPy(with_architecture(copied, original))),
    ]
    for folder, make in cases:
        with pytest.raises(WeightsError, match=rf"model folder {folder} cannot be loaded") as caught:
            make()
        assert "\n" not in str(caught.value)


def test_weights_in_several_files_are_one_model(tmp_path: Path, port: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "sharded"
    shutil.copytree(port, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    names: dict[str, str] = {}
    whole = list(load_file(port / "model.safetensors").items())
    for number, part in ((1, whole[::2]), (2, whole[1::2])):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file(dict(part), folder / file, metadata={"format": "pt"})
        names |= {name: file for name, _ in part}
    index = {"metadata": {"total_size": 0}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert {path.name for path in config(folder).files()} >= set(names.values())
    found = load_port(folder).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in load_port(port).state_dict().items())
    (folder / names[whole[0][0]]).unlink()
    with pytest.raises(WeightsError, match=r"cannot be loaded.*model-00001-of-00002"):
        GroundingDino(config(folder))


def test_settings_that_are_wrong() -> None:
    with pytest.raises(ValidationError, match="prompts"):
        GroundingDinoConfig.model_validate({})
    with pytest.raises(ValidationError, match="box_threshold"):
        GroundingDinoConfig.model_validate({"prompts": "hand", "box_threshold": 1.5})
    with pytest.raises(LineFileError, match="this machine has no device 'cuda:99'"):
        config("x/y", device="cuda:99").key_fields()


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ("13.0", "got 0 that torch can use; write device: auto, or see whether nvidia-smi names one"),
        (None, "got a torch built without CUDA; write device: auto"),
    ],
)
def test_why_there_is_no_gpu(built: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", built)
    monkeypatch.setattr("torch.version.hip", None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(LineFileError) as caught:
        choose_device("cuda")
    assert str(caught.value) == f"this machine has no device 'cuda', {said}"


def test_keys_hold_what_decides_and_nothing_of_the_machine(port: Path) -> None:
    one = config(port, device="cpu", dtype="float32", batch_size=1).key_fields()
    assert one == config(port, device="auto", dtype="float32", batch_size=9).key_fields()
    assert one["dtype"] == "torch.float32"
    assert one["prompts"] == [{"phrase": "hand", "name": "hand"}]
    assert "model" not in one
    assert config(port, device="cpu").key_fields()["dtype"] in ("torch.float32", "torch.bfloat16")
    assert {path.name for path in config(port).files()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert one != config(port, device="cpu", dtype="float32", prompts=["hand", "glove"]).key_fields()


def test_a_relative_folder_is_beside_the_line_file(tmp_path: Path) -> None:
    (tmp_path / "models" / "dino").mkdir(parents=True)
    base = {"base": tmp_path}
    near = GroundingDinoConfig.model_validate({"prompts": "hand", "model": "models/dino"}, context=base)
    assert near.model == str(tmp_path / "models/dino")
    dotted = GroundingDinoConfig.model_validate({"prompts": "hand", "model": "./absent"}, context=base)
    assert dotted.model == str(tmp_path / "absent")
    hub = GroundingDinoConfig.model_validate({"prompts": "hand", "model": "acme/dino"}, context=base)
    assert hub.model == "acme/dino"


def test_settings_travel_between_processes(port: Path) -> None:
    sent = pickle.loads(pickle.dumps(config(port)))  # noqa: S301 - our own
    assert sent == config(port)
    assert json.loads(sent.model_dump_json())["kind"] == "grounding-dino"
