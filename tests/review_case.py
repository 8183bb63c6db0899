"""A line in review: annotated, pushed and pulled in tests."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import pyarrow.parquet as pq
from tests.review_people import admin

from labelmill.annotators.review.server import LabelStudioServer
from labelmill.datasets.annotate import annotate
from labelmill.datasets.review.desk import Desk, at_desk
from labelmill.datasets.review.state import read_state
from labelmill.datasets.workspace import Workspace
from labelmill.line import Line, load_line


@dataclass
class Case:
    """A line, annotated, with everything that a test wants of it."""

    file: Path
    server: LabelStudioServer
    said: list[str] = field(default_factory=list)

    @property
    def line(self) -> Line:
        return load_line(self.file)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.file.parent / "ws")

    def annotate(self) -> dict[str, Any]:
        return annotate(self.line, self.workspace)

    def push(self) -> dict[str, Any]:
        with self.desk() as desk:
            return desk.push()

    def pull(self, *, full: bool = False) -> dict[str, Any]:
        with self.desk() as desk:
            return desk.pull(full=full)

    def desk(self) -> AbstractContextManager[Desk]:
        return at_desk(self.line, self.line.review, self.workspace, say=self.said.append)

    def status(self) -> dict[str, Any]:
        with closing(Desk(self.line, self.line.review, self.workspace)) as desk:
            return desk.status()

    def decisions(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.workspace.table("decisions")).to_pylist()
        return rows

    def standing(self) -> dict[str, str]:
        return {row["region_id"]: row["label"] for row in self.decisions() if not row["superseded"]}

    def truth(self) -> dict[str, str]:
        table = pq.read_table(self.workspace.table("regions"))
        return dict(zip(table["region_id"].to_pylist(), table["phrase"].to_pylist(), strict=True))

    def project(self) -> int:
        return read_state(self.workspace, self.line.name).project

    def tasks(self) -> list[dict[str, Any]]:
        """Every task as the API gives it, by number."""
        access = self.server.access()
        assert access is not None
        with admin(access) as owner:
            query: dict[str, str | int] = {"project": self.project(), "page_size": 1000, "fields": "all"}
            reply = owner.get("/api/tasks", params=query)
            assert reply.status_code == 200, reply.text
            return sorted(reply.json()["tasks"], key=lambda task: int(task["id"]))

    def set(self, **sections: str) -> None:
        """Replace sections of the line file, each a line of YAML."""
        rows = [r for r in self.file.read_text().splitlines() if r.partition(":")[0] not in sections]
        self.file.write_text(
            "\n".join([*rows, *(f"{name}: {value}" for name, value in sections.items())]) + "\n"
        )


class Make(Protocol):
    """Makes annotated cases."""

    def __call__(
        self, images: int = 3, review: str = "{group_similarity: 1.01}", seed: int = 0, name: str = "line"
    ) -> Case: ...


def owner_of(server: LabelStudioServer) -> httpx.Client:
    access = server.access()
    assert access is not None
    return admin(access)
