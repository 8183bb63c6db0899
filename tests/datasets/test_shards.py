from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelmill.datasets.media import MediaStore
from labelmill.datasets.shards import ShardStore, embeddings_of, fixed_size_lists, make_key, table_of
from labelmill.datasets.tables import encode_schema
from labelmill.errors import DamagedShardError, WorkspaceError, WorkspaceFullError
from labelmill.files import digest_bytes

KEY = "0" * 32


def table(rows: int = 50) -> pa.Table:
    return pa.table({"n": pa.array(range(rows), pa.int64()), "s": [f"row {n}" for n in range(rows)]})


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    return ShardStore(tmp_path / "shards")


def test_what_was_written_is_read(store: ShardStore) -> None:
    assert not store.has("select", KEY)
    store.write("select", KEY, table())
    assert store.has("select", KEY)
    assert store.read("select", KEY).equals(table())
    assert store.read("select", KEY, columns=["s"]).column_names == ["s"]
    assert [path.name for path in store.path("select", KEY).parent.iterdir()] == [f"{KEY}.parquet"]


def test_the_same_rows_are_the_same_bytes(store: ShardStore) -> None:
    store.write("select", "a", table())
    store.write("select", "b", table())
    assert store.path("select", "a").read_bytes() == store.path("select", "b").read_bytes()


def test_a_shard_without_rows(store: ShardStore) -> None:
    store.write("select", KEY, table(0))
    assert store.has("select", KEY)
    assert store.read("select", KEY).num_rows == 0


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_half_a_file_is_none(store: ShardStore, share: float) -> None:
    store.write("select", KEY, table())
    path = store.path("select", KEY)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert not store.has("select", KEY)


def test_other_content_is_none(store: ShardStore) -> None:
    path = store.path("select", KEY)
    path.parent.mkdir(parents=True)
    for data in (b"PAR1", b"PAR1PAR1", b"I am text, and long enough", b"\xff\xff\xff\x7fPAR1" * 4):
        path.write_bytes(data)
        assert not store.has("select", KEY), data


def test_every_turned_byte_is_found_or_harmless(store: ShardStore) -> None:
    """Whatever byte of a shard changes: the rows read are those written, or it counts as damaged."""
    expected = table()
    store.write("select", KEY, expected)
    path = store.path("select", KEY)
    data = path.read_bytes()
    found = 0
    for at in range(0, len(data), 3):
        turned = bytearray(data)
        turned[at] ^= 0x5A
        path.write_bytes(turned)
        if not store.has("select", KEY):
            found += 1
            continue
        try:
            assert store.read("select", KEY).to_pydict() == expected.to_pydict(), f"byte {at}"
        except DamagedShardError:
            found += 1
        assert store.has("select", KEY) or not path.exists()
    assert found > len(data) / 3 / 2


def test_an_absent_shard_says_what_to_do(store: ShardStore) -> None:
    with pytest.raises(DamagedShardError, match="run `labelmill annotate` again"):
        store.read("encode", KEY)


def test_a_refusal_of_the_system_removes_nothing(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("select", KEY, table())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(pq, "read_table", refuse)
    with pytest.raises(WorkspaceError, match="too many open files"):
        store.read("select", KEY)
    assert store.has("select", KEY)


def test_a_full_disk_leaves_nothing_behind(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: pa.Table, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(WorkspaceFullError, match="no space left in"):
        store.write("select", KEY, table())
    assert not store.has("select", KEY)
    assert list(store.path("select", KEY).parent.iterdir()) == []


def test_keys_tell_everything_apart() -> None:
    keys = [
        make_key("select", a=1),
        make_key("propose", a=1),
        make_key("select", a=2),
        make_key("select", b=1),
        make_key("select", a="1"),
        make_key("select", a=[1]),
        make_key("select", a=None),
        make_key("select"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)
    assert make_key("select", a=1, b=2) == make_key("select", b=2, a=1)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 4)])
def test_embeddings_come_back_as_they_went(store: ShardStore, shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    columns = {
        "region_id": [str(n) for n in range(shape[0])],
        "crop_digest": [""] * shape[0],
        "embedding": fixed_size_lists(rows),
    }
    store.write("encode", KEY, table_of(columns, encode_schema(shape[1])))
    np.testing.assert_array_equal(embeddings_of(store.read("encode", KEY)), rows)


def test_a_table_of_other_columns_is_a_bug() -> None:
    with pytest.raises(KeyError):
        table_of({"a": [1]}, pa.schema([("b", pa.int64())]))


def test_media_are_stored_once_by_their_bytes(tmp_path: Path) -> None:
    media = MediaStore(tmp_path / "media")
    digest = media.put(b"picture")
    path = media.path(digest)
    assert digest == digest_bytes(b"picture")
    assert path == tmp_path / "media" / digest[:2] / f"{digest}.jpg"
    assert path.read_bytes() == b"picture"
    before = path.stat()
    assert media.put(b"picture") == digest
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_media_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    media = MediaStore(tmp_path / "w" / "media")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(WorkspaceFullError, match=r"no space left in .*w; free some space"):
            media.put(b"picture")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert media.path(media.put(b"picture")).read_bytes() == b"picture"
