"""The `transformers` encoder on tiny random checkpoints of several families, in the real format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")
from labelmill.annotators.encoders.transformers import Transformers, TransformersConfig  # noqa: E402
from labelmill.annotators.types import Encoder, Image  # noqa: E402
from labelmill.errors import LabelmillError, LineFileError, WeightsError  # noqa: E402

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
DINO = {name: value for name, value in VISION.items() if name != "intermediate_size"}
SIGHT: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def clip() -> Any:
    return tf.CLIPModel(
        tf.CLIPConfig(vision_config={**VISION, "projection_dim": 16}, text_config=TEXT, projection_dim=16)
    )


def siglip() -> Any:
    return tf.SiglipModel(tf.SiglipConfig(vision_config=VISION, text_config=TEXT))


def dinov2() -> Any:
    return tf.Dinov2Model(tf.Dinov2Config(**DINO))


def clip_vision() -> Any:
    return tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION))


def vit_without_pooler() -> Any:
    return tf.ViTModel(tf.ViTConfig(**VISION), add_pooling_layer=False)


def convnext() -> Any:
    return tf.ConvNextModel(tf.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], image_size=28))


FAMILIES: list[tuple[Callable[[], Any], int, Callable[[Any, Any], Any]]] = [
    (clip, 16, lambda m, x: m.visual_projection(m.vision_model(x).pooler_output)),
    (siglip, 32, lambda m, x: m.vision_model(x).pooler_output),
    (dinov2, 32, lambda m, x: m(x).pooler_output),
    (clip_vision, 32, lambda m, x: m(x).pooler_output),
    (vit_without_pooler, 32, lambda m, x: m(x).last_hidden_state[:, 0]),
    (convnext, 8, lambda m, x: m(x).pooler_output),
]


def crops(count: int) -> list[Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + 3 * i, 50 - 4 * i, 3), np.uint8) for i in range(count)]


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("make", "dim", "features"), FAMILIES, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_family_gives_its_own_summary(
    tmp_path: Path, make: Callable[[], Any], dim: int, features: Callable[[Any, Any], Any]
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    size_px = 64 if make is convnext else 28
    config = TransformersConfig(
        model=saved(model, tmp_path), size_px=size_px, device="cpu", dtype="float32", batch_size=2, **SIGHT
    )
    encoder: Encoder = Transformers(config)
    pixels = np.random.default_rng(1).integers(0, 256, (3, size_px, size_px, 3), np.uint8)
    mean, std = (torch.tensor(SIGHT[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = features(model, (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    found = encoder.encode(list(pixels))
    assert encoder.dim == dim
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    some = crops(5)
    single = np.vstack([encoder.encode([crop]) for crop in some])
    np.testing.assert_allclose(encoder.encode(some), single, atol=1e-4)


def test_two_towers_keep_one(tmp_path: Path) -> None:
    encoder = Transformers(TransformersConfig(model=saved(clip(), tmp_path), device="cpu", **SIGHT))
    encoder.encode(crops(1))
    assert encoder._loaded.model.text_model is None


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_by_hand(tmp_path: Path, pooling: Any) -> None:
    model = dinov2().eval()
    config = TransformersConfig(
        model=saved(model, tmp_path),
        pooling=pooling,
        device="cpu",
        dtype="float32",
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    pixels = np.zeros((1, 28, 28, 3), np.uint8)
    with torch.inference_mode():
        places = model(torch.zeros(1, 3, 28, 28)).last_hidden_state
    expected = places[:, 0] if pooling == "cls" else places.mean(1)
    np.testing.assert_allclose(Transformers(config).encode(list(pixels)), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("said", "size_px"),
    [
        ({"size": {"height": 42, "width": 42}}, 42),
        (
            {"size": {"shortest_edge": 56}, "do_center_crop": True, "crop_size": {"height": 42, "width": 42}},
            42,
        ),
        ({"size": {"shortest_edge": 56}}, 56),
        ({"size": 42}, 42),
    ],
)
def test_what_the_model_was_trained_to_see(tmp_path: Path, said: dict[str, Any], size_px: int) -> None:
    model = saved(dinov2(), tmp_path)
    said = {**said, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = Transformers(TransformersConfig(model=model, device="cpu"))
    assert encoder._loaded.size_px == size_px
    assert {path.name for path in encoder.config.files()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    grey = encoder._loaded.normalise(np.full((1, 2, 2, 3), 51, np.uint8))
    expected = [(0.2 - mean) / std for mean, std in ((0.1, 0.4), (0.2, 0.5), (0.3, 0.6))]
    np.testing.assert_allclose(grey[0, :, 0, 0].float().numpy(), expected, atol=2e-3)


def bert() -> Any:
    return tf.BertModel(
        tf.BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50
        )
    )


@pytest.mark.parametrize(
    ("make", "more", "error", "message"),
    [
        (bert, SIGHT, WeightsError, "looks at no pictures, got BertModel"),
        (dinov2, {}, LineFileError, "does not say what pictures it expects"),
        (vit_without_pooler, {"pooling": "pooler", **SIGHT}, WeightsError, "pooler of .* was never trained"),
    ],
)
def test_what_a_user_gets_wrong(
    tmp_path: Path, make: Callable[[], Any], more: dict[str, Any], error: type[LabelmillError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Transformers(TransformersConfig(model=saved(make(), tmp_path), device="cpu", **more)).encode(crops(1))


def test_a_folder_with_half_of_the_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = saved(dinov2(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    whole = {name: value for name, value in tensors.items() if "layer.1." not in name}
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"does not hold the whole model, got 1\d tensors missing"):
        Transformers(TransformersConfig(model=model, device="cpu", **SIGHT)).encode(crops(1))


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("pwned"),)


def test_a_pickle_is_refused_unrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dinov2().config.save_pretrained(tmp_path)
    torch.save({"w": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pickle of live objects.*/model\.safetensors"):
        Transformers(TransformersConfig(model=str(tmp_path), device="cpu", **SIGHT)).encode(crops(1))
    assert not (tmp_path / "pwned").exists()


def test_a_program_in_the_folder_is_refused_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself transformers asks on the terminal whether to run it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    programs = {"AutoConfig": "program.Settings", "AutoModel": "program.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": programs}))
    (tmp_path / "program.py").write_text("from pathlib import Path\nPath('pwned').touch()\n")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match="contains custom code"):
        Transformers(TransformersConfig(model=str(tmp_path), device="cpu", **SIGHT)).encode(crops(1))
    assert not (tmp_path / "pwned").exists()


def test_a_state_dict_of_tensors_is_read(tmp_path: Path) -> None:
    model = dinov2().eval()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    encoder = Transformers(TransformersConfig(model=str(tmp_path), device="cpu", **SIGHT))
    assert encoder.encode(crops(2)).shape == (2, 32)
