"""An embedded MongoDB server for one folder, shared by every process that asks, gone when the last one ends.

FiftyOne's own embedded server is found by a process search that ignores which folder it serves, so that
a second workspace would silently write into the first one's database. This one is found by its folder.

Four files beside the data keep order, by locks that the operating system releases when a process dies:

clients         every client holds it shared; the keeper takes it exclusively to know that nobody is left
starting        held while one client looks for a server or starts one
keeper          held by the keeper, the process that owns mongod
address.json    process id and port, written once mongod answers, removed before it stops

Run as a module, it is the keeper: `python -m labelmill.datasets.mongod FOLDER MONGOD`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from labelmill.errors import ServiceError
from labelmill.files import disk_errors, write_bytes

_POLL_S = 0.1
_START_S = 60.0
_STOP_S = 30.0


def find_mongod() -> Path:
    """The mongod of FiftyOne's wheel, found without importing FiftyOne.

    Raises:
        ServiceError: It is not there, as on platforms without a wheel.
    """
    spec = find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        mongod = Path(folder) / "db" / "bin" / "mongod"
        if os.access(mongod, os.X_OK):
            return mongod
    raise ServiceError(
        "FiftyOne's mongod is not installed",
        expected="the package fiftyone-db",
        do="install it, or set FIFTYONE_DATABASE_URI to a MongoDB server",
    )


class Client:
    """This process's share in the server of a folder.

    Args:
        folder: Where the database lies; made when absent.
        mongod: The server's executable; default FiftyOne's.
    """

    def __init__(self, folder: Path, mongod: Path | None = None) -> None:
        self.folder = folder
        self._mongod = mongod
        self._share: TextIOWrapper | None = None

    def connect(self) -> str:
        """Find the folder's server or start it.

        Returns:
            Its URI, valid until `close` or the end of this process (or until the server is killed: then
            call again).

        Raises:
            ServiceError: The server does not start.
            WorkspaceError: The folder cannot be written.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._share is None:
                share = (self.folder / "clients").open("a")
                fcntl.flock(share, fcntl.LOCK_SH)
                self._share = share
            with (self.folder / "starting").open("a") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                port = running_port(self.folder) or self._start()
        return f"mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=3000&connectTimeoutMS=3000"

    def close(self) -> None:
        """Give up this process's share; the server stops when nobody else has one."""
        if self._share is not None:
            self._share.close()
            self._share = None

    def _start(self) -> int:
        mongod = self._mongod or find_mongod()
        (self.folder / "address.json").unlink(missing_ok=True)  # of a killed keeper
        with (self.folder / "keeper.log").open("w") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self.folder), str(mongod)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal ends the client, not the database
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if port := running_port(self.folder):
                return port
            if keeper.poll() is not None:
                break
            time.sleep(0.02)
        else:
            keeper.terminate()
        raise ServiceError(
            "the embedded database did not start",
            got=_last_complaint(self.folder),
            do=f"read {self.folder / 'mongod.log'}; versions are files and are safe: if the database is "
            f"damaged, remove {self.folder} and run labelmill restore, or set FIFTYONE_DATABASE_URI",
        )


def running_port(folder: Path) -> int | None:
    """Port of the folder's server, if one answers."""
    address = _address(folder)
    if not address or not _keeper_alive(folder) or not _answers(address["port"]):
        return None
    return int(address["port"])


def running_pid(folder: Path) -> int | None:
    """Process id of the folder's mongod, if it has one."""
    return _address(folder).get("pid")


def crashed_before(folder: Path) -> bool:
    """Whether the folder's server began by recovering from a kill or a power cut."""
    return bool(_address(folder).get("crashed_before"))


def _address(folder: Path) -> dict[str, Any]:
    try:
        address = json.loads((folder / "address.json").read_text())
    except (OSError, ValueError):
        return {}
    return address if isinstance(address, dict) else {}


def _keeper_alive(folder: Path) -> bool:
    with (folder / "keeper").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _last_complaint(folder: Path) -> str:
    """The last error that mongod or its keeper wrote, for people."""
    for name in ("mongod.log", "keeper.log"):
        with suppress(OSError):
            for line in reversed((folder / name).read_text(errors="replace").splitlines()[-200:]):
                with suppress(ValueError, AttributeError):
                    entry = json.loads(line)
                    if entry.get("s") in ("E", "F"):
                        return f"{entry['msg']} {entry.get('attr', {}).get('error', '')}".strip()[:300]
                if name == "keeper.log" and line.strip():
                    return line.strip()[:300]
    return "no message"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _keep(folder: Path, mongod: Path) -> int:
    """Own a mongod until it dies or nobody is left to serve."""
    keeper = (folder / "keeper").open("a")
    if not _locked(keeper):
        _say("another keeper serves this folder, and its database does not answer")
        return 1
    data, log, port = folder / "data", folder / "mongod.log", _free_port()
    data.mkdir(exist_ok=True)
    crashed = _stop_orphan(data)
    log.unlink(missing_ok=True)
    command = [str(mongod), "--dbpath", str(data), "--logpath", str(log), "--port", str(port)]
    command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "1"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    address = folder / "address.json"
    deadline = time.monotonic() + _START_S
    while not _answers(port):
        if server.poll() is not None or time.monotonic() > deadline:
            _say(f"mongod ended with status {server.poll()}")
            server.kill()
            return 1
        time.sleep(0.02)
    write_bytes(address, json.dumps({"port": port, "pid": server.pid, "crashed_before": crashed}).encode())
    clients = (folder / "clients").open("a")
    while server.poll() is None:
        try:
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S)
            continue
        break  # nobody is left; whoever comes now waits for our lock, finds no address and starts anew
    address.unlink(missing_ok=True)
    server.terminate()
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    keeper.close()  # before our lock on `clients` goes, so that the next client's keeper finds it free
    return 0


def _locked(keeper: TextIOWrapper) -> bool:
    """Take the keeper's lock, waiting for a keeper whose mongod was killed a moment ago to notice and go."""
    deadline = time.monotonic() + _STOP_S
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.02)
    return False


def _stop_orphan(data: Path) -> bool:
    """End a mongod whose keeper was killed: it holds the data folder.

    Returns:
        Whether the last server ended without closing its files.
    """
    try:
        pid = int((data / "mongod.lock").read_text())  # emptied by an orderly end
    except (OSError, ValueError):
        return False
    with suppress(OSError):
        if str(data) in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + _STOP_S
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
    return bool((data / "mongod.lock").read_text())


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(_keep(Path(sys.argv[1]), Path(sys.argv[2])))
