"""Publishing, comparing and pulling large generated versions: `python -m benchmarks.versions`.

A workspace is generated as `annotate` leaves it: 20,000 frames and 100,000 regions from 200 sources, every
picture and crop a file of its own in media/. Nothing is decoded or matched. Every ratio is of two times
measured in this run.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.reports import table, write
from labelmill.annotators.types import Boxes
from labelmill.datasets.fiftyone_window import Window
from labelmill.datasets.shards import fixed_size_lists
from labelmill.datasets.tables import FRAMES, REGIONS, encode_schema
from labelmill.datasets.versions import frames as frame_store
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.diff import diff
from labelmill.datasets.versions.documents import documents
from labelmill.datasets.versions.frames import encode_jpeg
from labelmill.datasets.versions.publish import Origin, publish
from labelmill.datasets.versions.pull.choose import choose
from labelmill.datasets.versions.pull.pull import Format, pull
from labelmill.datasets.versions.show import gather
from labelmill.datasets.versions.store import Version
from labelmill.datasets.workspace import Workspace
from labelmill.files import digest_bytes, digest_text
from labelmill.images import Image

LABELS = ("take", "place", "hold", "screw", "NG")
WIDTH_PX, HEIGHT_PX = 1280, 720
DIM = 64
LOOPED = 1000
"""Samples of the slow loop; its time is scaled to all."""


def _pictures(workspace: Workspace, count: int, size: tuple[int, int], name: str) -> list[str]:
    """Put so many different JPEG files into media/: one picture, each with other bytes after its end."""
    noise = np.random.default_rng(len(name)).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    body = encode_jpeg(np.kron(noise, np.ones((8, 8, 1), np.uint8)), 80)
    digests = []
    for number in range(count):
        data = body + f"{name} {number}".encode()
        digest = digest_bytes(data)
        path = workspace.media.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digests.append(digest)
    return digests


def make_run(workspace: Workspace, frames: int, regions: int) -> None:
    """Write the tables, media and shards of a run."""
    workspace.open()
    rng = np.random.default_rng(0)
    sources = max(1, frames // 100)
    media = _pictures(workspace, frames, (640, 360), "frame")
    crops = _pictures(workspace, regions, (64, 96), "crop")
    digest_of = [digest_text("source", str(number)) for number in range(sources)]
    of = np.arange(frames) % sources
    order = np.argsort(of, kind="stable")
    index = np.arange(frames) // sources * 6
    names = [f"footage/line-{number:03d}.mp4" for number in range(sources)]
    frame_rows: dict[str, Any] = {
        "source": [names[of[row]] for row in order],
        "source_digest": [digest_of[of[row]] for row in order],
        "frame_index": index[order],
        "timestamp_s": index[order] / 30,
        "width_px": np.full(frames, WIDTH_PX, np.int32),
        "height_px": np.full(frames, HEIGHT_PX, np.int32),
        "status": ["kept"] * frames,
        "reason": [""] * frames,
        "regions": np.full(frames, regions // frames, np.int32),
    }
    at = np.sort(rng.integers(0, frames, regions))
    corner = rng.uniform(0, [WIDTH_PX * 0.8, HEIGHT_PX * 0.8], (regions, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 140, (regions, 2))], axis=1).astype(np.float32)
    label = rng.choice(LABELS, regions)
    similarity = rng.uniform(0.2, 1, regions).astype(np.float32)
    region_rows: dict[str, Any] = {
        "region_id": [digest_text("region", str(number), hex_digits=32) for number in range(regions)],
        "source": [frame_rows["source"][row] for row in at],
        "source_digest": [frame_rows["source_digest"][row] for row in at],
        "frame_index": np.asarray(frame_rows["frame_index"])[at],
        "timestamp_s": np.asarray(frame_rows["timestamp_s"])[at],
        "xyxy": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
        "phrase": ["hand"] * regions,
        "score": rng.uniform(0.3, 1, regions).astype(np.float32),
        "crop_digest": crops,
        "label": label,
        "nearest": np.where(label == "NG", "take", label),
        "similarity": similarity,
        "runner_up": rng.choice(LABELS[:4], regions),
        "margin": rng.uniform(0, 0.3, regions).astype(np.float32),
        "ng_similarity": np.full(regions, np.nan, np.float32),
        "route": np.where(label == "NG", "ng", "accepted"),
        "reason": [f"similarity {value:.2f} ≥ 0.40" for value in similarity],
    }
    workspace.tables.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(frame_rows, schema=FRAMES), workspace.table("frames"))
    pq.write_table(pa.table(region_rows, schema=REGIONS), workspace.table("regions"))
    rows = list(zip(frame_rows["source_digest"], index[order].tolist(), media, strict=True))
    (workspace.shards / "media").mkdir(parents=True, exist_ok=True)
    frame_store._write_map(workspace.shards / "media", rows, DatasetConfig().jpeg_quality)
    centres = rng.normal(size=(regions // 3, DIM))
    vectors = centres[rng.integers(0, len(centres), regions)] + 0.8 * rng.normal(size=(regions, DIM))
    columns = [
        pa.array(region_rows["region_id"]),
        pa.array(crops),
        fixed_size_lists(vectors.astype(np.float16)),
    ]
    (workspace.shards / "encode").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=encode_schema(DIM)), workspace.shards / "encode" / "made.parquet")


def edit(workspace: Workspace, share: float) -> None:
    """Relabel and move some regions, and drop some, as a later run might."""
    rng = np.random.default_rng(1)
    regions = pq.read_table(workspace.table("regions"))
    label = np.array(regions["label"].to_pylist())
    changed = rng.random(len(label)) < share
    label[changed & (label != "NG")] = "hold"
    boxes = np.asarray(regions["xyxy"].combine_chunks().flatten()).reshape(-1, 4).copy()
    boxes[rng.random(len(label)) < share] += 3
    columns = {name: regions[name] for name in regions.schema.names}
    columns["label"] = pa.array(label)
    columns["xyxy"] = pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4)
    kept = pa.array(rng.random(len(label)) >= share)
    pq.write_table(pa.table(columns, schema=REGIONS).filter(kept), workspace.table("regions"))


def origin(embeddings: list[str]) -> Origin:
    """What publishing needs to know; nothing is decoded or cut."""

    def none(_: pa.Table) -> Iterator[tuple[str, int, Image]]:
        raise AssertionError("nothing is decoded here")

    def cut(_: Image, __: Boxes) -> list[Image]:
        raise AssertionError("nothing is cut here")

    return Origin(
        "bench", b"name: bench\n", {"classes": list(LABELS[:4]), "lambda": 0.4}, embeddings, none, cut
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that some work takes, with the garbage of others swept before."""
    gc.collect()
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def publish_timed(
    workspace: Workspace, window: Window, embeddings: list[str]
) -> tuple[float, float, Version]:
    """Publish; seconds in all, and those of them spent on FiftyOne's dataset."""
    spent = 0.0
    stage, reveal = window.stage, window.reveal

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal spent
            started = time.perf_counter()
            result = work(*arguments)
            spent += time.perf_counter() - started
            return result

        return call

    for name, work in (("stage", stage), ("reveal", reveal)):
        setattr(window, name, noted(work))
    try:
        with workspace.lock():
            seconds, result = timed(lambda: publish(workspace, DatasetConfig(), origin(embeddings), window))
    finally:
        del window.stage, window.reveal
    return seconds, spent, result.version


def loop_of_saves(window: Window, version: Version, samples: int) -> float:
    """The usual way: add the samples, then give each its detections and save it; seconds for all frames."""
    fo = window.fo
    dataset = fo.Dataset("usual-loop")
    part = version.frames.slice(0, samples)
    made = [
        fo.Sample(filepath=str(window.workspace.media.path(digest)), tags=[split], frame_id=name)
        for digest, split, name in zip(
            *(part[name].to_pylist() for name in ("media_digest", "split", "frame_id")), strict=True
        )
    ]
    boxes: dict[str, list[Any]] = {name: [] for name in part["frame_id"].to_pylist()}
    for row in version.regions.to_pylist():
        if row["frame_id"] in boxes:
            boxes[row["frame_id"]].append(row)
    started = time.perf_counter()
    dataset.add_samples(made, progress=False)
    for sample in dataset:
        sample["regions"] = fo.Detections(
            detections=[
                fo.Detection(
                    label=row["label"],
                    bounding_box=_relative(row["xyxy"]),
                    confidence=row["score"],
                    region_id=row["region_id"],
                    crop=row["crop_digest"],
                    phrase=row["phrase"],
                    nearest=row["nearest"],
                    similarity=row["similarity"],
                    runner_up=row["runner_up"],
                    margin=row["margin"],
                    route=row["route"],
                    reason=row["reason"],
                    decided_by=row["decided_by"],
                    machine_label=row["machine_label"],
                )
                for row in boxes[sample.frame_id]
            ]
        )
        sample.save()
    seconds = time.perf_counter() - started
    dataset.delete()
    return float(seconds / samples * version.frames.num_rows)


def _relative(xyxy: list[float]) -> list[float]:
    x1, y1, x2, y2 = xyxy
    return [x1 / WIDTH_PX, y1 / HEIGHT_PX, (x2 - x1) / WIDTH_PX, (y2 - y1) / HEIGHT_PX]


def bare_insert(window: Window, version: Version) -> float:
    """Seconds of one `insert_many` of the same documents, made before, into a plain collection."""
    import bson

    media = window.workspace.media
    batches = documents(version.frames, version.regions, media, bson.ObjectId(), datetime.now(UTC))
    ready = [bson.decode(document) for batch in batches for document in batch]
    database = window._database
    database.bare.drop()
    seconds: float = timed(lambda: database.bare.insert_many(ready))[0]
    database.bare.drop()
    return seconds


def pull_and_copy(workspace: Workspace, version: Version, place: Path) -> dict[str, float]:
    """Seconds to pull a detector set, and to copy the files of an earlier pull of it."""
    found: dict[str, list[float]] = {"pull": [], "cp": [], "shutil": [], "link": [], "again": []}
    first, out = place / "first", place / "out"

    def pulled(link: bool) -> None:
        pull(workspace, version, Format.YOLO, str(out), link=link)

    def copied() -> None:
        subprocess.run(["cp", "-r", str(first), str(out)], check=True)

    def copied_by_python() -> None:
        shutil.copytree(first, out, copy_function=shutil.copyfile)

    pull(workspace, version, Format.YOLO, str(first), link=False)
    works: list[tuple[str, Callable[[], Any]]] = [
        ("pull", lambda: pulled(link=False)),
        ("cp", copied),
        ("shutil", copied_by_python),
        ("link", lambda: pulled(link=True)),
    ]
    for turn in range(3):
        for name, work in works[turn:] + works[:turn]:  # another order each time
            os.sync()  # nobody waits for what another one wrote
            found[name].append(timed(work)[0])
            if name == "pull":
                found["again"].append(timed(work)[0])
            shutil.rmtree(out)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def run(frames: int, regions: int, repetitions: int) -> dict[str, Any]:
    """Every measurement."""
    with tempfile.TemporaryDirectory(prefix="labelmill-bench-") as folder:
        workspace = Workspace(Path(folder) / "workspace")
        make_run(workspace, frames, regions)
        window = Window(workspace)
        _ = window.fo
        whole, shown, bare = [], [], []
        version = None
        for turn in range(repetitions):
            if version is not None:
                shutil.rmtree(version.folder.parent)
                window.fo.delete_dataset(version.manifest.window_name)
            seconds, spent, version = publish_timed(workspace, window, [])
            whole.append(seconds)
            shown.append(spent)
            bare.append(bare_insert(window, version))
            print(
                f"publish {turn}: {seconds:.2f} s, FiftyOne {spent:.2f} s, bare {bare[-1]:.2f} s", flush=True
            )
        if version is None:
            raise ValueError("at least one repetition")
        loop = loop_of_saves(window, version, min(LOOPED, frames))
        with workspace.lock():
            again, _ = timed(lambda: publish(workspace, DatasetConfig(), origin([]), window))
        edit(workspace, 0.05)
        embedded, embedded_shown, later = publish_timed(workspace, window, ["made"])
        gathered, _ = timed(lambda: gather(workspace, later.manifest, later.frames, later.regions, version))
        compared, changes = timed(lambda: diff(version, later))
        pulled = pull_and_copy(workspace, version, Path(folder))
        size = sum(path.stat().st_size for path in (Path(folder) / "first").rglob("*") if path.is_file())
        files = len(choose(version).pictures)
        window.fo.delete_datasets("*")
    publish_s, shown_s, bare_s = (statistics.median(values) for values in (whole, shown, bare))
    return {
        "frames": frames,
        "regions": regions,
        "repetitions": repetitions,
        "publish_s": publish_s,
        "publish_fiftyone_s": shown_s,
        "publish_all_s": whole,
        "bare_insert_s": bare_s,
        "bare_all_s": bare,
        "loop_s": loop,
        "loop_samples": min(LOOPED, frames),
        "loop_over_publish": loop / publish_s,
        "loop_over_fiftyone": loop / shown_s,
        "publish_over_bare": publish_s / bare_s,
        "fiftyone_over_bare": shown_s / bare_s,
        "publish_again_s": again,
        "publish_embedded_s": embedded,
        "publish_embedded_fiftyone_s": embedded_shown,
        "gather_s": gathered,
        "diff_s": compared,
        "diff_changes": changes.summary(),
        "pull_s": pulled["pull"],
        "pull_link_s": pulled["link"],
        "pull_again_s": pulled["again"],
        "cp_s": pulled["cp"],
        "shutil_s": pulled["shutil"],
        "pull_pictures": files,
        "pull_bytes": size,
        "speed_of_cp": pulled["cp"] / pulled["pull"],
        "speed_of_shutil": pulled["shutil"] / pulled["pull"],
    }


def text(found: dict[str, Any]) -> str:
    """The figures for people."""
    rows = [
        ("publish, whole (no embeddings stored)", f"{found['publish_s']:.2f}"),
        (
            "of it FiftyOne's dataset: schema, documents, insert, colours, views",
            f"{found['publish_fiftyone_s']:.2f}",
        ),
        ("bare insert_many of the same documents", f"{found['bare_insert_s']:.2f}"),
        (f"loop of one save a sample ({found['loop_samples']:,} measured, scaled)", f"{found['loop_s']:.1f}"),
        ("publish the same again (nothing new)", f"{found['publish_again_s']:.2f}"),
        (
            "publish a later version with embeddings: near-duplicates, map, similarity, what changed",
            f"{found['publish_embedded_s']:.2f}",
        ),
        ("diff of the two versions", f"{found['diff_s']:.2f}"),
        ("pull as YOLO, copies, every byte verified", f"{found['pull_s']:.2f}"),
        ("the same files by `cp -r`", f"{found['cp_s']:.2f}"),
        ("the same files by Python's shutil", f"{found['shutil_s']:.2f}"),
        ("pull as YOLO, hard links, every byte verified", f"{found['pull_link_s']:.2f}"),
        ("pull again, nothing changed", f"{found['pull_again_s']:.2f}"),
    ]
    counted = found["diff_changes"].items()
    changes = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counted if number)
    return (
        f"{found['regions']:,} regions on {found['frames']:,} generated frames; medians of "
        f"{found['repetitions']} publishes in turn with the bare insert, and of 3 pulls and copies in turn. "
        f"The pull moves {found['pull_bytes'] / 1e6:,.0f} MB in {2 * found['pull_pictures']:,} files.\n\n"
        + table(("what", "s"), rows)
        + "\n\n"
        f"- The loop takes **{found['loop_over_publish']:.1f}** times the whole publish, "
        f"**{found['loop_over_fiftyone']:.1f}** times its FiftyOne part; aim at least 20.\n"
        f"- The whole publish takes **{found['publish_over_bare']:.2f}** times the bare insert, its FiftyOne "
        f"part **{found['fiftyone_over_bare']:.2f}** times; aim at most 2.\n"
        f"- Diff: **{found['diff_s']:.2f} s** for {changes}; aim at most 5 s.\n"
        f"- Pull at **{found['speed_of_cp']:.0%}** of the speed of `cp -r`, "
        f"**{found['speed_of_shutil']:.0%}** of shutil's; aim at least 80 %."
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--regions", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print, but do not write docs/results")
    given = parser.parse_args()
    found = run(given.frames, given.regions, given.repetitions)
    if given.dry:
        print(text(found))
        return
    write("versions", "Publishing, comparing and pulling versions", text(found), found)


if __name__ == "__main__":
    main()
