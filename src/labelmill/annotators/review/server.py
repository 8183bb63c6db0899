"""A Label Studio of our own on this machine: made on first use, loopback only, with generated secrets.

<services>/label-studio/
  access.json     address, login, token and secret key; readable by its owner only
  process.json    the running server's process
  log.txt         what it prints
  data/           its database
  files/<key>     links to the media folders of workspaces: the only files that it serves
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from labelmill import environments
from labelmill.errors import ReviewError, ServiceError
from labelmill.files import TEMPORARY_PREFIX, digest_text

FOLDER_VARIABLE = "LABELMILL_SERVICES"
"""Environment variable that names another folder for the servers of this machine."""

LOGIN = "labelmill@localhost"
FIRST_PORT = 8080
_PORT_S = 10.0
START_PATIENCE_S = 600.0  # the first start takes about a minute on an idle machine, several on a busy one
_STOP_PATIENCE_S = 20.0
_SERVE = "/data/local-files/?d="


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the server.

    Attributes:
        url: Its address.
        login: E-mail address of its owner.
        password: Of the owner.
        token: Legacy token of the owner.
        secret_key: With which it signs its sessions.
    """

    url: str
    login: str
    password: str
    token: str
    secret_key: str


class LabelStudioServer:
    """The Label Studio below the user's data folder.

    Args:
        root: Its folder; `label-studio` in the folder of services without one.
    """

    def __init__(self, root: Path | None = None) -> None:
        chosen = os.environ.get(FOLDER_VARIABLE)
        services = Path(chosen).expanduser().absolute() if chosen else environments.root().parent / "services"
        self.root = root or services / "label-studio"

    @property
    def files(self) -> Path:
        """Its document root: links to media folders, and nothing else."""
        return self.root / "files"

    def access(self) -> Access | None:
        """How to reach it, or None before its first start."""
        try:
            return Access(**json.loads((self.root / "access.json").read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ServiceError(
                f"{self.root / 'access.json'} is damaged",
                do="restore it; without it the server's login is lost",
            ) from error

    def up(self, *, port: int | None = None, say: Callable[[str], None] = lambda _: None) -> Access:
        """Start it, unless it runs.

        Args:
            port: On 127.0.0.1; the one of last time, or the first free one from 8080, without it.
            say: Called with a line for people before long work.

        Raises:
            ServiceError: It cannot be installed, or does not answer in time.
        """
        from filelock import FileLock

        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.root / "starting"):
            access = self.access()
            if access and self.running() and answers(access.url):
                return access
            self._stop()
            environment = environments.ensure_environment("label-studio", say)
            environments.root().mkdir(parents=True, exist_ok=True)
            # A port is seen to be free long before the server takes it: one start at a time on this machine.
            with FileLock(environments.root() / "ports.lock"):
                access = self._settle(access, port)
                say(f"starting Label Studio at {access.url} (the first start takes about a minute)")
                self._start(environment.script("label-studio"), access)
            return access

    def _settle(self, access: Access | None, port: int | None) -> Access:
        """Choose the port, and make the secrets on the first start."""
        old = int(access.url.rpartition(":")[2]) if access else None
        # A server that was killed lets go of its port a moment later, and its clients ask for it there.
        chosen = port or (old if old and _free(old, patience_s=_PORT_S) else None) or _first_free()
        if not _free(chosen):
            raise ServiceError(f"port {chosen} of 127.0.0.1 is taken", do="name another with --port")
        url = f"http://127.0.0.1:{chosen}"
        if access and access.url == url:
            return access
        if access:
            access = Access(**{**asdict(access), "url": url})
        else:
            access = Access(
                url,
                LOGIN,
                secrets.token_urlsafe(16),
                secrets.token_hex(20),
                secrets.token_hex(32),
            )
        _write_private(self.root / "access.json", json.dumps(asdict(access), indent=1))
        return access

    def _start(self, program: Path, access: Access) -> None:
        for folder in (self.files, self.root / "data"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        port = access.url.rpartition(":")[2]
        command = [
            str(program), "start", "--internal-host", "127.0.0.1", "--port", port,
            "--no-browser", "--enable-legacy-api-token",
        ]  # fmt: skip
        with (self.root / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self._environment(access),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
            )
        # It outlives us; while we live, its end must be noticed, or it would stay as a zombie.
        threading.Thread(target=process.wait, name="label-studio-end", daemon=True).start()
        record = {"pid": process.pid, "started": _started(process.pid)}
        _write_private(self.root / "process.json", json.dumps(record))
        deadline = time.monotonic() + START_PATIENCE_S
        while not answers(access.url):
            if not self.running():
                raise ServiceError(
                    "Label Studio stopped while it started",
                    got=_last_line(self.root / "log.txt"),
                    do=f"read {self.root / 'log.txt'}",
                )
            if time.monotonic() > deadline:
                self._stop()
                raise ServiceError(
                    f"Label Studio does not answer at {access.url}",
                    expected=f"an answer within {START_PATIENCE_S:.0f} s",
                    do=f"read {self.root / 'log.txt'}",
                )
            time.sleep(0.25)

    def _environment(self, access: Access) -> dict[str, str]:
        inherited = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE")
        return {
            **{name: os.environ[name] for name in inherited if name in os.environ},
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.root / "data"),
            "LABEL_STUDIO_USERNAME": access.login,
            "LABEL_STUDIO_PASSWORD": access.password,
            "LABEL_STUDIO_USER_TOKEN": access.token,
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.files),
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "SECRET_KEY": access.secret_key,
            "SSRF_PROTECTION_ENABLED": "false",  # its webhooks must reach our receiver on 127.0.0.1
            "CORS_ALLOW_ALL_ORIGINS": "false",
        }

    def running(self) -> bool:
        """Whether its process lives."""
        return self._process() is not None

    def stopped(self) -> bool:
        """Whether it was stopped and not started again; one that was killed may come back."""
        return not (self.root / "process.json").exists()

    def _process(self) -> int | None:
        try:
            record = json.loads((self.root / "process.json").read_text())
            pid, started = int(record["pid"]), record["started"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # A number is used again after a reboot; the start time tells whose it is.
        return pid if started and _started(pid) == started else None

    def down(self) -> bool:
        """Stop it.

        Returns:
            Whether it ran.
        """
        ran = self.running()
        self._stop()
        return ran

    def _stop(self) -> None:
        pid = self._process()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_PATIENCE_S
        while self._process() is not None:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.1)
        (self.root / "process.json").unlink(missing_ok=True)

    def link(self, media: Path) -> tuple[str, str]:
        """Let the server see a workspace's media folder.

        Args:
            media: The folder.

        Returns:
            The path that a project's storage is given, and the prefix of the addresses of files below it.
        """
        media.mkdir(parents=True, exist_ok=True)
        key = digest_text(str(media), hex_digits=16)
        link = self.files / key
        if not link.is_symlink() or link.readlink() != media:
            self.files.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = link.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}")
            temporary.symlink_to(media)
            temporary.replace(link)
        return str(link), f"{_SERVE}{key}/"


def served_below(document_root: Path, media: Path) -> tuple[str, str]:
    """How an existing server, which serves files below its document root, sees a media folder.

    Returns:
        The path that a project's storage is given, and the prefix of the addresses of files below it.

    Raises:
        ReviewError: The folder is not below the document root.
    """
    from urllib.parse import quote

    if document_root not in media.parents:
        raise ReviewError(
            f"the media folder {media} is not below the server's document root",
            expected=f"a workspace below {document_root}",
            do="move the workspace (--workspace), or mend review.media.document_root",
        )
    return str(media), f"{_SERVE}{quote(media.relative_to(document_root).as_posix())}/"


def answers(url: str, timeout_s: float = 5.0) -> bool:
    """Whether a Label Studio answers there."""
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"{url}/health", timeout=timeout_s) as reply:  # noqa: S310 - our own http address
            return b"UP" in reply.read(100)
    except (URLError, OSError, ValueError):
        return False


def _free(port: int, patience_s: float = 0.0) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                if time.monotonic() >= deadline:
                    return False
            else:
                return True
        time.sleep(0.1)


def _first_free() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + 200):
        if _free(port):
            return port
    raise ServiceError(f"no free port from {FIRST_PORT} to {FIRST_PORT + 199}", do="name one with --port")


def _started(pid: int) -> str:
    """When a process was started, as the system says it; empty when there is none."""
    done = subprocess.run(
        ["ps", "-o", "lstart=,stat=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
    )
    words = done.stdout.split()
    return " ".join(words[:-1]) if words and not words[-1].startswith("Z") else ""


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no log"
    return lines[-1][:300] if lines else "an empty log"
