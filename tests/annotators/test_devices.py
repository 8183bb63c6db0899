from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from labelmill.annotators.devices import choose_device, choose_dtype  # noqa: E402
from labelmill.errors import LineFileError  # noqa: E402


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")],
)
def test_auto_on_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda:1")) == getattr(torch, expected)


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")],
)
def test_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, expected: str) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    assert choose_dtype("auto", torch.device("cpu")) == getattr(torch, expected)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_what_is_written_is_taken(device: str) -> None:
    assert choose_dtype("float32", torch.device(device)) == torch.float32


def test_auto_elsewhere_is_float32() -> None:
    assert choose_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
        ("cpu", 2, "cpu"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, expected: str) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(("name", "gpus"), [("cuda", 0), ("cuda:1", 1), ("toaster", 1), ("cuda:x", 1)])
def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(LineFileError, match=name):
        choose_device(name)
