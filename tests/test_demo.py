"""`labelmill demo` from end to end: sample, regions, report, and a version that can be browsed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from docs.images.take_app import browsed, chromium_program, opened, take
from PIL import Image

from labelmill.datasets.sample import generate_sample
from labelmill.datasets.versions.store import VersionStore
from labelmill.datasets.workspace import Workspace


def labelmill(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labelmill.cli", *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo on the generated video lies: what one test made, the next one goes on from."""
    return tmp_path_factory.mktemp("demo")


def test_the_generated_video_gives_a_report(generated: Path) -> None:
    done = labelmill("demo", "--seconds", "8", "--no-publish", "--json", "-o", generated)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"]["frames"] == 120
    assert document["counts"]["accepted"] > 0
    html = (generated / "report.html").read_text()
    assert "known objects were found" in html
    assert document["report"] == str(generated / "report.html")


def test_a_video_without_templates_gives_groups_to_name(tmp_path: Path) -> None:
    video = generate_sample(tmp_path / "sample", duration_s=6).video
    done = labelmill("demo", "--source", video, "--json", "-o", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"]["review"] == document["counts"]["regions"] > 0
    assert document["templates"]
    folders = [tmp_path / "demo" / "templates" / name for name in document["templates"]]
    assert all(list(folder.iterdir()) for folder in folders)
    # What it suggests works as templates.
    again = labelmill(
        *("demo", "--source", video, "--templates", tmp_path / "demo" / "templates"),
        *("--no-publish", "--json", "-o", tmp_path / "demo"),
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["counts"]["accepted"] > 0
    # A line file that a person has edited is not written over.
    line = tmp_path / "demo" / "line.yaml"
    edited = line.read_text().replace("fps: 10", "fps: 5")
    line.write_text(edited)
    kept = labelmill("demo", "--source", video, "-o", tmp_path / "demo")
    assert kept.returncode == 2
    assert kept.stderr.startswith(f"labelmill: {line} was edited, and is kept; use it: labelmill annotate ")
    assert line.read_text() == edited


def test_a_missing_video_is_one_line(tmp_path: Path) -> None:
    done = labelmill("demo", "--source", tmp_path / "none.mp4", "-o", tmp_path / "demo")
    assert done.returncode == 2
    assert done.stderr.startswith("labelmill: no file ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.server
def test_the_dataset_can_be_browsed(generated: Path, tmp_path: Path) -> None:
    done = labelmill("demo", "--seconds", "8", "--json", "-o", generated)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["version"] == "demo-line@v1"
    with browsed(Path(document["workspace"]), document["version"]) as address:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310
            assert answer.status == 200
        if chromium_program() is None:
            pytest.skip("no Chromium on this machine")
        version = VersionStore(Workspace(Path(document["workspace"]))).resolve("v1")
        served: list[str] = []
        with opened(address, seen=served) as page:
            page.get_by_text(f"{version.frames.num_rows} samples", exact=True).first.wait_for()
            words = page.locator("body").inner_text().lower()
            take(page, tmp_path / "app.png")
    assert [name for name in ("regions", "split", "group", "pending") if name not in words] == []
    media = set(version.frames["media_digest"].to_pylist())
    shown = {digest for url in served for digest in re.findall(r"([0-9a-f]{64})\.jpg", url)}
    assert shown
    assert shown <= media
    picture = np.asarray(Image.open(tmp_path / "app.png").convert("RGB"))
    assert picture.shape == (800, 1280, 3)
    grid = picture[150:700, 320:1260]  # where the App draws the samples
    assert grid.std() > 20  # an empty grid is one dark grey
    assert len(np.unique(grid.reshape(-1, 3), axis=0)) > 50
