"""The line file: everything about one production line, in one YAML document."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from labelmill.annotators.review.config import ReviewConfig
from labelmill.config import Config
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.versions.config import DatasetConfig
from labelmill.errors import LineFileError


class RunnerConfig(Config):
    """What runs the shards of `labelmill run`.

    Attributes:
        kind: Prefect's task runner: threads of this machine (`local`), Dask or Ray.
        workers: Shards in work at once.
        address: Scheduler of an existing Dask or Ray cluster; a local one is started without it.
        retries: How often a failed shard is tried again.
    """

    kind: Literal["local", "dask", "ray"] = "local"
    workers: Annotated[int, Field(ge=1, le=10_000)] = 2
    address: str | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 2


class Line(AnnotationConfig):
    """A whole line file.

    Attributes:
        review: How people settle what is ambiguous.
        dataset: How labelled frames become dataset versions.
        runner: What runs the shards of `labelmill run`.
    """

    review: ReviewConfig = ReviewConfig()
    dataset: DatasetConfig = DatasetConfig()
    runner: RunnerConfig = RunnerConfig()


def load_line(path: Path) -> Line:
    """Read and validate a line file.

    Raises:
        LineFileError: One line that names the key, what it holds, and what it should.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise LineFileError(f"no line file {path}", do=_neighbours(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise LineFileError(f"cannot read {path}", got=str(error), expected="a YAML text file") from error
    try:
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe
    except yaml.YAMLError as error:
        raise LineFileError(f"{path} is no YAML", got=str(error), do="mend it") from error
    if not isinstance(document, dict):
        raise LineFileError(
            f"{path} is no line file",
            got=type(document).__name__,
            expected="a mapping with `name`, `sources` …",
        )
    try:
        return Line.model_validate(document, context={"base": path.resolve().parent})
    except ValidationError as error:
        raise LineFileError(explain(error, path.name)) from None


def explain(error: ValidationError, source: str) -> str:
    """Say the first fault of a document in one line, and how many more there are."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"]) or "the document"
    message = f"{source}: {where}: {_lower(fault['msg'])}"
    if fault["type"] not in {"missing", "unknown_key", "unknown_kind"} and not isinstance(
        fault["input"], dict
    ):
        message += f", got {fault['input']!r}"
    if fault["type"] == "literal_error":
        known = [word.strip("' ") for word in fault["ctx"]["expected"].replace(" or ", ", ").split(",")]
        near = difflib.get_close_matches(str(fault["input"]), known, n=1, cutoff=0.5)
        message += f"; did you mean {near[0]!r}?" if near else ""
    if len(faults) > 1:
        message += f" (and {len(faults) - 1} more)"
    return message


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _neighbours(path: Path) -> str:
    folder = path.parent
    found: list[Any] = sorted(p.name for p in folder.glob("*.y*ml")) if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, found, n=1, cutoff=0.5)
    return f"did you mean {folder / near[0]}?" if near else "give the path of a YAML line file"
