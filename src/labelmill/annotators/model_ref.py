"""How a line file names a model: a hub id, or a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from labelmill.annotators.model_store import is_hub_id
from labelmill.config import expand


def _place(value: str, info: ValidationInfo) -> str:
    text = expand(value.strip())
    base = Path((info.context or {}).get("base") or Path.cwd())
    path = Path(os.path.normpath(base / Path(text).expanduser()))
    return text if is_hub_id(text) and not path.exists() else str(path)


ModelRef = Annotated[str, AfterValidator(_place)]
"""A hub id such as `IDEA-Research/grounding-dino-tiny`, or a path, relative to the line file's folder.

As it is no `Path`, leave it out of shard keys by name (`not_in_key`): the bytes of `files()` stand for it.
"""
