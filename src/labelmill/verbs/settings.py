"""`labelmill settings`: every key of a line file, from the settings' own descriptions."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from labelmill.verbs.common import AsJson, emit

if TYPE_CHECKING:
    from labelmill.config import Config

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Examples: `labelmill settings` · `labelmill settings matching` · `labelmill settings motion`"
    )(settings)


def settings(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Sections of a line file, or kinds of proposer or encoder; default: all sections.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what can be written in a line file: every key, its default and its meaning."""
    chosen = _chosen(names or [])
    document = {title: list(rows) for title, rows in chosen.items()}

    def text() -> str:
        return "\n\n".join("\n".join([title, *map(_row, rows)]) for title, rows in document.items())

    emit(document, as_json=as_json, text=text)


def _chosen(names: list[str]) -> dict[str, Iterator[dict[str, Any]]]:
    """Title to rows; the title says what the rows belong to."""
    from labelmill.config import nearest
    from labelmill.errors import LineFileError
    from labelmill.line import Line
    from labelmill.makers import ENCODERS, PROPOSERS

    makers = {"proposer": PROPOSERS, "encoder": ENCODERS}
    kinds = {kind: part for part, registry in makers.items() for kind in registry.kinds()}
    sections = [name for name in Line.model_fields if name != "base"]
    found: dict[str, Iterator[dict[str, Any]]] = {}
    for name in names or sections:
        if name in kinds:
            part = kinds[name]
            found[f"{part} {name}"] = _rows(makers[part].config(name), "")
        elif name in makers:
            listing = ", ".join(makers[name].kinds())
            meaning = f"One of {listing}; `labelmill settings KIND` shows its own keys."
            default = Line.model_fields[name].get_default(call_default_factory=True)
            row = {"key": "kind", "default": getattr(default, "kind", None), "meaning": meaning}
            found[name] = iter([row])
        elif name in sections:
            field = Line.model_fields[name]
            config = _config_in(field.annotation)
            found[name] = _rows(config, "") if config else _one(Line, name)
        else:
            raise LineFileError(f"no section or kind {name!r}", do=nearest(name, [*sections, *kinds]))
    return found


def _rows(config: type[Config], prefix: str) -> Iterator[dict[str, Any]]:
    """One row a key; those of parts within parts by their path."""
    for name, field in config.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = _config_in(field.annotation)
        if name == "kind":
            continue
        if field.is_required():
            default: Any = "required"
        else:
            value = field.get_default(call_default_factory=True)
            default = value.model_dump(mode="json") if inner and hasattr(value, "model_dump") else value
        if inner and isinstance(default, dict):
            yield from _rows(inner, f"{key}.")
            continue
        yield {"key": key, "default": _plain(default), "meaning": _meaning(config, name)}
        if inner:
            several = "[]" if get_origin(field.annotation) in (tuple, list) else ""
            yield from _rows(inner, f"{key}{several}.")


def _one(config: type[Config], name: str) -> Iterator[dict[str, Any]]:
    field = config.model_fields[name]
    default = "required" if field.is_required() else _plain(field.get_default(call_default_factory=True))
    yield {"key": name, "default": default, "meaning": _meaning(config, name)}


def _config_in(annotation: Any) -> type[Config] | None:
    """The part that a field holds, be it optional or in a list."""
    from labelmill.config import Config

    if inspect.isclass(annotation) and issubclass(annotation, Config):
        return annotation
    return next((found for part in get_args(annotation) if (found := _config_in(part))), None)


def _meaning(config: type[Config], name: str) -> str:
    """What a class's docstring, or that of a class it extends, says of an attribute."""
    for place in config.__mro__:
        _, _, text = inspect.cleandoc(place.__doc__ or "").partition("Attributes:\n")
        for found in _ATTRIBUTE.finditer(text):
            if found[1] == name:
                return " ".join(found[2].split())
    return ""


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _row(row: dict[str, Any]) -> str:
    value = row["default"]
    words = {"None": "none", "True": "true", "False": "false", "()": "none"}
    default = value if isinstance(value, float) else words.get(str(value), value)
    said = default if default == "required" else f"default {default}"
    return textwrap.fill(
        f"{row['key']} ({said}): {row['meaning']}", 100, initial_indent="  ", subsequent_indent="      "
    )
