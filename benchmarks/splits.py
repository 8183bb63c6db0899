"""What an unguarded random split leaks, and what ours does: `python -m benchmarks.splits`.

The tools images (train and val of LABELMILL_DATA together) become the frames of a workspace, their labelled
boxes its regions, and MobileNetV2 embeds the crops. Then the real `publish` is asked to take a random split,
the data set's own split, and none, so that it makes its own.

Two measures stand beside the gate's: whole pictures whose embeddings are alike, which the splits were not
made by, and whole pictures whose difference hashes, taken here from the full pictures, are near (flips
allowed).
"""

from __future__ import annotations

import csv
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.reports import table, write
from benchmarks.runs import data
from labelmill.annotators.types import Boxes
from labelmill.datasets.shards import fixed_size_lists
from labelmill.datasets.tables import FRAMES, REGIONS, encode_schema
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.datasets.versions.gate import Leaks, find_leaks
from labelmill.datasets.versions.publish import Origin, publish
from labelmill.datasets.versions.similar import load_embeddings, near_pairs
from labelmill.datasets.versions.splits import assign, class_crops
from labelmill.datasets.versions.stills import load_stills
from labelmill.datasets.versions.tables import FRAMES as VERSION_FRAMES
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError
from labelmill.files import digest_text
from labelmill.images import Image, read_image
from labelmill.makers import ENCODERS

SHARES = {"train": 0.8, "val": 0.2}
"""Near the data set's own, 756 and 172 of 928."""

SEEDS = 10
WHOLE_PICTURE = 0.95
HASH_BITS = 10
"""Of 256: the distance up to which the data's README counts a near-duplicate."""

_ENCODER = {
    "kind": "timm",
    "model": "mobilenetv2_100",
    "model_args": {"num_classes": 1001, "pad_type": "same"},
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "size_px": 224,
}


def make_run(root: Path, workspace: Workspace) -> npt.NDArray[np.float32]:
    """Write the tools images as a finished run.

    Returns:
        An embedding a whole picture, in the order of the frames, unit length.
    """
    workspace.open()
    encoder = ENCODERS.make(
        ENCODERS.config("timm").model_validate(
            {**_ENCODER, "weights": root.parent / "weights" / "mobilenet_v2_imagenet.safetensors"}
        )
    )
    names = yaml.safe_load((root / "tools" / "data.yaml").read_text())["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    frames: list[dict[str, Any]] = []
    regions: list[dict[str, Any]] = []
    vectors: list[npt.NDArray[np.float32]] = []
    wholes: list[npt.NDArray[np.float32]] = []
    for split in ("train", "val"):
        for path in sorted((root / "tools" / "images" / split).iterdir()):
            image = read_image(path)
            if isinstance(image, str):
                raise SystemExit(f"{path}: {image}")
            height_px, width_px = image.shape[:2]
            digest = workspace.media.put(path.read_bytes())
            source = f"{split}/{path.name}"
            frames.append(
                {
                    "source": source,
                    "source_digest": digest,
                    "frame_index": 0,
                    "timestamp_s": 0.0,
                    "width_px": width_px,
                    "height_px": height_px,
                    "status": "kept",
                    "reason": "",
                    "regions": 0,
                }
            )
            boxes, labels = _boxes(
                root / "tools" / "labels" / split / f"{path.stem}.txt", width_px, height_px
            )
            crops = [_cut(image, box) for box in boxes]
            vectors.extend(encoder.encode(crops) if crops else [])
            wholes.append(encoder.encode([image])[0])
            for number, (box, label) in enumerate(zip(boxes, labels, strict=True)):
                regions.append(_region(workspace, source, digest, number, box, names[label], crops[number]))
    _write(workspace, frames, regions, np.asarray(vectors, dtype=np.float16))
    order = np.argsort([row["source"] for row in frames], kind="stable")
    whole = np.asarray(wholes, dtype=np.float32)[order]
    unit: npt.NDArray[np.float32] = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    return unit


def _boxes(path: Path, width_px: int, height_px: int) -> tuple[Boxes, list[int]]:
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()] if path.exists() else []
    x, y, w, h = np.asarray([row[1:5] for row in rows], dtype=np.float32).reshape(-1, 4).T
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    return (corners * [width_px, height_px, width_px, height_px]).astype(np.float32), [
        int(row[0]) for row in rows
    ]


def _cut(image: Image, box: npt.NDArray[np.float32]) -> Image:
    x1, y1, x2, y2 = np.clip(np.round(box), 0, [image.shape[1], image.shape[0]] * 2).astype(int)
    return image[min(y1, image.shape[0] - 1) : max(y2, y1 + 1), min(x1, image.shape[1] - 1) : max(x2, x1 + 1)]


def _region(
    workspace: Workspace,
    source: str,
    digest: str,
    number: int,
    box: npt.NDArray[np.float32],
    label: str,
    crop: Image,
) -> dict[str, Any]:
    from labelmill.datasets.versions.frames import encode_jpeg

    return {
        "region_id": digest_text(digest, str(number), hex_digits=32),
        "source": source,
        "source_digest": digest,
        "frame_index": 0,
        "timestamp_s": 0.0,
        "xyxy": box.tolist(),
        "phrase": "tool",
        "score": 1.0,
        "crop_digest": workspace.media.put(encode_jpeg(np.ascontiguousarray(crop), 95)),
        "label": label,
        "nearest": label,
        "similarity": 1.0,
        "runner_up": "",
        "margin": float("nan"),
        "ng_similarity": float("nan"),
        "route": "accepted",
        "reason": "labelled by the data set's authors",
    }


def _write(
    workspace: Workspace,
    frames: list[dict[str, Any]],
    regions: list[dict[str, Any]],
    vectors: npt.NDArray[np.float16],
) -> None:
    workspace.tables.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(frames, schema=FRAMES), workspace.table("frames"))
    pq.write_table(pa.Table.from_pylist(regions, schema=REGIONS), workspace.table("regions"))
    columns = [
        pa.array([row["region_id"] for row in regions]),
        pa.array([row["crop_digest"] for row in regions]),
        fixed_size_lists(vectors),
    ]
    folder = workspace.shards / "encode"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=encode_schema(vectors.shape[1])), folder / "tools.parquet")


def origin(root: Path) -> Origin:
    """What publishing needs to know."""

    def images(rows: pa.Table) -> Any:
        for row in rows.to_pylist():
            image = read_image(root / "tools" / "images" / row["source"])
            if not isinstance(image, str):
                yield row["source_digest"], 0, image

    return Origin("tools", b"", {}, ["tools"], images, lambda image, boxes: [_cut(image, b) for b in boxes])


def hashes(root: Path, frames: pa.Table) -> npt.NDArray[np.bool_]:
    """Difference hashes of 256 bits, as they are and mirrored: shape (2, frames, 256)."""
    import cv2

    rows: list[npt.NDArray[np.bool_]] = []
    for source in frames["source"].to_pylist():
        grey = cv2.imread(str(root / "tools" / "images" / source), cv2.IMREAD_GRAYSCALE)
        for turned in (grey, np.asarray(grey)[:, ::-1]):
            small = np.asarray(cv2.resize(turned, (17, 16), interpolation=cv2.INTER_AREA), dtype=np.int16)
            rows.append((small[:, 1:] > small[:, :-1]).ravel())
    return np.asarray(rows).reshape(-1, 2, 256).swapaxes(0, 1)


def whole_pairs(
    whole: npt.NDArray[np.float32], bits: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.int64]]:
    """Pairs of whole pictures that are alike, by embedding and by hash; each of shape (n, 2)."""
    alike = [np.stack([a, b], axis=1) for a, b, _ in near_pairs(whole, WHOLE_PICTURE)]
    near = np.zeros((len(whole), len(whole)), dtype=bool)
    for row in range(len(whole)):
        near[row] = np.count_nonzero(bits[0, row] != bits, axis=2).min(axis=0) <= HASH_BITS
    return {
        "embedding": np.concatenate(alike) if alike else np.zeros((0, 2), np.int64),
        "hash": np.argwhere(np.triu(near, 1)),
    }


def gated(found: list[Leaks]) -> dict[str, list[int]]:
    """What the gate counts, by kind."""
    return {
        "crops": [leaks.near_duplicates for leaks in found],
        "pictures": [leaks.pictures for leaks in found],
    }


def crossing(pairs: npt.NDArray[np.int64], split: list[str]) -> int:
    """How many pairs are in two splits."""
    return sum(split[a] != split[b] for a, b in pairs.tolist())


def run(root: Path) -> dict[str, Any]:
    """Every figure."""
    with tempfile.TemporaryDirectory(prefix="labelmill-bench-") as folder:
        workspace = Workspace(Path(folder))
        whole = make_run(root, workspace)
        config = DatasetConfig(splits=SHARES)
        frames, regions = _tables(workspace)
        pairs = whole_pairs(whole, hashes(root, frames))
        rng = random.Random(0)
        shuffled = [_random_split(frames, rng) for _ in range(SEEDS)]
        with workspace.lock():
            ours = publish(workspace, config, origin(root), None).version
        threshold = ours.manifest.splits["near_duplicate"]
        vectors, rows = load_embeddings(workspace, ["tools"], regions["region_id"].combine_chunks())
        crops = class_crops(frames, regions, vectors, rows)
        position = VERSION_FRAMES.get_field_index("media_digest")
        frames = frames.set_column(position, "media_digest", ours.frames["media_digest"])
        stills = load_stills(workspace, frames)

        def leaks(split: list[str]) -> Leaks:
            position = VERSION_FRAMES.get_field_index("split")
            table_ = frames.set_column(position, "split", pa.array(split))
            return find_leaks(
                table_,
                regions,
                crops,
                threshold=threshold,
                guard_s=config.guard_s,
                stills=stills,
                bits=ours.manifest.splits["near_duplicate_bits"],
            )

        own = [source.partition("/")[0] for source in frames["source"].to_pylist()]
        strict = DatasetConfig(splits=SHARES, near_duplicate=0.9)
        stricter = assign(frames, regions, crops, strict, {}, stills=stills).split
        splits = {
            "random": shuffled,
            "own": [own],
            "ours": [ours.frames["split"].to_pylist()],
            "ours_at_0.90": [stricter],
        }
        result: dict[str, Any] = {
            "frames": frames.num_rows,
            "crops": len(crops.vectors),
            "threshold": threshold,
            "bits": ours.manifest.splits["near_duplicate_bits"],
            "largest_group_share": ours.manifest.splits["largest_group_share"],
            "groups": len(set(ours.frames["group"].to_pylist())),
            "shares": {name: splits["ours"][0].count(name) / frames.num_rows for name in SHARES},
            "pairs": {name: len(found) for name, found in pairs.items()},
            "leaks": {
                name: {
                    **gated([leaks(split) for split in candidates]),
                    **{
                        kind: [crossing(found, split) for split in candidates]
                        for kind, found in pairs.items()
                    },
                }
                for name, candidates in splits.items()
            },
        }
        for name, split in (("random", shuffled[0]), ("own", own)):
            result["leaks"][name]["gate"] = _gate(workspace, root, frames, split)
    return result


def _tables(workspace: Workspace) -> tuple[pa.Table, pa.Table]:
    from labelmill.datasets.versions.content import version_tables
    from labelmill.datasets.versions.publish import read_run

    return version_tables(*read_run(workspace))


def _random_split(frames: pa.Table, rng: random.Random) -> list[str]:
    order = list(range(frames.num_rows))
    rng.shuffle(order)
    held = set(order[: round(SHARES["val"] * len(order))])
    return ["val" if row in held else "train" for row in range(frames.num_rows)]


def _gate(workspace: Workspace, root: Path, frames: pa.Table, split: list[str]) -> str:
    """What `publish` says to a given split."""
    given = workspace.root / "given.csv"
    with given.open("w", newline="") as file:
        rows = zip(frames["source"].to_pylist(), split, strict=True)
        csv.writer(file).writerows([("source", "split"), *rows])
    try:
        with workspace.lock():
            publish(workspace, DatasetConfig(splits=SHARES, assignments=given), origin(root), None)
    except VersionError as error:
        return error.what
    return "published"


def text(found: dict[str, Any]) -> str:
    """The figures for people."""

    def row(name: str, title: str) -> tuple[str, ...]:
        leaks = found["leaks"][name]
        cells = [_spread(leaks[kind]) for kind in ("crops", "pictures", "hash", "embedding")]
        return (title, *cells, leaks.get("gate", "publishes" if name == "ours" else "–"))

    rows = [
        row("random", f"random, {SEEDS} seeds"),
        row("own", "the data set's own"),
        row("ours", "labelmill's"),
        row("ours_at_0.90", "labelmill's, near_duplicate 0.90"),
    ]
    head = (
        "split",
        f"gate: crop pairs, cosine ≥ {found['threshold']}",
        f"gate: same pictures, hash ≤ {found['bits']} of 256 bits",
        "same pictures, hash of the full picture",
        f"picture pairs, embeddings' cosine ≥ {WHOLE_PICTURE}",
        "publish says",
    )
    shares = ", ".join(f"{name} {share:.1%}" for name, share in found["shares"].items())
    return (
        f"{found['frames']} tools images with {found['crops']} labelled boxes; MobileNetV2 embeddings. "
        f"Pairs in two splits, of {found['pairs']['hash']} pairs of pictures that are alike by hash and "
        f"{found['pairs']['embedding']} by embedding.\n\n" + table(head, rows) + "\n\n"
        f"- Labelmill's split: {shares} of the images, in {found['groups']} groups, the largest with "
        f"{found['largest_group_share']:.1%} of them."
    )


def _spread(values: list[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    return f"{statistics.median(values):.0f} ({min(values)}–{max(values)})"


def main() -> None:
    """Measure, print and write."""
    found = run(data())
    write("splits", "What splits leak", text(found), found)


if __name__ == "__main__":
    main()
