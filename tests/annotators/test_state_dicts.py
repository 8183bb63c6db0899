from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from labelmill.annotators.state_dicts import conversion_command, load_strictly, read_state_dict  # noqa: E402
from labelmill.errors import WeightsError  # noqa: E402


class Payload:
    """What a hostile checkpoint would do on loading."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize(
    "wrap", [lambda d: d, lambda d: {"model": d, "epoch": 3}, lambda d: {"state_dict": d}]
)
def test_pytorch_files_of_tensors_are_read(tmp_path: Path, wrap: object) -> None:
    assert callable(wrap)
    torch.save(wrap({"w": torch.ones(2, 3)}), tmp_path / "m.pth")
    tensors = read_state_dict(tmp_path / "m.pth")
    assert list(tensors) == ["w"]
    assert tensors["w"].shape == (2, 3)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    assert read_state_dict(tmp_path / "m.safetensors")["w"].tolist() == [1, 1]


def test_a_pickle_is_refused_unrun_with_the_way_to_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Payload()}, tmp_path / "m.pt")
    with pytest.raises(WeightsError, match=r"pickle of live objects.*weights_only=False.*m\.safetensors"):
        read_state_dict(tmp_path / "m.pt")
    assert not (tmp_path / "pwned").exists()


def test_the_command_given_converts(tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 3)}, tmp_path / "m.pt")
    with pytest.raises(WeightsError):
        read_state_dict(tmp_path / "m.pt")
    _, _, rest = conversion_command(tmp_path / "m.pt").partition('-c "')
    program, _, paths = rest.partition('" ')
    subprocess.run([sys.executable, "-c", program, *paths.split()], check=True)
    assert read_state_dict(tmp_path / "m.safetensors")["weight"].shape == (3, 2)


def test_the_command_given_writes_the_name_that_transformers_reads(tmp_path: Path) -> None:
    """Beside `pytorch_model.bin` it would go on reading that, and refuse it again."""
    words = shlex.split(conversion_command(tmp_path / "my models" / "pytorch_model.bin"))
    folder = f"{tmp_path}/my models"
    assert words[-2:] == [f"{folder}/pytorch_model.bin", f"{folder}/model.safetensors"]


@pytest.mark.parametrize("name", ["m.safetensors", "m.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_damaged_files_get_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}])
def test_files_without_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match="hold no state dict"):
        read_state_dict(tmp_path / "m.pth")


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="are absent"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="are not a file"):
        read_state_dict(tmp_path)


def test_what_does_not_fit_is_named() -> None:
    model = torch.nn.Linear(2, 3)
    with pytest.raises(WeightsError, match=r"weight \[3, 2\] is missing; bias is \[4\] instead of \[3\]"):
        load_strictly(model, {"bias": torch.zeros(4)}, Path("m.pth"))
    load_strictly(model, {"bias": torch.ones(3), "weight": torch.ones(3, 2)}, Path("m.pth"))
    assert model.weight.sum() == 6
