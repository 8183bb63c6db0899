"""Figures of a benchmark as `docs/results/<name>.md` and `.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def write(name: str, title: str, text: str, figures: dict[str, Any]) -> None:
    """Write both files, and print the first."""
    head = f"# {title}\n\nCommand: `python -m benchmarks.{name}`, {datetime.now(UTC):%Y-%m-%d}.\n"
    body = f"{head}\nMachine: {describe()}.\n\n{text}\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(body)
    document = {"machine": describe(), **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(body)
