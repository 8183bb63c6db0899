from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.datasets.test_report import frame, put_crop, region, workspace_with

from labelmill.datasets.grouping import suggest_groups
from labelmill.datasets.shards import fixed_size_lists
from labelmill.datasets.workspace import Workspace


def run_with(folder: Path, directions: list[list[float]]) -> Workspace:
    """A workspace of one region a frame, each with a crop and an embedding."""
    workspace = workspace_with(
        folder / "ws",
        [
            region(n, "NG", "review", crop_digest=put_crop(Workspace(folder / "ws"), 10 * n))
            for n in range(len(directions))
        ],
        [frame(n, regions=1) for n in range(len(directions))],
    )
    ids = pq.read_table(workspace.table("regions"), columns=["region_id"])["region_id"]
    write_shard(workspace, "key", ids, directions)
    return workspace


def write_shard(workspace: Workspace, key: str, ids: pa.ChunkedArray, rows: list[list[float]]) -> None:
    path = workspace.shards / "encode" / f"{key}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    embedding = fixed_size_lists(np.array(rows, np.float16))
    pq.write_table(pa.table({"region_id": ids, "embedding": embedding}), path)


def test_likeness_makes_folders(tmp_path: Path) -> None:
    workspace = run_with(tmp_path, [[1, 0.01 * n] for n in range(9)] + [[0.01 * n, 3] for n in range(5)])
    groups = suggest_groups(workspace, tmp_path / "templates")
    assert [(group.name, group.total) for group in groups] == [("unnamed-1", 9), ("unnamed-2", 5)]
    for group in groups:
        assert group.crops
        assert all(crop.parent == tmp_path / "templates" / group.name for crop in group.crops)
        assert sorted((tmp_path / "templates" / group.name).iterdir()) == list(group.crops)
        assert all(crop.read_bytes()[:2] == b"\xff\xd8" for crop in group.crops)


def test_a_second_suggestion_replaces_the_first_and_spares_named_folders(tmp_path: Path) -> None:
    workspace = run_with(tmp_path, [[1, 0.01 * n] for n in range(9)] + [[0.01 * n, 3] for n in range(5)])
    folder = tmp_path / "templates"
    suggest_groups(workspace, folder)
    (folder / "unnamed-1").rename(folder / "hand")
    stale = folder / "unnamed-7"
    stale.mkdir()
    (stale / "01.jpg").write_bytes(b"")
    mine = folder / "unnamed-8" / "mine.png"
    mine.parent.mkdir()
    mine.write_bytes(b"")
    suggest_groups(workspace, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["hand", "unnamed-1", "unnamed-2", "unnamed-8"]
    assert mine.exists()


def test_shards_of_another_encoder_are_left_out(tmp_path: Path) -> None:
    workspace = run_with(tmp_path, [[1, 0.01 * n] for n in range(6)])
    ids = pq.read_table(workspace.table("regions"), columns=["region_id"])["region_id"]
    write_shard(workspace, "newer", ids.slice(0, 3), [[1, 0, 0]] * 3)
    groups = suggest_groups(workspace, tmp_path / "templates")
    assert sum(group.total for group in groups) == 3


def test_a_run_without_regions_suggests_nothing(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path / "ws", [], [frame(0)])
    assert suggest_groups(workspace, tmp_path / "templates") == []
    assert not (tmp_path / "templates").exists()
