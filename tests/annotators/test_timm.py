"""The `timm` encoder on real ImageNet weights, held to what their README records."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
from safetensors.torch import load_file, save_file  # noqa: E402

from labelmill.annotators.encoders.timm import Timm, TimmConfig  # noqa: E402
from labelmill.annotators.model_store import Manifest, folder_of  # noqa: E402
from labelmill.annotators.similarity import unit_rows  # noqa: E402
from labelmill.annotators.types import Encoder, Image  # noqa: E402
from labelmill.errors import LineFileError, WeightsError  # noqa: E402

# indices of the 1,001 classes: 0 is "background", then ImageNet's 1,000 in the usual order
TABBY, TIGER_CAT, EGYPTIAN_CAT, ESPRESSO, MISSILE, PROJECTILE = 282, 283, 286, 968, 658, 745

PICTURES = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "gravel",
    "horse",
    "moon",
    "rocket",
    "text",
)


def weights() -> Path:
    data = os.environ.get("LABELMILL_DATA")
    path = Path(data or "absent").parent / "weights" / "mobilenet_v2_imagenet.safetensors"
    if not path.is_file():
        pytest.skip("the MobileNetV2 weights lie beside the folder that LABELMILL_DATA names")
    return path


def config(path: Path, **more: Any) -> TimmConfig:
    arguments: dict[str, Any] = {
        "model": "mobilenetv2_100",
        "weights": path,
        "model_args": {"pad_type": "same", "num_classes": 1001},
        "mean": (0.5, 0.5, 0.5),  # x / 127.5 - 1
        "std": (0.5, 0.5, 0.5),
        "device": "cpu",
    }
    return TimmConfig(**arguments | more)


def bundled() -> dict[str, Image]:
    """Pictures that come with scikit-image."""
    skimage = pytest.importorskip("skimage")
    import cv2

    folder = Path(skimage.__file__).parent / "data"
    found = {path.stem: path for path in folder.iterdir() if path.stem in PICTURES}
    if set(found) != set(PICTURES):
        pytest.skip("scikit-image comes without its pictures")
    return {
        name: np.asarray(cv2.cvtColor(cv2.imread(str(found[name])), cv2.COLOR_BGR2RGB), np.uint8)
        for name in PICTURES
    }


@pytest.mark.footage
def test_classes_of_well_known_pictures() -> None:
    path, pictures = weights(), bundled()
    encoder: Encoder = Timm(config(path))
    assert encoder.dim == 1280
    embeddings = encoder.encode(list(pictures.values()))
    tensors = load_file(path)
    logits = embeddings @ tensors["classifier.weight"].numpy().T + tensors["classifier.bias"].numpy()
    top = dict(zip(pictures, logits.argmax(1).tolist(), strict=True))
    assert logits.shape == (len(PICTURES), 1001)
    assert top["chelsea"] in {TABBY, TIGER_CAT, EGYPTIAN_CAT}
    assert top["coffee"] == ESPRESSO
    assert top["rocket"] in {MISSILE, PROJECTILE}


@pytest.mark.footage
def test_statistics_of_the_embeddings() -> None:
    embeddings = Timm(config(weights())).encode(list(bundled().values()))
    assert embeddings.dtype == np.float32
    assert embeddings.min() >= 0  # after ReLU6 and mean pooling
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    assert cosines.min() >= 0
    assert cosines.max() < 0.92  # README: at most 0.91 between different pictures


@pytest.mark.footage
def test_a_batch_gives_what_single_crops_give() -> None:
    crops = list(bundled().values())
    encoder = Timm(config(weights(), batch_size=4))
    singles = np.vstack([encoder.encode([crop]) for crop in crops])
    np.testing.assert_allclose(encoder.encode(crops), singles, atol=1e-4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("test_convnext", pretrained=False).state_dict(), path)
    return path


def test_defaults_come_from_timm(tiny: Path) -> None:
    import timm
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(timm.create_model("test_convnext", pretrained=False))
    crop = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    plain = Timm(TimmConfig(model="test_convnext", weights=tiny, device="cpu"))
    spelt = Timm(
        TimmConfig(
            model="test_convnext",
            weights=tiny,
            device="cpu",
            size_px=data["input_size"][1],
            mean=data["mean"],
            std=data["std"],
        )
    )
    other = Timm(TimmConfig(model="test_convnext", weights=tiny, device="cpu", fit="pad"))
    np.testing.assert_array_equal(plain.encode([crop]), spelt.encode([crop]))
    assert not np.allclose(plain.encode([crop]), other.encode([crop]))


def test_no_crops_and_a_trip_between_processes(tiny: Path) -> None:
    encoder = Timm(TimmConfig(model="test_convnext", weights=tiny, device="cpu"))
    assert encoder.encode([]).shape == (0, encoder.dim)
    again = pickle.loads(pickle.dumps(encoder))  # noqa: S301
    crop = np.zeros((9, 9, 3), np.uint8)
    np.testing.assert_array_equal(again.encode([crop]), encoder.encode([crop]))


def test_bfloat16_comes_back_as_float32(tiny: Path) -> None:
    encoder = Timm(TimmConfig(model="test_convnext", weights=tiny, device="cpu", dtype="bfloat16"))
    assert encoder.encode([np.zeros((9, 9, 3), np.uint8)]).dtype == np.float32


def test_the_key_holds_the_weights_and_not_the_machine(tiny: Path) -> None:
    settings = TimmConfig(model="test_convnext", weights=tiny)
    assert settings.files() == (tiny,)
    assert set(settings.key_fields()) == {
        "kind",
        "model",
        "model_args",
        "size_px",
        "mean",
        "std",
        "fit",
        "turned",
        "dtype",
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "mobilenetv2_10"}, LineFileError, "did you mean .*mobilenetv2_100.*\\?"),
        ({"model_args": {"wings": 2}}, LineFileError, "cannot make 'test_convnext' with model_args"),
        (
            {"model_args": {"num_classes": 7}},
            WeightsError,
            r"head\.fc\.weight is \[1000, 64\] instead of \[7, 64\]",
        ),
        ({"device": "cuda:99"}, LineFileError, "no device 'cuda:99'"),
        ({"device": "toaster"}, LineFileError, "unknown device 'toaster'"),
        ({"weights": None}, WeightsError, "labelmill models pull timm/test_convnext"),
    ],
)
def test_what_a_user_gets_wrong(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LABELMILL_MODELS", str(tmp_path / "models"))
    encoder = Timm(TimmConfig(**dict[str, Any](model="test_convnext", weights=tiny, device="cpu") | change))
    with pytest.raises(error, match=message):
        encoder.encode([np.zeros((9, 9, 3), np.uint8)])


def test_both_views_are_the_mean_of_their_directions(tiny: Path) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (30, 90, 3), np.uint8)
    by_fit = {}
    for fit in ("squash", "pad", "both"):
        settings = dict[str, Any](model="test_convnext", weights=tiny, device="cpu", fit=fit)
        by_fit[fit] = Timm(TimmConfig(**settings)).encode([crop])[0]
    directions = [by_fit[fit] / np.linalg.norm(by_fit[fit]) for fit in ("squash", "pad")]
    np.testing.assert_allclose(by_fit["both"], (directions[0] + directions[1]) / 2, atol=1e-6)


def test_a_full_accelerator_is_one_line(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    encoder = Timm(TimmConfig(model="test_convnext", weights=tiny, device="cpu"))
    monkeypatch.setattr(encoder, "_loaded", encoder._loaded._replace(look=full))
    with pytest.raises(LineFileError, match=r"'timm' does not fit .*; write a smaller batch_size"):
        encoder.encode([np.zeros((9, 9, 3), np.uint8)])


def test_pulled_weights_are_found(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABELMILL_MODELS", str(tmp_path))
    model = "timm/test_convnext.r160_in1k"
    folder = folder_of(model)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(tiny.read_bytes())
    Manifest(model, "0", "", "", {}).write(folder)
    settings = TimmConfig(model="test_convnext", device="cpu")
    assert settings.files() == (folder / "model.safetensors",)
    crop = np.zeros((9, 9, 3), np.uint8)
    named = TimmConfig(model="test_convnext", weights=tiny, device="cpu")
    np.testing.assert_array_equal(Timm(settings).encode([crop]), Timm(named).encode([crop]))


def test_turned_is_the_mean_direction_of_four_quarter_turns(tiny: Path) -> None:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, size, np.uint8) for size in ((160, 160, 3), (320, 160, 3), (80, 160, 3))]
    sideways = [np.rot90(crop) for crop in crops]
    settings = dict[str, Any](model="test_convnext", weights=tiny, device="cpu", batch_size=2)
    means = []
    for fit in ("squash", "pad"):
        plain, turned = (Timm(TimmConfig(**settings, fit=fit, turned=turned)) for turned in (False, True))
        views = [plain.encode([np.rot90(crop, quarters) for crop in crops]) for quarters in range(4)]
        assert np.abs(unit_rows(views[0]) - unit_rows(views[1])).max() > 0.02
        means.append(np.mean([unit_rows(view) for view in views], axis=0))
        np.testing.assert_allclose(turned.encode(crops), means[-1], atol=2e-3)
        np.testing.assert_allclose(turned.encode(sideways), means[-1], atol=2e-3)
    found = Timm(TimmConfig(**settings, fit="both", turned=True)).encode(crops)
    np.testing.assert_allclose(found, (means[0] + means[1]) / 2, atol=2e-3)
