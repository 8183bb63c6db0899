"""The manifest: what a version is, in one JSON document whose digest is the version's identity."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from labelmill.errors import VersionError
from labelmill.files import digest_bytes

FORMAT = 1
"""Raised when a manifest's meaning changes."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rows(_Part):
    """One table of the version.

    Attributes:
        file: Its name in the version's folder.
        rows: How many.
        rows_digest: SHA-256 over the values, see `tables.rows_digest`.
        file_digest: SHA-256 of the file's bytes.
    """

    file: str
    rows: int
    rows_digest: str
    file_digest: str


class Parent(_Part):
    """The version before.

    Attributes:
        number: Its number.
        digest: SHA-256 of its manifest.
    """

    number: int
    digest: str


class Source(_Part):
    """One piece of footage."""

    source: str
    digest: str
    frames: int


class Reviewer(_Part):
    """One line of the review ledger: who decided how many labels that stand in this version, and when."""

    annotator: str
    decisions: int
    changed: int
    first_at: str
    last_at: str
    seconds: float


class Lineage(_Part):
    """Where the rows come from.

    Attributes:
        line: The line's name.
        line_file: File in the version's folder that keeps the line file, if there was one.
        line_digest: SHA-256 of the line file.
        run: What the annotating run recorded: thresholds, model digests, shard keys.
        embeddings: Names of the encode shards, in the workspace, that hold the regions' embeddings.
        sources: The footage.
        reviewers: The review ledger.
        code: labelmill's version and, in a checkout, its commit.
        flow_run: Prefect's id of the run that published, if one did.
    """

    line: str
    line_file: str | None
    line_digest: str
    run: dict[str, Any]
    embeddings: list[str]
    sources: list[Source]
    reviewers: list[Reviewer]
    code: str
    flow_run: str | None


class Manifest(_Part):
    """A version.

    Attributes:
        format: Of this document.
        dataset: Name of the dataset.
        number: N in `<dataset>@v<N>`, from 1.
        content_digest: SHA-256 over the rows and the classes: two versions with the same are the same.
        created_at: UTC, ISO 8601.
        message: What the publisher said.
        parent: The version before, by its manifest's digest.
        classes: The label set without NG, sorted.
        splits: Settings of the splits: shares and guards.
        counts: Regions by split and label, and frames by split under "frames".
        frames: The frames' table.
        regions: The regions' table.
        lineage: Where it comes from.
    """

    format: int
    dataset: str
    number: int
    content_digest: str
    created_at: str
    message: str
    parent: Parent | None
    classes: list[str]
    splits: dict[str, Any]
    counts: dict[str, dict[str, int]]
    frames: Rows
    regions: Rows
    lineage: Lineage

    @property
    def name(self) -> str:
        """`<dataset>@v<N>`."""
        return f"{self.dataset}@v{self.number}"

    @property
    def window_name(self) -> str:
        """Name of its FiftyOne dataset."""
        return f"{self.dataset}-v{self.number}"

    def to_bytes(self) -> bytes:
        """The one way to write it."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        return f"{text}\n".encode()

    @property
    def digest(self) -> str:
        """The version's identity."""
        return digest_bytes(self.to_bytes())


def parse(data: bytes, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        VersionError: It is no manifest, or of another format.
    """
    try:
        fields = json.loads(data)
        if isinstance(fields, dict) and fields.get("format") != FORMAT:
            raise VersionError(
                f"{where} has another format",
                got=fields.get("format"),
                expected=str(FORMAT),
                do="use the labelmill that made it",
            )
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise VersionError(f"{where} is damaged", got=f"{place}: {first['msg']}", do="restore it") from error
    except ValueError as error:
        raise VersionError(f"{where} is damaged", got=str(error), do="restore it from a copy") from error
