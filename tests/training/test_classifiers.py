"""Training classifiers: methods, resuming, and bad situations, on a toy backbone."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.data import BACKBONE, draw, write_crops

from labelmill.annotators.model_folder import read_model
from labelmill.errors import TrainingError, WeightsError
from labelmill.files import write_bytes
from labelmill.training.classifiers.model import build, plan
from labelmill.training.classifiers.predictor import CropClassifier
from labelmill.training.classifiers.train import train_classifier
from labelmill.training.classifiers.trainer import ClassifierTrainer
from labelmill.training.config import ClassifierConfig, Method
from labelmill.training.inputs import CropData, read_crops
from labelmill.training.model_writing import Written
from labelmill.training.progress import Progress


def config(**changes: Any) -> ClassifierConfig:
    usual = {
        "backbone": BACKBONE,
        "pretrained": False,
        "image_px": 32,
        "batch": 8,
        "epochs": 3,
        "device": "cpu",
    }
    return ClassifierConfig.model_validate(usual | changes)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Toy matrices are slower on two, above all while other tests run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> CropData:
    return read_crops(write_crops(tmp_path_factory.mktemp("crops")))


@pytest.mark.parametrize(
    ("method", "trainable"),
    [
        # rank 16 on qkv of 6 layers: 16 x 64 + 192 x 16 each; and a head of 64 x 2 + 2
        ("lora", 6 * 16 * (64 + 192) + 130),
        ("probe", 130),
        ("full", 300_096 + 130),
        ("resnet18", 11_176_512 + 1_026),
    ],
)
def test_every_method_learns_and_writes_a_whole_model(
    crops: CropData, tmp_path: Path, method: Method, trainable: int
) -> None:
    written = train_classifier(crops, config(method=method, epochs=5), tmp_path / "model")
    assert written.metrics["trainable_parameters"] == trainable
    assert written.metrics["merge_difference"] <= 1e-5
    losses = written.metrics["history"]["train_loss"]
    assert losses[-1] < losses[0]
    folder = tmp_path / "model"
    assert {path.name for path in folder.iterdir()} - {"adapter"} == {
        "README.md", "metrics.json", "model.json", "model.safetensors", "plots", "run",
    }  # fmt: skip
    assert [path.name for path in (folder / "run").iterdir()] == ["history.json"]
    card = (folder / "README.md").read_text()
    assert crops.digest in card
    assert "random (seed 0): nothing was pretrained" in card
    assert "There is no test split" in card
    classifier = CropClassifier.load(folder, device="cpu")
    random = np.random.default_rng(9)
    verdicts = classifier.classify([draw(name, random) for name in ("disc", "stripe") for _ in range(3)])
    assert all(0 <= verdict.score <= 1 for verdict in verdicts)
    if method == "lora":
        assert [verdict.label for verdict in verdicts] == ["disc"] * 3 + ["stripe"] * 3


def test_adapters_lie_apart_and_give_the_merged_network(crops: CropData, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    settings = config()
    train_classifier(crops, settings, tmp_path / "model")
    adapter = tmp_path / "model" / "adapter"
    assert sum(path.stat().st_size for path in adapter.iterdir()) < 150_000
    torch.manual_seed(settings.seed)
    fresh = build(plan(settings), 2).eval()
    fresh.encoder = PeftModel.from_pretrained(fresh.encoder, str(adapter)).eval()
    fresh.head.load_state_dict(load_file(adapter / "head.safetensors"))
    random = np.random.default_rng(5)
    pictures = [draw(name, random) for name in ("disc", "stripe", "NG")]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        unmerged = fresh(images).numpy()
    merged = CropClassifier.load(tmp_path / "model", device="cpu").logits(pictures)
    assert np.abs(merged - unmerged).max() <= 1e-5 * max(1, np.abs(unmerged).max())


class KilledError(Exception):
    pass


def kill_at(step: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.done == step:
            raise KilledError

    return report


@pytest.fixture(scope="module", params=["lora", "full"])
def undisturbed(
    request: pytest.FixtureRequest, crops: CropData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ClassifierConfig, Written]:
    settings = config(method=request.param, adapter_dropout=0.1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    written = train_classifier(crops, settings, tmp_path_factory.mktemp("undisturbed"))
    torch.set_num_threads(threads)
    return settings, written


def assert_same(one: Written, other: Written) -> None:
    assert one.info.files["model.safetensors"] == other.info.files["model.safetensors"]
    assert one.metrics | {"seconds": 0} == other.metrics | {"seconds": 0}


@pytest.mark.parametrize("step", [2, 4, 6, 11])
def test_a_resumed_training_is_the_undisturbed_one_to_the_bit(
    crops: CropData, tmp_path: Path, undisturbed: tuple[ClassifierConfig, Written], step: int
) -> None:
    settings, whole = undisturbed
    with pytest.raises(KilledError):
        train_classifier(crops, settings, tmp_path, report=kill_at(step))
    assert_same(train_classifier(crops, settings, tmp_path), whole)


@pytest.mark.parametrize("undisturbed", ["lora"], indirect=True)
def test_a_damaged_checkpoint_costs_an_epoch_and_no_accuracy(
    crops: CropData,
    tmp_path: Path,
    undisturbed: tuple[ClassifierConfig, Written],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, whole = undisturbed
    with pytest.raises(KilledError):
        train_classifier(crops, settings, tmp_path, report=kill_at(11))
    newest = tmp_path / "run" / "epoch-2.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert_same(train_classifier(crops, settings, tmp_path), whole)
    assert "epoch-2.pt is damaged or absent: going on from an earlier one" in caplog.text


@pytest.mark.parametrize("undisturbed", ["lora"], indirect=True)
def test_a_full_disk_in_mid_training_is_one_line_and_the_rerun_goes_on(
    crops: CropData,
    tmp_path: Path,
    undisturbed: tuple[ClassifierConfig, Written],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, whole = undisturbed

    def full(path: Path, data: bytes) -> None:
        if path.name == "epoch-2.pt":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(path, data)

    monkeypatch.setattr("labelmill.training.checkpoints.write_bytes", full)
    with pytest.raises(TrainingError, match=r"no space left in .*run the same command again"):
        train_classifier(crops, settings, tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "run" / "epoch-1.pt").exists()
    assert_same(train_classifier(crops, settings, tmp_path), whole)


def test_a_finished_training_is_not_repeated(crops: CropData, tmp_path: Path) -> None:
    first = train_classifier(crops, config(epochs=1), tmp_path)
    again = train_classifier(crops, config(epochs=1, device="cpu", workers=1), tmp_path)
    assert (first.trained, again.trained) == (True, False)
    assert again.metrics == json.loads(json.dumps(first.metrics))
    with pytest.raises(TrainingError, match=r"other data or settings.*--restart"):
        train_classifier(crops, config(epochs=1, seed=1), tmp_path)
    assert train_classifier(crops, config(epochs=1, seed=1), tmp_path, restart=True).trained


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    """The validation crops lie in each other's folder: what is learnt makes it worse."""
    val = write_crops(tmp_path / "crops") / "val"
    for source, target in (("disc", "aside"), ("stripe", "disc"), ("aside", "stripe")):
        (val / source).rename(val / target)
    settings = config(method="full", learning_rate=3e-3, epochs=20, patience=2)
    written = train_classifier(read_crops(val.parent), settings, tmp_path / "model")
    history = written.metrics["history"]
    scores = list(zip(history["val_score"], history["val_loss"], strict=True))
    best = max(range(len(scores)), key=lambda number: (scores[number][0], -scores[number][1]))
    assert len(scores) == best + 3 < 20
    assert written.metrics["splits"]["val"]["balanced_accuracy"] == pytest.approx(scores[best][0])


def test_a_loss_that_is_not_finite_goes_back_with_half_the_rate(
    crops: CropData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest = ClassifierTrainer._step
    steps: list[float] = []

    def once_nan(self: ClassifierTrainer, batch: Any, optimizer: Any, scaler: Any) -> float:
        steps.append(optimizer.param_groups[0]["lr"])
        return float("nan") if len(steps) == 6 else honest(self, batch, optimizer, scaler)

    monkeypatch.setattr(ClassifierTrainer, "_step", once_nan)
    written = train_classifier(crops, config(), tmp_path)
    assert "the loss is not finite in epoch 2" in caplog.text
    assert written.metrics["epochs"] == 3
    assert steps[6:8] == [rate / 2 for rate in steps[4:6]]


def test_a_loss_that_stays_not_finite_is_one_line(
    crops: CropData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassifierTrainer, "_step", lambda *_: float("nan"))
    with pytest.raises(TrainingError, match=r"the loss is not finite in epoch 1.*lower --learning-rate"):
        train_classifier(crops, config(), tmp_path)


def test_a_retrain_starts_from_the_version_before(crops: CropData, tmp_path: Path) -> None:
    old = tmp_path / "v3"
    train_classifier(crops, config(method="full", learning_rate=3e-3, epochs=6), old)
    more = read_crops(
        write_crops(
            tmp_path / "more",
            {"train": {"stripe": 8, "NG": 8, "disc": 8}, "val": {"stripe": 4, "NG": 4, "disc": 4}},
            seed=1,
        )
    )
    settings = config(method="full", learning_rate=1e-6, epochs=1, start=old)
    written = train_classifier(more, settings, tmp_path / "v4")
    figures = written.metrics["splits"]["val"]["classes"]
    assert figures["disc"]["recall"] == figures["stripe"]["recall"] == 1.0  # not unlearnt
    assert "classifier of crops" in (tmp_path / "v4" / "README.md").read_text()
    with pytest.raises(TrainingError, match="cannot be the start"):
        train_classifier(more, config(start=old, image_px=64), tmp_path / "other")


def test_ng_by_rejection(tmp_path: Path) -> None:
    shapes = {"disc": 16, "stripe": 16}
    data = read_crops(
        write_crops(
            tmp_path / "crops", {"train": shapes | {"NG": 4}, "val": {"disc": 8, "stripe": 8, "NG": 8}}
        )
    )
    written = train_classifier(
        data, config(method="full", learning_rate=3e-3, epochs=8, ng="reject"), tmp_path / "model"
    )
    assert written.info.classes == ("disc", "stripe")
    threshold = written.info.reject_below
    assert threshold is not None
    figures = written.metrics["splits"]["val"]
    assert figures["labels"] == ["disc", "stripe", "NG"]
    assert figures["accuracy_of_accepted"] == 1.0
    assert figures["classes"]["NG"]["recall"] == 1.0


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train": {"disc": 4}, "val": {"disc": 2}}, "crops of 1 classes, got disc"),
        ({"train": {"disc": 4, "stripe": 4}}, "split 'val' .* holds no crop"),
        ({"val": {"disc": 4, "stripe": 4}}, "split 'train' .* holds no crop"),
    ],
)
def test_what_cannot_be_trained_is_one_line(tmp_path: Path, counts: Any, message: str) -> None:
    data = read_crops(write_crops(tmp_path / "crops", counts))
    with pytest.raises(TrainingError, match=message):
        train_classifier(data, config(), tmp_path / "model")


def test_a_class_with_one_crop_is_trained_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = read_crops(
        write_crops(tmp_path / "crops", {"train": {"disc": 8, "stripe": 1}, "val": {"disc": 2, "stripe": 2}})
    )
    written = train_classifier(data, config(epochs=1), tmp_path / "model")
    assert written.info.classes == ("disc", "stripe")
    assert "class 'stripe' has one training crop" in caplog.text
    assert "class 'stripe' has one training crop" in (tmp_path / "model" / "README.md").read_text()


def test_weights_that_are_absent_say_how_to_get_them(crops: CropData, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"hf download timm/.*--no-pretrained"):
        train_classifier(crops, config(pretrained=True), tmp_path)


def test_a_backbone_from_a_file_for_another_size(crops: CropData, tmp_path: Path) -> None:
    """Position embeddings are interpolated; the rest must fit."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(3)
    source = timm.create_model(BACKBONE, num_classes=7)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    settings = config(pretrained=True, weights=tmp_path / "vit.safetensors", method="probe", epochs=1)
    train_classifier(crops, settings, tmp_path / "model")
    from safetensors.torch import load_file

    trained = load_file(tmp_path / "model" / "model.safetensors")
    key = "blocks.3.attn.qkv.weight"
    assert torch.equal(trained[f"encoder.{key}"], source.state_dict()[key])
    assert trained["encoder.pos_embed"].shape[1] == 1 + (32 // 16) ** 2
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(3)}, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match="do not fit the backbone"):
        train_classifier(
            crops, settings.model_copy(update={"weights": tmp_path / "wrong.safetensors"}), tmp_path / "b"
        )


def test_a_backbone_of_transformers(crops: CropData, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(1)
    tiny = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=16,
    )
    source = ViTForImageClassification(tiny).eval()
    source.save_pretrained(tmp_path / "vit")
    settings = config(pretrained=True, backbone=str(tmp_path / "vit"), image_px=None, method="lora")
    written = train_classifier(crops, settings, tmp_path / "model")
    assert written.metrics["trainable_parameters"] == 2 * 2 * 16 * (32 + 32) + 66
    classifier = CropClassifier.load(tmp_path / "model", device="cpu")  # without the source folder's help
    assert len(classifier.classify([draw("disc", np.random.default_rng(0))])) == 1
    probe = train_classifier(
        crops, settings.model_copy(update={"method": "probe", "epochs": 1}), tmp_path / "probe"
    )
    from labelmill.training.classifiers.predictor import load_network

    network = load_network(tmp_path / "probe", read_model(probe.folder))
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        features = network.encoder(pixels)
        expected = source.vit(pixels).last_hidden_state[:, 0]
    assert torch.allclose(features, expected, atol=1e-6)


def test_a_pickle_as_weights_is_refused_with_the_conversion(crops: CropData, tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model(BACKBONE), tmp_path / "foreign.pt")
    settings = config(pretrained=True, weights=tmp_path / "foreign.pt")
    with pytest.raises(WeightsError, match=r"pickle of live objects.*python -c"):
        train_classifier(crops, settings, tmp_path / "model")


def test_a_damaged_model_is_refused(crops: CropData, tmp_path: Path) -> None:
    train_classifier(crops, config(epochs=1), tmp_path)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged or was exchanged"):
        CropClassifier.load(tmp_path)


def test_adapters_need_a_layer(crops: CropData, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no layer .* target_modules nothing.*expected names among"):
        train_classifier(crops, config(target_modules=("nothing",)), tmp_path)


def test_an_unknown_backbone_names_a_near_one(crops: CropData, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no model 'vit-b17'.*did you mean 'vit-b16'"):
        train_classifier(crops, config(backbone="vit-b17"), tmp_path)
