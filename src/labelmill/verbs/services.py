"""`labelmill services up`, `down` and `status`: servers on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Protocol

import typer

from labelmill.errors import ServiceError
from labelmill.verbs.common import AsJson, emit, note

Say = Callable[[str], None]


class Service(Protocol):
    """A server that this machine can run. Each answer has `running` (bool) and `url` (str or None)."""

    def up(self, say: Say) -> dict[str, Any]: ...  # noqa: D102 - the class says it

    def down(self) -> bool: ...  # noqa: D102

    def status(self) -> dict[str, Any]: ...  # noqa: D102


class _LabelStudio:
    """Label Studio, where people review."""

    def up(self, say: Say) -> dict[str, Any]:
        from labelmill.annotators.review.server import LabelStudioServer

        LabelStudioServer().up(say=say)
        return self.status()

    def down(self) -> bool:
        from labelmill.annotators.review.server import LabelStudioServer

        return LabelStudioServer().down()

    def status(self) -> dict[str, Any]:
        from labelmill.annotators.review.server import LabelStudioServer, answers

        server = LabelStudioServer()
        access = server.access()
        running = access is not None and server.running() and answers(access.url)
        return {
            "running": running,
            "url": access.url if access else None,
            "login": access.login if access else None,
            "password_in": str(server.root / "access.json") if access else None,
        }


SERVICES: dict[str, Callable[[], Service]] = {"label-studio": _LabelStudio}
"""Name to maker, in the order in which they start."""

Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Which servers; default: all.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    known = ", ".join(SERVICES)
    group = typer.Typer(
        help=f"Servers on this machine: {known}.", no_args_is_help=True, rich_markup_mode="markdown"
    )
    group.command(epilog="Example: `labelmill services up label-studio`")(up)
    group.command(epilog="Example: `labelmill services down`")(down)
    group.command(epilog="Example: `labelmill services status --json`")(status)
    app.add_typer(group, name="services")


def up(names: Names = None, as_json: AsJson = False) -> None:
    """Start servers, unless they run; installs what is missing on first use, about 1 GB."""
    report = {name: service.up(note) for name, service in _chosen(names)}
    emit(report, as_json=as_json, text=lambda: _text(report))


def down(names: Names = None, as_json: AsJson = False) -> None:
    """Stop servers; what they store is kept."""
    report = {name: {"stopped": service.down()} for name, service in _chosen(names)}
    emit(
        report,
        as_json=as_json,
        text=lambda: "\n".join(
            f"{name}: {'stopped' if row['stopped'] else 'did not run'}" for name, row in report.items()
        ),
    )


def status(names: Names = None, as_json: AsJson = False) -> None:
    """Say which servers run, and where."""
    report = {name: service.status() for name, service in _chosen(names)}
    emit(report, as_json=as_json, text=lambda: _text(report))


def _chosen(names: list[str] | None) -> list[tuple[str, Service]]:
    for name in names or ():
        if name not in SERVICES:
            raise ServiceError(f"unknown service {name!r}", expected=f"one of {', '.join(SERVICES)}")
    return [(name, make()) for name, make in SERVICES.items() if not names or name in names]


def _text(report: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, row in report.items():
        login = f", login {row['login']}, password in {row['password_in']}" if row.get("login") else ""
        rows.append(f"{name}: {row['url'] + login if row['running'] else 'not running'}")
    return "\n".join(rows)
