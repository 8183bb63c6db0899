"""What a workspace remembers about its review project, between pushes and pulls."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from labelmill.datasets.workspace import Workspace
from labelmill.files import digest_text, write_bytes

OWN = "services"
"""Stands for the address of this machine's own server, whose port may change."""


@dataclass(slots=True)
class State:
    """Where the project is, and how far its answers were read.

    Attributes:
        marker: Stands in the project's description, so that it is found again without this file.
        url: The server's address, or `OWN`.
        project: Its number there; 0 before the first push.
        origin: Server, number and time of its making: tells apart two projects that bear one number.
        cursor: Changes up to this time were read (ISO 8601); None before the first pull.
    """

    marker: str
    url: str = ""
    project: int = 0
    origin: str = ""
    cursor: str | None = None


def folder(workspace: Workspace) -> Path:
    """The review's own folder."""
    return workspace.root / "review"


def ledger_path(workspace: Workspace) -> Path:
    """The ledger of everything that people answered."""
    return folder(workspace) / "answers.parquet"


def read_state(workspace: Workspace, line: str) -> State:
    """The state, or a fresh one: a damaged file costs a full pull, and nothing else."""
    try:
        return State(**json.loads((folder(workspace) / "state.json").read_text()))
    except (OSError, ValueError, TypeError):
        return State(marker=f"labelmill:{digest_text(line, str(workspace.root), hex_digits=20)}")


def write_state(workspace: Workspace, state: State) -> None:
    """Write the state, whole or not at all."""
    write_bytes(folder(workspace) / "state.json", json.dumps(asdict(state), indent=1).encode())
