"""What of a line file decides how ambiguous crops are put before people."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from labelmill.config import Config, FilePath


class MediaConfig(Config):
    """How the server reaches the workspace's pictures.

    Attributes:
        document_root: The existing server's LOCAL_FILES_DOCUMENT_ROOT, when it runs elsewhere than under
            `labelmill services`; the workspace must lie below it.
        bucket: A prefix such as `s3://crops/line1` that mirrors the workspace's `media` folder; pictures
            that it lacks are copied there in bulk at each push. The server reads it through its own storage
            connection and signs every address.
    """

    document_root: FilePath | None = None
    bucket: str | None = None

    @field_validator("bucket")
    @classmethod
    def _has_scheme(cls, value: str | None) -> str | None:
        if value is not None and (not value.partition("://")[0].isalnum() or "://" not in value):
            raise PydanticCustomError("bucket", "expected a prefix such as s3://bucket/folder")
        return value.rstrip("/") if value else None


class ReviewConfig(Config):
    """How people settle what the machine is unsure of.

    Attributes:
        kind: The review tool.
        url: The server; without one, the Label Studio of `labelmill services up`.
        token_env: Name of the environment variable that holds the token (legacy or personal access token).
        project: Title of the project; the line's name without one.
        overlap: How many people look at each crop.
        max_queue: At most so many open tasks.
        audit_share: Share of accepted and NG crops that are shown too, chosen at random once and for all.
        group_similarity: Crops of one machine label with at least this cosine are offered as one group;
            1.01 turns grouping off.
        wait: What `labelmill run` does while the queue is open: `suspend` until it is done, or `continue`
            with what is certain.
        poll_s: How often a run that waits looks for answers.
        patience_s: How long a server that does not answer is waited for.
        seed: Of the audit sample.
        media: How the server reaches the pictures.
    """

    kind: Literal["label-studio"] = "label-studio"
    url: str | None = None
    token_env: str = "LABEL_STUDIO_API_KEY"  # noqa: S105 - a variable's name
    project: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    overlap: Annotated[int, Field(ge=1, le=20)] = 1
    max_queue: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    audit_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    group_similarity: Annotated[float, Field(ge=0.5, le=1.01)] = 0.95
    wait: Literal["suspend", "continue"] = "suspend"
    poll_s: Annotated[float, Field(ge=0.1, le=86_400)] = 30.0
    patience_s: Annotated[float, Field(ge=0, le=3600)] = 120.0
    seed: int = 0
    media: MediaConfig = MediaConfig()

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")) or not PurePosixPath(value.split("://", 1)[1]).parts:
            raise PydanticCustomError("url", "expected an address such as http://127.0.0.1:8080")
        return value.rstrip("/")

    def token(self) -> str | None:
        """The token from the environment, or None."""
        return os.environ.get(self.token_env, "").strip() or None
