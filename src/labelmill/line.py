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
from labelmill.training.config import TrainingConfig


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
        training: What `labelmill run` trains from each new version; nothing without it.
        runner: What runs the shards of `labelmill run`.
    """

    review: ReviewConfig = ReviewConfig()
    dataset: DatasetConfig = DatasetConfig()
    training: TrainingConfig = TrainingConfig()
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
        document = _parse(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        raise LineFileError(f"{path} cannot be read as YAML", got=str(error), do="mend it") from error
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


def _parse(text: str) -> Any:
    """Read YAML, refusing a key that is given twice: the first would be dropped without a word."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else None
                if name in seen:
                    problem = f"the key {name!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                if name is not None:
                    seen.add(name)
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader=Loader)  # noqa: S506 - a safe loader


_KINDS = {
    "model_type": "expected a mapping",
    "dict_type": "expected a mapping",
    "tuple_type": "expected a list",
    "path_type": "expected a path",
}
"""What pydantic says in Python's words, in YAML's."""


def explain(error: ValidationError, source: str) -> str:
    """Say the first fault of a document in one line, and how many more there are."""
    faults = error.errors(include_url=False)
    # A list that is too short only because its faulty items do not count.
    places = [fault["loc"] for fault in faults]
    faults = [
        fault
        for fault in faults
        if fault["type"] != "too_short" or not any(len(at) > len(fault["loc"]) for at in places)
    ]
    fault = faults[0]
    where = ".".join(str(part) for part in fault["loc"])
    said = _lower(fault["msg"]).removeprefix("value error, ")
    message = ": ".join(filter(None, (source, where, _KINDS.get(fault["type"], said))))
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
