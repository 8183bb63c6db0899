"""The base of every part of a line file: strict, frozen, and helpful about typing errors."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known name a misspelt one probably meant.

    Returns:
        `did you mean 'x'? known: a, b, x`, without the question when nothing is near.
    """
    names = sorted(known)
    hits = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    listing = f"known: {', '.join(names)}"
    return f"did you mean {hits[0]!r}? {listing}" if hits else listing


class Config(BaseModel):
    """A part of a line file. Unknown keys are errors that name the nearest known key.

    Attributes:
        not_in_key: Fields that cannot change a result (batch sizes, worker counts), left out of shard keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
    not_in_key: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        accepted = known | set(cls.model_fields)
        for key in data:
            if key not in accepted:
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key {key}, {hint}",
                    {"key": repr(str(key)), "hint": nearest(str(key), known)},
                )
        return data

    def key_fields(self) -> dict[str, Any]:
        """What of this part decides a result, as JSON values, for shard keys.

        Paths are left out: files enter a key by their bytes, through `files`.
        """
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if name not in self.not_in_key and not isinstance(getattr(self, name), Path)
        }


class MakerConfig(Config):
    """Settings of one proposer or encoder, chosen by `kind`."""

    kind: str

    def files(self) -> tuple[Path, ...]:
        """Files and folders whose bytes decide the result: weights, box files."""
        return ()

    def reach(self) -> tuple[int, int]:
        """How many frames before and after a shard a proposer looks at; their boxes are discarded."""
        return 0, 0


def expand(text: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` by environment variables.

    Raises:
        PydanticCustomError: A variable without a default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name) or default
        if found is None:
            raise PydanticCustomError(
                "unset_variable",
                "the environment variable {name} is not set; set it, or write {cure}",
                {"name": name, "cure": f"${{{name}:-some/path}}"},
            )
        return found

    return _VARIABLE.sub(value, text)


def _expand_path(value: Any) -> Any:
    # As text, since pydantic takes no Path where it reads JSON.
    return str(Path(expand(str(value))).expanduser()) if isinstance(value, str | Path) else value


def _absolute(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base") or Path.cwd()
    return path if path.is_absolute() else Path(os.path.normpath(base / path))


FilePath = Annotated[Path, BeforeValidator(_expand_path), AfterValidator(_absolute)]
"""A path in a line file: variables expanded, relative to the line file's folder."""
