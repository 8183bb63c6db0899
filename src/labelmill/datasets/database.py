"""Which MongoDB this process uses, and what is said when it does not answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labelmill.datasets.mongod import Client, running_port
from labelmill.errors import ServiceError

_EMBEDDED_URI = "LABELMILL_EMBEDDED_URI"
_TRIES = 10

_client: Client | None = None

before_leaving: list[Callable[[], None]] = []
"""Called before this process turns from one embedded database to another."""


def database_uri(folder: Path) -> str:
    """The database to use: FIFTYONE_DATABASE_URI's, or the embedded one of a folder, started if need be.

    Raises:
        ServiceError: The embedded one does not start or answer.
    """
    global _client

    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    if uri is not None and uri != os.environ.get(_EMBEDDED_URI):
        return uri
    if _client is not None and _client.folder != folder:  # the one in use, or inherited from a parent process
        for leave in before_leaving:
            leave()
        _client.close()
        _client = None
    _client = _client or Client(folder)
    for _ in range(_TRIES):
        uri = _client.connect()
        if _pings(uri):
            os.environ["FIFTYONE_DATABASE_URI"] = os.environ[_EMBEDDED_URI] = uri
            return uri
        time.sleep(0.2)  # a server that was just killed still accepts for a moment
    raise ServiceError(
        "the embedded database does not answer",
        got=f"nothing from {_client.folder}",
        do="see its mongod.log, or set FIFTYONE_DATABASE_URI to a MongoDB server",
    )


def answers(folder: Path) -> bool:
    """Whether the database in use answers now; starts nothing."""
    if _client is not None and _client.folder == folder and running_port(folder) is None:
        return False
    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    return uri is not None and _pings(uri)


def _pings(uri: str) -> bool:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    client: Any = MongoClient(uri)
    try:
        client.admin.command("ping")
    except PyMongoError:
        return False
    finally:
        client.close()
    return True


@contextmanager
def open_database(folder: Path) -> Iterator[Any]:
    """FiftyOne's database without FiftyOne, whose import takes seconds.

    Args:
        folder: Where the embedded database lies.
    """
    from pymongo import MongoClient

    with answering():
        client: Any = MongoClient(database_uri(folder))
        try:
            yield client[os.environ.get("FIFTYONE_DATABASE_NAME", "fiftyone")]
        finally:
            client.close()


@contextmanager
def answering() -> Iterator[None]:
    """Turn a database that is gone into one clear line.

    Raises:
        ServiceError: The database does not answer, or refuses.
    """
    try:
        yield
    except Exception as error:
        if not (
            isinstance(error, ConnectionError)
            or type(error).__module__.startswith(("pymongo", "mongoengine"))
        ):
            raise
        raise ServiceError(
            "the FiftyOne database does not answer",
            got=str(error).split(",")[0][:200],
            expected="a running MongoDB server",
            do="run the command again; published versions are files and are not touched by this",
        ) from error
