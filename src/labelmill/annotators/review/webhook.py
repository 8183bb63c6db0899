"""A small receiver of Label Studio's webhooks: who knows the secret may wake the pull, and nothing more."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from labelmill.errors import ReviewError

HEADER = "X-Labelmill-Secret"
_MAX_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver at work.

    Attributes:
        url: Where it listens.
        header: What a call must carry.
        woken: Set by a call that carries it.
    """

    url: str
    header: dict[str, str]
    woken: threading.Event


@contextmanager
def receive(host: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
    """Listen for webhooks, with a secret made for this time only.

    Args:
        host: Address to listen at; anything but loopback is seen by others.
        port: 0 takes a free one.

    Raises:
        ReviewError: The port is taken.
    """
    secret = secrets.token_hex(24)
    woken = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # whoever sends half a request is not waited for

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
                return self._answer(413)
            self.rfile.read(int(length))
            if not hmac.compare_digest(self.headers.get(HEADER, "").encode(), secret.encode()):
                return self._answer(403)
            woken.set()
            return self._answer(204)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - likewise
            del format, arguments

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise ReviewError(
            f"cannot listen at {host}:{port}", got=error.strerror, do="name another port with --listen"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="review-webhook", daemon=True)
    thread.start()
    try:
        yield Receiver(f"http://{host}:{server.server_port}/labelmill", {HEADER: secret}, woken)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
