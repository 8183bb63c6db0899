"""What a manifest says about its rows, and about who and what made them."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from labelmill import __version__
from labelmill.datasets.versions.manifest import Manifest, Reviewer
from labelmill.datasets.versions.tables import DecidedBy


def counts(frames: pa.Table, regions: pa.Table) -> dict[str, dict[str, int]]:
    """Regions by split and label, and frames by split under "frames"."""
    splits = frames["split"].to_pylist()
    split_of = dict(zip(frames["frame_id"].to_pylist(), splits, strict=True))
    found: dict[str, Counter[str]] = {split: Counter() for split in sorted(set(splits))}
    for name, label in zip(regions["frame_id"].to_pylist(), regions["label"].to_pylist(), strict=True):
        found[split_of[name]][label] += 1
    by_split = {split: dict(sorted(counter.items())) for split, counter in found.items()}
    return {**by_split, "frames": dict(sorted(Counter(splits).items()))}


def reviewers(regions: pa.Table) -> list[Reviewer]:
    """Who decided how many of these regions, and when."""
    theirs = regions.filter(pc.equal(regions["decided_by"], DecidedBy.PERSON.value)).to_pylist()
    ledger = []
    for annotator in sorted({row["annotator"] for row in theirs}):
        rows = [row for row in theirs if row["annotator"] == annotator]
        at = sorted(row["decided_at"] for row in rows)
        ledger.append(
            Reviewer(
                annotator=annotator,
                decisions=len(rows),
                changed=sum(
                    row["label"] != row["machine_label"] or row["machine_xyxy"] is not None for row in rows
                ),
                first_at=at[0].isoformat(),
                last_at=at[-1].isoformat(),
                seconds=round(sum(row["seconds"] or 0.0 for row in rows), 3),
            )
        )
    return ledger


def warnings(manifest: Manifest, frames: pa.Table) -> list[str]:
    """Splits that should have frames and have none: nothing can be validated or tested on them."""
    there = manifest.counts["frames"]
    empty = [
        name for name, share in sorted(manifest.splits["shares"].items()) if share and not there.get(name)
    ]
    if not empty:
        return []
    if manifest.splits.get("given"):
        why = "dataset.assignments puts none there"
    else:
        groups = len(pc.unique(frames["group"]))
        what = "one group of frames" if groups == 1 else f"{groups} groups of frames"
        why = (
            f"this footage gives {what} that must stay together (neighbours in time, near-duplicate crops); "
            "add footage, or shorten dataset.time_block_s"
        )
    named = " and ".join([", ".join(empty[:-1]), empty[-1]] if len(empty) > 1 else empty)
    return [f"no frames in {named}: {why}"]


def code_version() -> str:
    """Labelmill's version and, where it runs from a checkout, its commit."""
    root = Path(__file__).parents[4]
    if not (root / ".git").exists():
        return __version__
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return __version__
    return f"{__version__} ({found.stdout.strip()})" if found.returncode == 0 else __version__
