"""FiftyOne, the window on dataset versions: the one module that imports it.

The versions are files; whatever stands here can be made again from them (`restore`). Importing this module
imports nothing heavy: `Window` starts the database and imports FiftyOne when it is first used.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.datasets import database
from labelmill.datasets.database import answering, answers, database_uri
from labelmill.datasets.mongod import crashed_before
from labelmill.datasets.versions import mirror
from labelmill.datasets.versions.content import flat_array
from labelmill.datasets.versions.documents import DETECTION_FIELDS, FIELDS, INFO_KEY, detections, documents
from labelmill.datasets.versions.looks import add_maps, before_field, dress, save_comparison
from labelmill.datasets.versions.manifest import Manifest
from labelmill.datasets.versions.pull.choose import Item
from labelmill.datasets.versions.show import Comparison, Shown
from labelmill.datasets.versions.store import Version
from labelmill.datasets.workspace import Workspace
from labelmill.errors import VersionError
from labelmill.files import digest_text
from labelmill.imports import hidden

Progress = Callable[[int, int, str], None]

_UNFINISHED = "labelmill-unfinished-"
_WRITERS = 2
"""Batches on their way to the server at once, while the next one is made."""

_ENVIRONMENT = {
    "FIFTYONE_DO_NOT_TRACK": "1",
    "FIFTYONE_DATABASE_VALIDATION": "false",  # the wheel's mongod is older than FiftyOne likes, and works
    "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "false",
}


class Window:
    """The FiftyOne datasets of one workspace.

    The database is MongoDB: the server that FIFTYONE_DATABASE_URI names, or an embedded one whose data
    lie in the workspace, in `fiftyone/`. Several processes share the embedded one; it ends with the last.

    Args:
        workspace: The workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @property
    def folder(self) -> Path:
        """Where the embedded database lies."""
        return self.workspace.root / "fiftyone"

    @cached_property
    def fo(self) -> Any:
        """The connected fiftyone package.

        Raises:
            ServiceError: No database answers.
        """
        return _connect(self.folder)

    @property
    def _unfinished(self) -> str:
        """How names of this workspace's half-made datasets begin; also in a database that others use."""
        return f"{_UNFINISHED}{digest_text(str(self.workspace.root), hex_digits=12)}-"

    def names(self) -> list[str]:
        """The versions' FiftyOne datasets that exist."""
        with answering():
            return [name for name in self.fo.list_datasets() if not name.startswith(_UNFINISHED)]

    def identity(self, name: str) -> dict[str, Any] | None:
        """What a FiftyOne dataset says it shows: manifest digest and workspace; None where there is none."""
        with answering():
            document = self._database.datasets.find_one({"name": name}, {"info": 1})
        return None if document is None else dict((document.get("info") or {}).get(INFO_KEY, {}))

    @property
    def _database(self) -> Any:
        _ = self.fo  # connected before anything else of FiftyOne is imported
        import fiftyone.core.odm as odm

        return odm.get_db_conn()

    def stage(self, shown: Shown, progress: Progress) -> Any:
        """Write a version as a FiftyOne dataset under a name of no version.

        Args:
            shown: The version.
            progress: Called with samples written and their total.

        Returns:
            The dataset, for `reveal` or `discard`.

        Raises:
            VersionError: The database has a dataset of this name that is not ours to replace.
            ServiceError: The database does not answer.
        """
        manifest = shown.manifest
        with answering():
            self._sweep()
            self._may_take(manifest)
            dataset = self.fo.Dataset(f"{self._unfinished}{manifest.window_name}")
            try:
                _declare(self.fo, dataset)
                dataset.info = {INFO_KEY: {"version": manifest.name, "workspace": str(self.workspace.root)}}
                dataset.save()
                self._insert(dataset, shown.frames, shown.regions, progress)
                dress(self.fo, dataset, shown)
                if shown.since is not None:
                    self.compare(dataset, shown.frames, shown.since)
                if shown.embedded is not None:
                    import fiftyone.brain as brain

                    add_maps(brain, dataset, shown)
            except BaseException:
                self.discard(dataset)
                raise
            return dataset

    def compare(self, dataset: Any, frames: pa.Table, comparison: Comparison) -> None:
        """Write what stood in an older version beside what stands now, and save the view of it.

        Args:
            dataset: Of the newer version.
            frames: Of the newer version, columns `tables.FRAMES`.
            comparison: With the older one.
        """
        from bson import ObjectId
        from bson.raw_bson import RawBSONDocument
        from pymongo import UpdateOne

        field = before_field(comparison)
        with answering():
            _declare_regions(self.fo, dataset, field, f"Labels of {comparison.name}, where they changed")
            place = pc.index_in(comparison.before["frame_id"], value_set=flat_array(frames["frame_id"]))
            before = comparison.before.filter(place.is_valid())  # the rest stood on frames that are gone
            size = frames.select(["width_px", "height_px"]).take(flat_array(place).drop_null())
            made = detections(before, np.stack([size[name].to_numpy() for name in size.schema.names], axis=1))
            by_frame: dict[str, list[RawBSONDocument]] = {name: [] for name in comparison.frames}
            for name, document in zip(before["frame_id"].to_pylist(), made.to_pylist(), strict=True):
                by_frame[name].append(RawBSONDocument(document))
            changes = [
                UpdateOne(
                    {"_id": ObjectId(name)}, {"$set": {field: {"_cls": "Detections", "detections": found}}}
                )
                for name, found in by_frame.items()
            ]
            if changes:
                dataset._sample_collection.bulk_write(changes, ordered=False)
            save_comparison(self.fo, dataset, comparison)

    def export(self, version: Version, splits: list[str]) -> Iterator[Item]:
        """Files of FiftyOne's own dataset format, its pictures under `media/`.

        Args:
            version: The version; FiftyOne must have it.
            splits: Which frames.
        """
        with tempfile.TemporaryDirectory(prefix="labelmill-") as folder, answering():
            view = self.load(version.manifest)
            if set(splits) != set(version.frames["split"].to_pylist()):  # saved views go with the whole only
                view = view.match(self.fo.ViewField("split").is_in(splits))
            view.export(
                export_dir=folder,
                dataset_type=self.fo.types.FiftyOneDataset,
                export_media=False,
                rel_dir=str(self.workspace.root),
                progress=False,
            )
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    yield Item(path.relative_to(folder).as_posix(), data=path.read_bytes())
        inside = pc.is_in(version.frames["split"], value_set=pa.array(splits, pa.string()))
        for digest in sorted(set(version.frames["media_digest"].filter(inside).to_pylist())):
            path = self.workspace.media.path(digest)
            yield Item(path.relative_to(self.workspace.root).as_posix(), media=digest)

    def shows(self, manifest: Manifest, digest: str) -> bool:
        """Whether FiftyOne has this very version."""
        return mirror.shows(self.folder, manifest, digest)

    def reveal(self, dataset: Any, manifest: Manifest, digest: str) -> None:
        """Give a staged dataset the version's name, in place of an earlier one of this workspace.

        Args:
            dataset: What `stage` returned.
            manifest: The version.
            digest: The version's identity.
        """
        with answering():
            dataset.info = {
                INFO_KEY: {
                    "version": manifest.name,
                    "digest": digest,
                    "parent": manifest.parent.digest if manifest.parent else None,
                    "message": manifest.message,
                    "workspace": str(self.workspace.root),
                }
            }
            dataset.persistent = True
            dataset.save()
            self._flush()
            if dataset.name == manifest.window_name:
                return
            if self.identity(manifest.window_name) is not None:
                self.fo.delete_dataset(manifest.window_name)
            dataset.name = manifest.window_name
            self._flush()

    def _flush(self) -> None:
        """Wait until everything written so far is in the server's journal on the disk."""
        from pymongo import WriteConcern

        ours = self._database.get_collection("labelmill", write_concern=WriteConcern(j=True))
        ours.update_one({"_id": "flush"}, {"$inc": {"times": 1}}, upsert=True)

    def discard(self, dataset: Any) -> None:
        """Remove a staged dataset, if the database still answers; else the next `stage` does."""
        with suppress(Exception):
            if answers(self.folder):
                dataset.delete()

    def load(self, manifest: Manifest) -> Any:
        """The FiftyOne dataset of a version.

        Raises:
            VersionError: The database does not have it.
        """
        with answering():
            if self.identity(manifest.window_name) is None:
                raise VersionError(
                    f"FiftyOne has no dataset {manifest.window_name}",
                    do=f"run labelmill restore {manifest.name}",
                )
            return self.fo.load_dataset(manifest.window_name)

    def _insert(self, dataset: Any, frames: pa.Table, regions: pa.Table, progress: Progress) -> None:
        """Insert raw documents: one thread makes the next batch while others wait for the server."""
        from bson.raw_bson import RawBSONDocument

        collection = dataset._sample_collection
        batches = documents(frames, regions, self.workspace.media, dataset._doc.id, datetime.now(UTC))
        done = 0
        waiting: list[tuple[Future[Any], int]] = []
        with ThreadPoolExecutor(_WRITERS) as pool:
            for batch in batches:
                raw = [RawBSONDocument(document) for document in batch]
                waiting.append((pool.submit(collection.insert_many, raw, ordered=False), len(raw)))
                while len(waiting) > _WRITERS:
                    future, size = waiting.pop(0)
                    future.result()
                    done += size
                    progress(done, frames.num_rows, "FiftyOne samples")
            for future, size in waiting:
                future.result()
                done += size
                progress(done, frames.num_rows, "FiftyOne samples")

    def _may_take(self, manifest: Manifest) -> None:
        found = self.identity(manifest.window_name)
        if found is not None and found.get("workspace") != str(self.workspace.root):
            raise VersionError(
                f"the database has another dataset named {manifest.window_name}",
                got=f"one of {found.get('workspace') or 'somebody else'}",
                do="give this line's dataset another name (dataset.name), or use another database "
                "(FIFTYONE_DATABASE_URI)",
            )

    def _sweep(self) -> None:
        """Remove what killed publishers of this workspace left; its lock says that none is at work."""
        ours = {"name": {"$regex": f"^{self._unfinished}"}}
        for document in list(self._database.datasets.find(ours, {"name": 1})):
            self.fo.delete_dataset(document["name"])

    def serve(self, name: str, *, port: int, ready: Callable[[str], None]) -> None:
        """Serve the FiftyOne App on this machine only, in this process, until Ctrl-C or SIGTERM.

        Args:
            name: The FiftyOne dataset that it shows first.
            port: Where it listens, on 127.0.0.1; must be free.
            ready: Called with the address once it answers.
        """
        slug = self.fo.load_dataset(name).slug
        import fiftyone.server.main as server  # sets FIFTYONE_SERVER
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        config.errorlog = None
        server.set_port(port)

        async def run() -> None:
            serving = asyncio.create_task(server.serve(server.app, config))
            while not serving.done() and not _listens(port):
                await asyncio.sleep(0.05)
            if not serving.done():
                ready(f"http://127.0.0.1:{port}/datasets/{slug}")
            await serving

        asyncio.run(run())


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _declare(fo: Any, dataset: Any) -> None:
    """Declare the schema in few writes; FiftyOne's own way costs one and a reload for every field."""
    dataset.media_type = "image"
    dataset._sample_doc_cls.merge_field_schema(
        {name: getattr(fo, kind)(description=text) for name, (kind, text) in FIELDS.items()}
    )
    _declare_regions(fo, dataset, "regions", "Labelled boxes; NG is the label of what matches no class")


def _declare_regions(fo: Any, dataset: Any, field: str, text: str) -> None:
    within = {
        f"{field}.detections.{name}": getattr(fo, kind)(description=what)
        for name, (kind, what) in DETECTION_FIELDS.items()
    }
    for schema in ({field: fo.EmbeddedDocumentField(fo.Detections, description=text)}, within):
        dataset._sample_doc_cls.merge_field_schema(schema)
    dataset._reload()


def _connect(folder: Path) -> Any:
    """Import FiftyOne on the right database, or move it there."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    uri = database_uri(folder)
    with answering():
        import_eta()
        with hidden("databricks.sdk"):  # all of it, to tell it FiftyOne's name; MLflow installs it
            import fiftyone as fo
        import fiftyone.core.odm.database as odm

        logging.getLogger("fiftyone").setLevel(logging.ERROR)  # it advises of its hosted edition and mongod
        if odm._client is None or fo.config.database_uri != uri:
            _disconnect()
            fo.config.database_uri = uri
            odm.establish_db_conn(fo.config)
        if crashed_before(folder):
            _recount(odm.get_db_conn())
        return fo


def import_eta() -> None:
    """Import what FiftyOne is built on, also where Dask or MLflow came before it.

    They import importlib_metadata, which puts itself in the place of Python's own reader of packages'
    metadata and, from 8.0 on, raises KeyError for a field that is absent; eta asks for its author, which its
    metadata (0.17.0) lack, and expects None.
    """
    if "eta" in sys.modules:
        return
    strict = importlib.metadata.metadata

    class Fields:
        def __init__(self, package: str) -> None:
            self._found: Any = strict(package)

        def __getitem__(self, name: str) -> str | None:
            found: str | None = self._found.get(name)
            return found

    setattr(importlib.metadata, "metadata", Fields)  # noqa: B010
    try:
        import eta  # noqa: F401
    finally:
        setattr(importlib.metadata, "metadata", strict)  # noqa: B010


def _recount(database: Any) -> None:
    """Count the collections anew, once after a crash.

    MongoDB keeps the rows through its journal but not their number, which FiftyOne shows as the dataset's
    length (MongoDB manual, "Inaccurate counts after unclean shutdown").
    """
    server = database.client.address
    if database.labelmill.find_one({"_id": "counted", "server": server}):
        return
    for name in database.list_collection_names():
        database.command("validate", name)
    database.labelmill.replace_one({"_id": "counted"}, {"server": server}, upsert=True)


def _disconnect() -> None:
    """Forget the database that FiftyOne is connected to, and every dataset object on it."""
    if "fiftyone" not in sys.modules:
        return
    import fiftyone as fo
    import fiftyone.core.odm.database as odm
    import fiftyone.factory.repo_factory as repositories

    for client in (odm._client, *odm.mongoengine.connection._connections.values()):
        if client is not None:
            client._topology.pop_all_sessions()  # else closing waits for a server that may be gone
    odm._disconnect()
    odm._connection_kwargs.clear()
    repositories._db = None
    repositories.RepositoryFactory.repos.clear()
    fo.Dataset._instances.clear()


database.before_leaving.append(_disconnect)
