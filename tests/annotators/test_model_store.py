from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.annotators.fake_hub import FILES, REVISION, Hub, running_hub

from labelmill.annotators import hub
from labelmill.annotators.known_models import near
from labelmill.annotators.model_store import (
    MANIFEST,
    Manifest,
    folder_of,
    is_hub_id,
    local_folder,
    nothing_fetched,
    obtain,
    pulled,
    verify,
)
from labelmill.errors import WeightsError

NEEDS = ("config.json", "*.safetensors|pytorch_model*.bin")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield hub


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("LABELMILL_MODELS", str(folder))
    return folder


def test_a_pulled_model_is_whole_and_has_a_manifest(server: Hub, store: Path) -> None:
    folder = hub.pull("acme/tiny")
    assert folder == store / "acme--tiny"
    names = ["config.json", MANIFEST, "model.safetensors", "vocab.txt"]  # no pickle beside safetensors
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert not (store / ".partial-acme--tiny").exists()
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert (manifest.model, manifest.revision, manifest.licence) == ("acme/tiny", REVISION, "mit")
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == {
        name: sha256(FILES[name]).hexdigest() for name in ("config.json", "model.safetensors", "vocab.txt")
    }
    assert pulled() == [manifest]
    assert verify("acme/tiny") == []


def test_a_plan_fetches_nothing(server: Hub, store: Path) -> None:
    wanted = hub.plan("acme/tiny")
    assert wanted.size_bytes == sum(len(FILES[file.name]) for file in wanted.files)
    assert {file.name for file in wanted.files} == {"config.json", "model.safetensors", "vocab.txt"}
    assert server.served == []
    assert not store.exists()


def test_a_pickle_is_taken_where_there_is_nothing_else(server: Hub) -> None:
    del server.files["model.safetensors"]
    assert "pytorch_model.bin" in {file.name for file in hub.plan("acme/tiny").files}


def test_a_page_without_weights_is_refused(server: Hub) -> None:
    server.files = {"README.md": b"words"}
    with pytest.raises(WeightsError, match="holds no weights that labelmill reads"):
        hub.plan("acme/tiny")


def test_a_pulled_model_needs_no_network(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub.pull("acme/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert obtain("acme/tiny", NEEDS) == folder


def test_an_absent_model_is_pulled_on_first_use(server: Hub) -> None:
    assert obtain("acme/tiny", NEEDS) == folder_of("acme/tiny")
    assert sorted(server.served) == ["config.json", "model.safetensors", "vocab.txt"]


def test_absent_and_no_hub_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        obtain("IDEA-Research/grounding-dino-tiny", NEEDS)
    line = str(caught.value)
    assert "labelmill models pull IDEA-Research/grounding-dino-tiny" in line
    assert "http://127.0.0.1:9" in line
    assert "model: ./path/to/folder" in line
    assert "\n" not in line


def test_an_unknown_model_is_said_to_be_unknown(server: Hub) -> None:
    with pytest.raises(WeightsError, match="the hub knows no model acme/other; check its spelling"):
        hub.plan("acme/other")


def test_damaged_bytes_are_refused(server: Hub) -> None:
    server.spoilt = {"model.safetensors"}
    with pytest.raises(WeightsError, match=r"model\.safetensors of acme/tiny arrived damaged, got SHA-256"):
        hub.pull("acme/tiny")
    assert Manifest.read(folder_of("acme/tiny")) is None
    server.spoilt = set()
    assert verify(hub.pull("acme/tiny").name.replace("--", "/")) == []


def test_no_room_is_said_before_anything_is_fetched(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(WeightsError, match="no room for acme/tiny"):
        hub.pull("acme/tiny")
    assert server.served == []


def test_a_model_that_lies_whole_is_not_fetched_again(server: Hub) -> None:
    folder = hub.pull("acme/tiny")
    server.served.clear()
    assert hub.pull("acme/tiny") == folder
    assert server.served == []
    (folder / "vocab.txt").write_bytes(b"hanx\n")
    hub.pull("acme/tiny")
    assert "vocab.txt" in server.served
    (folder / MANIFEST).write_text("{}")
    hub.pull("acme/tiny")
    assert verify("acme/tiny") == []


def test_a_broken_pull_keeps_its_whole_files(
    server: Hub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the hub's client waits before it asks again
    server.cut = {"model.safetensors"}
    with pytest.raises(
        WeightsError, match=r"the hub .* does not give them, got .*; run `labelmill models pull"
    ):
        hub.pull("acme/tiny")
    assert pulled() == []
    assert local_folder("acme/tiny", NEEDS) is None
    leftover = store / ".partial-acme--tiny" / ".cache" / "huggingface" / "download" / "a.1f.incomplete"
    leftover.write_bytes(b"of a process that was killed")
    server.cut, server.served = set(), []
    hub.pull("acme/tiny")
    assert server.served == ["model.safetensors"]
    assert verify("acme/tiny") == []
    assert not list(store.rglob("*.incomplete"))


def test_a_hub_that_goes_away_is_not_blamed_on_the_disk(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = replace(hub.plan("acme/tiny"), source="http://127.0.0.1:9")
    monkeypatch.setattr(hub, "plan", lambda *_: wanted)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(WeightsError, match=r"does not give them.*labelmill models pull acme/tiny"):
        hub.pull("acme/tiny")


def test_what_a_killed_pull_left_is_no_model(server: Hub, store: Path) -> None:
    hub.pull("acme/tiny").rename(store / ".partial-acme--tiny")
    assert pulled() == []


def test_a_full_disk_is_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(
        WeightsError, match=r"cannot be stored in .*, got No space left on device; name another"
    ):
        hub.pull("acme/tiny")


def test_verify_names_each_file_that_differs(server: Hub) -> None:
    folder = hub.pull("acme/tiny")
    (folder / "vocab.txt").write_bytes(b"hanx\n")
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").unlink()
    assert verify("acme/tiny") == [
        "config.json has 2 bytes instead of 22",
        "model.safetensors is absent",
        "vocab.txt has other bytes than those pulled",
    ]


def test_verify_of_what_was_never_pulled() -> None:
    with pytest.raises(WeightsError, match="acme/tiny was not pulled to"):
        verify("acme/tiny")


def test_a_damaged_manifest_is_refused(store: Path) -> None:
    folder = store / "acme--tiny"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text('{"model": "acme/tiny"}')
    with pytest.raises(WeightsError, match="is damaged"):
        local_folder("acme/tiny", NEEDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("acme/tiny", True), ("tiny", False), ("./acme/tiny", False), ("/acme/tiny", False), ("a/b/c", False)],
)
def test_hub_ids(text: str, expected: bool) -> None:
    assert is_hub_id(text) is expected


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(
        WeightsError, match=r"lacks config\.json, \*\.safetensors or pytorch_model\*\.bin; complete it"
    ):
        obtain(str(folder), NEEDS)
    (folder / "config.json").touch()
    (folder / "model.safetensors").touch()
    assert obtain(str(folder), NEEDS) == folder
    with pytest.raises(WeightsError, match=f"model {tmp_path / 'absent'} is absent"):
        obtain(str(tmp_path / "absent"), NEEDS)


def test_the_hugging_face_cache_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hf"
    snapshot = cache / "models--acme--tiny" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (cache / "models--acme--tiny" / "refs").mkdir()
    (cache / "models--acme--tiny" / "refs" / "main").write_text(REVISION)
    (snapshot / "config.json").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert local_folder("acme/tiny", NEEDS) is None  # half a model is no model
    (snapshot / "model.safetensors").touch()
    assert local_folder("acme/tiny", NEEDS) == snapshot


def test_a_question_fetches_nothing(server: Hub, store: Path) -> None:
    with nothing_fetched(), pytest.raises(WeightsError) as caught:
        obtain("Salesforce/blip2-itm-vit-g", NEEDS)
    place = store / "Salesforce--blip2-itm-vit-g"
    assert str(caught.value) == (
        "Salesforce/blip2-itm-vit-g is not on this machine; run `labelmill models pull "
        "Salesforce/blip2-itm-vit-g` (about 4,690 MB, licence MIT), here or where the hub can be reached, "
        f"and carry the folder that it names to {place} here; or write a local folder in the line file "
        "(model: ./path/to/folder)"
    )
    assert server.served == []
    obtain("acme/tiny", NEEDS)  # outside, it may
    with nothing_fetched():
        assert obtain("acme/tiny", NEEDS) == folder_of("acme/tiny")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("IDEA-Research/grounding-dino-tny", "did you mean IDEA-Research/grounding-dino-tiny? "),
        ("grounding-dino-tiny", "did you mean IDEA-Research/grounding-dino-tiny? "),
        ("idea/grounding-dino-base", "did you mean IDEA-Research/grounding-dino-base? "),
        ("IDEA-Research/grounding-dino-tiny", ""),
        ("acme/tiny", ""),
    ],
)
def test_a_misspelt_model_is_asked_about(name: str, hint: str) -> None:
    assert near(name) == hint
