"""BLIP-2's two makers on one tiny checkpoint with random weights, in both real formats."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tests.annotators.blip2_conversion import port_names  # noqa: E402
from tests.test_cli import digests  # noqa: E402

from labelmill.annotators import devices  # noqa: E402
from labelmill.annotators.encoders.blip2 import CLIP_MEAN, CLIP_STD, Blip2, Blip2Config  # noqa: E402
from labelmill.annotators.encoders.lavis import Lavis, LavisConfig  # noqa: E402
from labelmill.annotators.encoders.timm import TimmConfig  # noqa: E402
from labelmill.annotators.encoders.transformers import TransformersConfig  # noqa: E402
from labelmill.annotators.model_store import nothing_fetched  # noqa: E402
from labelmill.annotators.types import Encoder, Image  # noqa: E402
from labelmill.datasets.annotate import annotate  # noqa: E402
from labelmill.datasets.workspace import Workspace  # noqa: E402
from labelmill.environments import Environment, ensure_environment  # noqa: E402
from labelmill.errors import MissingDependencyError, ServiceError, WeightsError  # noqa: E402
from labelmill.line import load_line  # noqa: E402
from labelmill.makers import ENCODERS  # noqa: E402

FEATURES = ("pooled", "projected", "cls")
DIMS = {"pooled": 128, "projected": 32, "cls": 176}
SIZE_PX = 42


def crops(count: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (30 + 5 * i, 70 - 3 * i, 3), np.uint8) for i in range(count)]


def small_settings(**more: Any) -> Any:
    return transformers.Blip2Config(
        vision_config={
            "hidden_size": 176,
            "intermediate_size": int(176 * 4.3637),
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": SIZE_PX,
            "patch_size": 14,
            "initializer_range": 0.1,
        },
        qformer_config={
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 96,
            "vocab_size": 51,
            "max_position_embeddings": 16,
            "use_qformer_text_input": True,
        },
        num_query_tokens=4,
        image_text_hidden_size=32,
        **more,
    )


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny image-text matching checkpoint as transformers saves it."""
    torch.manual_seed(3)
    model = transformers.Blip2ForImageTextRetrieval(small_settings())
    with torch.no_grad():
        model.query_tokens.normal_()
    folder = tmp_path_factory.mktemp("blip2")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lavis() -> Environment:
    try:
        return ensure_environment("lavis")
    except ServiceError as error:
        pytest.skip(f"no package registry to install lavis from: {error}")


class Original(NamedTuple):
    checkpoint: Path
    pixels: Any
    reference: dict[str, Any]


@pytest.fixture(scope="module")
def original(lavis: Environment, tmp_path_factory: pytest.TempPathFactory) -> Original:
    """A tiny checkpoint that LAVIS itself made, and what LAVIS says of some pictures."""
    folder = tmp_path_factory.mktemp("lavis")
    checkpoint, pixels, reference = folder / "tiny.pth", folder / "pixels.npy", folder / "reference.npz"
    squares = np.random.default_rng(1).integers(0, 256, (5, SIZE_PX, SIZE_PX, 3), np.uint8)
    np.save(pixels, squares)
    script = Path(__file__).with_name("tiny_lavis.py")
    command = [str(lavis.python), "-P", str(script), str(checkpoint), str(pixels), str(reference)]
    done = subprocess.run(command, env=lavis.variables(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(reference) as found:
        return Original(checkpoint, squares, dict(found))


@pytest.fixture(scope="module")
def converted(original: Original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in transformers' format."""
    model = transformers.Blip2ForImageTextRetrieval(small_settings())
    tensors = torch.load(original.checkpoint, weights_only=True)["model"]
    report = model.load_state_dict(port_names(tensors), strict=False)
    assert not report.unexpected_keys
    assert all("position_ids" in name for name in report.missing_keys)
    folder = tmp_path_factory.mktemp("converted")
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("features", FEATURES)
def test_port_is_what_transformers_computes(port: Path, features: Any) -> None:
    encoder: Encoder = Blip2(Blip2Config(model=str(port), features=features, device="cpu", dtype="float32"))
    assert encoder.dim == DIMS[features]
    pixels = np.random.default_rng(2).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), np.uint8)
    model = transformers.Blip2ForImageTextRetrieval.from_pretrained(port).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        told = model(images, input_ids=torch.ones(1, 2, dtype=torch.long), attention_mask=torch.ones(1, 2))
    expected = {
        "cls": told.vision_model_output.last_hidden_state[:, 0],
        "projected": told.image_embeds.mean(1),
    }
    found = encoder.encode(list(pixels))
    assert found.shape == (3, DIMS[features])
    if features in expected:
        np.testing.assert_allclose(found, expected[features].numpy(), atol=1e-5)


@pytest.mark.parametrize("features", FEATURES)
def test_a_batch_gives_what_single_crops_give(port: Path, features: Any) -> None:
    some = crops(7)
    single = Blip2(
        Blip2Config(model=str(port), features=features, device="cpu", dtype="float32", batch_size=1)
    )
    batch = Blip2(
        Blip2Config(model=str(port), features=features, device="cpu", dtype="float32", batch_size=4)
    )
    np.testing.assert_allclose(batch.encode(some), single.encode(some), atol=1e-4)


def test_half_precision_keeps_the_q_former_whole(port: Path) -> None:
    some = crops(4)
    full = Blip2(Blip2Config(model=str(port), device="cpu", dtype="float32")).encode(some)
    half = Blip2(Blip2Config(model=str(port), device="cpu", dtype="bfloat16"))
    found = half.encode(some)
    model = half._loaded.model
    assert {p.dtype for p in model.vision_model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.qformer.parameters()} == {torch.float32}
    cosine = (found * full).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.99


@pytest.mark.parametrize("features", FEATURES)
def test_a_checkpoint_in_half_precision(port: Path, tmp_path: Path, features: Any) -> None:
    """Transformers keeps the format of the file where none is asked for: of the projection, for one."""
    model = transformers.Blip2ForImageTextRetrieval.from_pretrained(port)
    model.half().save_pretrained(tmp_path)
    some = crops(2)
    full, half = (
        Blip2(Blip2Config(model=str(folder), features=features, device="cpu", dtype="float32")).encode(some)
        for folder in (port, tmp_path)
    )
    cosine = (half * full).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.999


def test_a_generator_s_checkpoint_lends_its_image_encoder_only(tmp_path: Path) -> None:
    language = {"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = small_settings(
        text_config=language | {"ffn_dim": 16, "vocab_size": 60, "word_embed_proj_dim": 16}
    )
    transformers.Blip2ForConditionalGeneration(settings).save_pretrained(tmp_path)
    encoder = Blip2(Blip2Config(model=str(tmp_path), device="cpu"))
    assert encoder.encode(crops(2)).shape == (2, 128)
    assert not hasattr(encoder._loaded.model, "language_model")
    with pytest.raises(WeightsError, match=r"holds no projection.*choose `features: pooled`"):
        Blip2(Blip2Config(model=str(tmp_path), features="projected", device="cpu")).encode(crops(1))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    settings = transformers.ViTConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28
    )
    transformers.ViTModel(settings).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="BLIP-2"):
        Blip2(Blip2Config(model=str(tmp_path), device="cpu")).encode(crops(1))


def test_a_damaged_folder_is_one_line(port: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((port / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((port / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot be loaded") as caught:
        Blip2(Blip2Config(model=str(tmp_path), device="cpu")).encode(crops(1))
    assert "\n" not in str(caught.value)


def test_keys_hold_the_weights_and_not_the_machine(port: Path) -> None:
    settings = Blip2Config(model=str(port))
    assert {path.name for path in settings.files()} == {"config.json", "model.safetensors"}
    assert {"batch_size", "device", "model"}.isdisjoint(settings.key_fields())
    again = pickle.loads(pickle.dumps(Blip2(settings)))  # noqa: S301
    assert again.config == settings


@pytest.mark.parametrize("kind", [Blip2Config, TransformersConfig, TimmConfig])
def test_the_key_says_what_auto_stands_for(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = kind(model="a/b", device="cpu", dtype="auto")
    keys = []
    for native in (False, True):
        monkeypatch.setattr(devices, "_cpu_multiplies_bfloat16", lambda native=native: native)
        keys.append(settings.key_fields()["dtype"])
    assert keys == ["torch.float32", "torch.bfloat16"]
    assert kind(model="a/b", device="cpu", dtype="bfloat16").key_fields()["dtype"] == keys[1]


@pytest.mark.parametrize("kind", [Blip2Config, TransformersConfig])
def test_a_relative_folder_is_beside_the_line_file(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS", "models")
    for written in ("./models/blip2", "${MODELS}/blip2/../blip2"):
        found = kind.model_validate({"model": written}, context={"base": tmp_path})
        assert found.model == str(tmp_path / "models" / "blip2")


def test_without_torch_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, bench: Path) -> None:
    path = bench / "line.yaml"
    path.write_text(path.read_text().replace("{kind: hog}", "{kind: blip2}"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=r'torch is not installed; install it: pip install "labelmi'
    ):
        annotate(load_line(path), Workspace(bench / "workspace"))


@pytest.fixture(scope="module")
def worker(original: Original) -> Lavis:
    return Lavis(LavisConfig(checkpoint=original.checkpoint, device="cpu", batch_size=2))


@pytest.mark.server
def test_worker_gives_what_lavis_gives(original: Original, worker: Lavis) -> None:
    encoder: Encoder = worker
    assert encoder.dim == DIMS["pooled"]
    found = encoder.encode(list(original.pixels))
    assert found.shape == (5, DIMS["pooled"])
    np.testing.assert_allclose(found, original.reference["pooled"], atol=1e-5)
    for features in ("projected", "cls"):
        _, other = worker.worker.ask({"encode": features}, original.pixels)
        np.testing.assert_allclose(other, original.reference[features], atol=1e-5)
        assert worker.worker.greeted["dims"][features] == other.shape[1] == DIMS[features]
    assert worker.worker.starts == 1


@pytest.mark.server
def test_a_run_whose_worker_is_killed_in_mid_batch_ends_the_same(
    worker: Lavis, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench / "line.yaml"
    settings = f"{{kind: lavis, checkpoint: {worker.config.checkpoint}, device: cpu, batch_size: 2}}"
    path.write_text(path.read_text().replace("{kind: hog}", settings))
    line = load_line(path)
    monkeypatch.setattr(ENCODERS, "make", lambda config: worker)  # loaded already
    whole = annotate(line, Workspace(bench / "whole"))
    assert whole["counts"]["regions"] > 10
    process = worker.worker
    before, first = process.starts, process.pid
    assert first is not None
    batches, encode, killers = 0, worker._forward, []

    def watched(pixels: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 3:
            os.kill(first, signal.SIGSTOP)  # it holds still with a batch in its hands …
            killers.append(threading.Timer(0.5, os.kill, (first, signal.SIGKILL)))  # … and dies
            killers[0].start()
        return encode(pixels)

    monkeypatch.setattr(worker, "_forward", watched)
    annotate(line, Workspace(bench / "killed"))
    killers[0].join()
    assert batches > 4
    assert process.starts == before + 1
    assert process.pid != first
    assert digests(bench / "killed") == digests(bench / "whole")


@pytest.mark.server
@pytest.mark.parametrize("features", FEATURES)
def test_port_and_original_agree(original: Original, converted: Path, features: Any) -> None:
    encoder = Blip2(Blip2Config(model=str(converted), features=features, device="cpu", dtype="float32"))
    found = encoder.encode(list(original.pixels))
    np.testing.assert_allclose(found, original.reference[features], atol=1e-4)


@pytest.mark.server
def test_backbone_and_q_former_agree_before_pooling(original: Original, converted: Path) -> None:
    encoder = Blip2(Blip2Config(model=str(converted), device="cpu", dtype="float32"))
    model, normalise = encoder._loaded.model, encoder._loaded.normalise
    with torch.inference_mode():
        patches = model.vision_model(pixel_values=normalise(original.pixels)).last_hidden_state
        answers = model.qformer(
            query_embeds=model.query_tokens.expand(5, -1, -1), encoder_hidden_states=patches
        ).last_hidden_state
    np.testing.assert_allclose(patches.numpy(), original.reference["patches"], atol=1e-4)
    np.testing.assert_allclose(answers.numpy(), original.reference["answers"], atol=1e-4)


@pytest.mark.server
def test_the_vision_transformer_may_lie_in_a_file_of_its_own(original: Original, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = torch.load(original.checkpoint, weights_only=True)["model"]
    prefix = "visual_encoder."
    vision = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    rest = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    save_file(vision, tmp_path / "vit.safetensors")
    torch.save({"model": rest}, tmp_path / "rest.pth")
    encoder = Lavis(
        LavisConfig(checkpoint=tmp_path / "rest.pth", vit=tmp_path / "vit.safetensors", device="cpu")
    )
    found = encoder.encode(list(original.pixels))
    np.testing.assert_allclose(found, original.reference["pooled"], atol=1e-5)
    with pytest.raises(WeightsError, match=r"make no BLIP-2 image encoder.*visual_encoder"):
        Lavis(LavisConfig(checkpoint=tmp_path / "rest.pth", device="cpu")).encode(crops(1))


@pytest.mark.server
def test_a_pickle_is_refused_by_the_worker(lavis: Environment, tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=r"pickle of live objects.*convert it"):
        Lavis(LavisConfig(checkpoint=tmp_path / "m.pth", device="cpu")).encode(crops(1))


def test_a_question_makes_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_ENVIRONMENTS", str(tmp_path / "none"))
    (tmp_path / "m.pth").touch()
    with nothing_fetched(), pytest.raises(ServiceError, match=r"not made yet.*make it with `make lavis`"):
        Lavis(LavisConfig(checkpoint=tmp_path / "m.pth")).encode(crops(1))
    assert not (tmp_path / "none").exists()


def test_absent_weights_say_where_they_are_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent; fetch them from https://.*/blip2_pretrained\.pth"):
        Lavis(LavisConfig(checkpoint=tmp_path / "blip2_pretrained.pth")).encode(crops(1))


def test_the_first_use_says_what_takes_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise ServiceError("no registry")

    monkeypatch.setenv("LABELMILL_ENVIRONMENTS", str(tmp_path))
    monkeypatch.setattr("labelmill.annotators.encoders.lavis.ensure_environment", refused)
    (tmp_path / "m.pth").touch()
    with pytest.raises(ServiceError, match="no registry"):
        Lavis(LavisConfig(checkpoint=tmp_path / "m.pth")).encode(crops(1))
    assert caplog.messages == ["making the lavis environment, once: minutes, and 6 GB with CUDA"]


@pytest.mark.server
def test_a_wrong_device_is_one_clear_error(original: Original) -> None:
    with pytest.raises(ServiceError, match="lavis refuses"):
        Lavis(LavisConfig(checkpoint=original.checkpoint, device="toaster")).encode(crops(1))
