"""What a watch writes: one JSON line for each thing that happens, whole lines only."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from labelmill.training.checkpoints import writing


class EventLog:
    """Appends events to a JSON Lines file, each flushed before the next frame is taken up.

    Args:
        path: The file; `-` is standard output, None writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.count = 0
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._path is not None and str(self._path) == "-":
            import sys

            self._file = sys.stdout
        elif self._path is not None:
            with writing(self._path.parent):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                _mend(self._path)
                self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None and self._path is not None and str(self._path) != "-":
            self._file.close()

    def write(self, event: str, **values: Any) -> None:
        """Append one event, with the time of day.

        Raises:
            TrainingError: The disk is full.
        """
        self.count += 1
        if self._file is None or self._path is None:
            return
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        with writing(self._path.parent):
            self._file.write(json.dumps({"event": event, "at": stamp, **values}) + "\n")
            self._file.flush()


def _mend(path: Path) -> None:
    """End a last line that a kill cut off, so that the next event does not continue it."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
