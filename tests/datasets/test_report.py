"""The report: right figures, nothing unescaped, and readable whatever is missing."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelmill.datasets import tables
from labelmill.datasets.report import Group, Step, write_report
from labelmill.datasets.report.charts import nice_step
from labelmill.datasets.report.data import read_run
from labelmill.datasets.report.gallery import choose_galleries
from labelmill.datasets.report.score import Truth, pair, read_truth, score
from labelmill.datasets.workspace import Workspace
from labelmill.errors import SourceError, WorkspaceError

NAN = float("nan")
EVIL = "<script>alert('x')</script>"


def region(frame: int, label: str, route: str, **changed: Any) -> dict[str, Any]:
    nearest = changed.pop("nearest", label if label != tables.NG else "a")
    return {
        "region_id": f"{frame:04d}-{label}-{changed.get('xyxy', [0])[0]}",
        "source": "video.mp4",
        "source_digest": "d" * 64,
        "frame_index": frame,
        "timestamp_s": frame / 10,
        "xyxy": [10.0, 10.0, 50.0, 50.0],
        "phrase": "hand",
        "score": 0.9,
        "crop_digest": "0" * 64,
        "label": label,
        "nearest": nearest,
        "similarity": 0.8,
        "runner_up": "b",
        "margin": 0.1,
        "ng_similarity": NAN,
        "route": route,
        "reason": "because",
        **changed,
    }


def frame(index: int, status: str = "kept", regions: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "source": "video.mp4",
        "source_digest": "d" * 64,
        "frame_index": index,
        "timestamp_s": index / 10,
        "width_px": 100,
        "height_px": 80,
        "status": status,
        "reason": "",
        "regions": regions,
        **changed,
    }


def workspace_with(
    folder: Path,
    regions: list[dict[str, Any]],
    frames: list[dict[str, Any]],
    quarantine: list[dict[str, Any]] | None = None,
    summary: dict[str, Any] | None = None,
) -> Workspace:
    workspace = Workspace(folder)
    workspace.tables.mkdir(parents=True)
    for name, rows, schema in (
        ("regions", regions, tables.REGIONS),
        ("frames", frames, tables.FRAMES),
        ("quarantine", quarantine or [], tables.QUARANTINE),
    ):
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), workspace.table(name))
    if summary is not None:
        (workspace.tables / "summary.json").write_text(json.dumps(summary))
    return workspace


def put_crop(workspace: Workspace, value: int) -> str:
    _, data = cv2.imencode(".jpg", np.full((40, 30, 3), value, np.uint8))
    return workspace.media.put(data.tobytes())


class Page(HTMLParser):
    """Tags, texts of cells, and image addresses of a page; fails on a tag that is closed wrongly."""

    VOID = frozenset({"meta", "img", "br", "link", "rect", "line", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.images: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        if tag == "img":
            self.images.append(values["src"] or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:  # <rect> with a <title> inside
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.texts.append(data.strip())
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.strip()


def kpis(text: str) -> dict[str, str]:
    return dict(re.findall(r'<p class="name">(.*?)</p><p class="figure">(.*?)</p>', text))


@pytest.fixture
def run(tmp_path: Path) -> Workspace:
    crops = [put_crop(Workspace(tmp_path / "ws"), value) for value in (40, 120, 200)]
    regions = [
        region(0, "a", "accepted", crop_digest=crops[0]),
        region(0, "b", "accepted", crop_digest=crops[1], xyxy=[60, 10, 90, 50], similarity=0.9),
        region(4, "a", "review", crop_digest=crops[2], similarity=0.71, margin=0.01),
        region(12, "NG", "review", similarity=0.69, margin=NAN),
        region(13, "NG", "ng", similarity=0.2),
        region(14, "NG", "ng", similarity=0.1, nearest="b"),
    ]
    frames = [
        frame(0, regions=2),
        frame(1, "repeat"),
        frame(2),
        frame(3, "unreadable"),
        frame(4, regions=1),
        *(frame(n, regions=1) for n in (12, 13, 14)),
    ]
    quarantine = [{"source": "video.mp4", "frame_index": 3, "reason": "the picture is damaged"}]
    quarantine.append({"source": "old.avi", "frame_index": None, "reason": "an empty file"})
    summary = {
        "line": "bench",
        "lambda": 0.7,
        "classes": ["a", "b", "c"],
        "seconds": {"encode": 1.5, "decode": 0.5, "other": 1},
        "shards": {"computed": 2, "reused": 1},
        "identities": {"encoder": {"kind": "hog", "version": 1, "size_px": 64, "files": []}},
    }
    return workspace_with(tmp_path / "ws", regions, frames, quarantine, summary)


def test_figures(run: Workspace, tmp_path: Path) -> None:
    out = write_report(run, tmp_path / "sub" / "report.html", title="bench")
    text = out.read_text()
    page = Page(text)
    figures = {"frames": "8", "NG frames": "1", "unreadable": "1", "regions": "6"}
    assert kpis(text) == {**figures, "accepted": "2", "to review": "2", "NG": "2"}
    assert [row[:4] for row in page.rows if row and row[0] in ("a", "b", "c", "NG")] == [
        ["a", "1", "1", "0"],
        ["b", "1", "0", "0"],
        ["c", "0", "0", "0"],
        ["NG", "0", "1", "2"],
    ]
    assert ["video.mp4", "3", "the picture is damaged"] in page.rows
    assert ["old.avi", "all", "an empty file"] in page.rows
    assert "λ = 0.700" in text
    assert "3.0 s in all, 3 frames a second; 2 shards computed, 1 reused." in text
    stages = [row[0] for row in page.rows if len(row) == 3 and row[1].endswith(" s")]
    assert stages == ["decodereading frames", "encodeembedding crops", "other"]
    assert "hog · size_px 64" in text


def test_it_is_one_file(run: Workspace, tmp_path: Path) -> None:
    text = write_report(run, tmp_path / "report.html", title="bench").read_text()
    page = Page(text)
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.images)
    assert len(page.images) == 3
    assert text.count("crop missing") == 3
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "url(" not in text
    assert "@import" not in text


def test_names_are_escaped(tmp_path: Path) -> None:
    workspace = workspace_with(
        tmp_path / "ws",
        [
            region(0, EVIL, "accepted", source=EVIL, reason='" onload="x', similarity=0.9),
            region(1, EVIL, "review", source=EVIL, reason=EVIL),
            region(2, "NG", "ng", source=EVIL, nearest=EVIL),
        ],
        [frame(n, regions=1, source=EVIL) for n in range(3)],
        [{"source": EVIL, "frame_index": 1, "reason": EVIL}],
        {"line": EVIL, "lambda": 0.5, "seconds": {EVIL: 1.0}, "identities": {"encoder": {"kind": EVIL}}},
    )
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"boxes": [[[10, 10, 50, 50, EVIL]], [], []], "events": [[0, 1, EVIL]]}))
    crop = tmp_path / f"{'<b>'}.jpg"
    text = write_report(
        workspace,
        tmp_path / "report.html",
        title=EVIL,
        truth=truth,
        facts={EVIL: EVIL},
        groups=[Group(EVIL, 1, (crop,))],
        steps=[Step(EVIL, EVIL)],
    ).read_text()
    assert "<script" not in text
    assert "onload=" not in text.replace("&#34; onload=", "")
    assert text.count("&lt;script&gt;") > 15
    Page(text)


def test_a_run_that_found_nothing(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path / "ws", [], [frame(0), frame(1, "repeat")])
    text = write_report(workspace, tmp_path / "report.html", title="empty").read_text()
    assert kpis(text)["regions"] == "0"
    assert kpis(text)["NG frames"] == "1"
    assert "<h2>Similarity" not in text
    assert "<h2>Over time" not in text
    Page(text)


def test_a_run_without_frames(tmp_path: Path) -> None:
    workspace = workspace_with(tmp_path / "ws", [], [])
    assert kpis(write_report(workspace, tmp_path / "r.html", title="none").read_text())["frames"] == "0"


def test_a_line_without_templates(tmp_path: Path) -> None:
    unknown = {"nearest": "", "similarity": NAN, "margin": NAN, "runner_up": ""}
    workspace = workspace_with(
        tmp_path / "ws",
        [region(n, "NG", "review", **unknown) for n in range(3)],
        [frame(n, regions=1) for n in range(3)],
        summary={"lambda": 0.75},
    )
    crop = tmp_path / "1.jpg"
    cv2.imwrite(str(crop), np.zeros((20, 20, 3), np.uint8))
    text = write_report(
        workspace, tmp_path / "report.html", title="t", groups=[Group("unnamed-1", 3, (crop,))]
    ).read_text()
    assert "unnamed-1" in text
    assert "nan" not in re.sub(r"data:image[^\"]*", "", text).lower()
    assert "λ" not in text
    assert kpis(text)["to review"] == "3"
    Page(text)
    Page(write_report(workspace, tmp_path / "report.html", title="t").read_text())


@pytest.mark.parametrize("name", ["frames", "regions", "quarantine"])
def test_a_missing_table_is_one_line(run: Workspace, tmp_path: Path, name: str) -> None:
    run.table(name).unlink()
    with pytest.raises(WorkspaceError, match=rf"no table .*{name}.parquet.* run `labelmill annotate LINE`"):
        write_report(run, tmp_path / "report.html", title="bench")
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_table_is_one_line(run: Workspace, tmp_path: Path) -> None:
    run.table("regions").write_bytes(b"PAR1 no more")
    with pytest.raises(WorkspaceError, match=r"regions.parquet cannot be read"):
        write_report(run, tmp_path / "report.html", title="bench")


def test_a_folder_in_the_way_is_one_line(run: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is a folder"):
        write_report(run, tmp_path, title="bench")


@pytest.mark.parametrize("summary", [None, {}, {"lambda": "?", "seconds": 3, "identities": [], "shards": 1}])
def test_a_summary_is_not_needed(tmp_path: Path, summary: dict[str, Any] | None) -> None:
    workspace = workspace_with(
        tmp_path / "ws", [region(0, "a", "accepted")], [frame(0, regions=1)], None, summary
    )
    text = write_report(workspace, tmp_path / "report.html", title="bench").read_text()
    assert "λ =" not in text
    assert kpis(text)["accepted"] == "1"


def test_score_against_truth(run: Workspace, tmp_path: Path) -> None:
    truth = Truth(
        boxes={
            0: [(12, 12, 52, 52, "a"), (60, 10, 90, 50, "a")],  # the second is labelled b
            1: [(0, 0, 9, 9, "a")],  # a repeat: not judged
            4: [(10, 10, 50, 50, "b")],
            12: [(10, 10, 50, 50, "b")],  # unclear
            13: [],
        },
        unclear=frozenset({12}),
    )
    found = score(run, truth)
    assert (found.frames, found.objects, found.found) == (3, 3, 3)
    assert (found.accepted, found.right) == (2, 1)
    assert found.table == {
        "a": {"a": 1, "b": 1, "review": 0, "ng": 0},
        "b": {"a": 0, "b": 0, "review": 1, "ng": 0},
        "no object": {"a": 0, "b": 0, "review": 0, "ng": 1},
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({str(k): v for k, v in truth.boxes.items() if k != 12}))
    text = write_report(run, tmp_path / "report.html", title="bench", truth=path).read_text()
    assert kpis(text)["right"] == "50.0 %"
    assert "<b>3 of 3</b> known objects were found" in text
    assert "<b>1 of 2</b> accepted crops have the right label" in text


@pytest.mark.parametrize("text", ["{", "[]", '{"a": []}', '{"boxes": [[[1, 2, 3]]]}', '{"1": 3}'])
def test_broken_truth_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(SourceError, match="holds no true boxes"):
        read_truth(path)


def test_pairs_are_one_to_one_and_the_best_first() -> None:
    true = [(0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 12.0)]
    assert pair(true, [[0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]]) == {0: 0, 1: 1}
    assert pair(true, []) == {}
    assert pair([], [[0, 0, 1, 1]]) == {}


def test_review_shows_what_is_closest_to_lambda_and_not_one_moment_only(tmp_path: Path) -> None:
    similarities = {0: 0.70, 1: 0.701, 2: 0.702, 20: 0.66, 40: 0.8, 60: 0.69, 61: 0.7005}
    workspace = workspace_with(
        tmp_path / "ws",
        [region(n, "a", "review", similarity=value) for n, value in similarities.items()],
        [frame(n, regions=1) for n in similarities],
    )
    regions = read_run(workspace).regions
    _, _, order, rows = choose_galleries(regions, 0.7, 6)[1]
    assert order == "closest to λ first"
    shown = [list(similarities)[row] for row in rows]
    # Apart: 0, 61, 20 and 40; then the nearest of those left out; all by their distance to λ.
    assert shown == [0, 61, 1, 2, 20, 40]


def test_accepted_crops_are_spread_over_time(tmp_path: Path) -> None:
    workspace = workspace_with(
        tmp_path / "ws",
        [region(n, "a", "accepted") for n in range(101)],
        [frame(n, regions=1) for n in range(101)],
    )
    rows = choose_galleries(read_run(workspace).regions, 0.7, 11)[0][3]
    assert rows.tolist() == list(range(0, 101, 10))


@pytest.mark.parametrize(("span", "ticks", "step"), [(1, 4, 0.5), (9, 4, 5), (0.3, 8, 0.05), (0, 4, 1)])
def test_nice_steps(span: float, ticks: int, step: float) -> None:
    assert nice_step(span, ticks) == pytest.approx(step)


def test_a_million_regions_take_seconds_and_stay_small(tmp_path: Path) -> None:
    count = 1_000_000
    rng = np.random.default_rng(0)
    workspace = workspace_with(tmp_path / "ws", [], [frame(n) for n in range(1000)])
    codes = rng.integers(0, 3, count).astype(np.int32)
    texts = pa.DictionaryArray.from_arrays(codes, pa.array(["a", "b", "NG"])).cast(pa.string())
    columns: dict[str, Any] = {
        "region_id": pa.array(np.arange(count)).cast(pa.string()),
        "frame_index": pa.array(np.arange(count) // 10),
        "timestamp_s": pa.array(np.arange(count) / 250.0),
        "xyxy": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 * count, np.float32)), 4),
        "similarity": pa.array(rng.random(count, np.float32)),
        "margin": pa.array(rng.random(count, np.float32)),
        "label": texts,
        "nearest": pa.DictionaryArray.from_arrays(codes % 2, pa.array(["a", "b"])).cast(pa.string()),
        "route": pa.DictionaryArray.from_arrays(codes, pa.array(["accepted", "review", "ng"])).cast(
            pa.string()
        ),
    }
    schema = tables.REGIONS
    for field in schema:
        if field.name not in columns:
            value = "x" if pa.types.is_string(field.type) else 0.0
            columns[field.name] = pa.array([value] * count, field.type)
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    pq.write_table(table, workspace.table("regions"), row_group_size=100_000)
    started = time.process_time()
    out = write_report(workspace, tmp_path / "report.html", title="large")
    assert time.process_time() - started < 15
    assert out.stat().st_size < 1_000_000  # no crops are stored
    assert kpis(out.read_text())["regions"] == "1.0 M"
