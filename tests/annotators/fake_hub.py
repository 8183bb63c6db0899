"""As much of the Hugging Face hub as a download asks for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "vocab.txt": b"hand\n",
    "model.safetensors": b"weights " * 4000,
    "pytorch_model.bin": b"a pickle",
    "tf_model.h5": b"other",
    "onnx/model.onnx": b"other",
    "README.md": b"words",
}
LARGE = ("model.safetensors", "pytorch_model.bin", "groundingdino_swint_ogc.pth")
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `acme/tiny`, and knows no other model."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.spoilt: set[str] = set()
        self.cut: set[str] = set()
        self.served: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        headers: dict[str, str] = {"X-Repo-Commit": REVISION}
        body, status = b"", 200
        if path.startswith("/api/models/acme/tiny"):
            body = json.dumps(self.card()).encode()
            headers["Content-Type"] = "application/json"
        elif path.startswith(f"/acme/tiny/resolve/{REVISION}/"):
            name = path.rpartition("/")[2]
            body = self.server.files[name]
            headers["ETag"] = f'"{sha256(body).hexdigest()}"'
            if name in self.server.spoilt:
                body = body[:-1] + b"?"
            if with_body:
                self.server.served.append(name)
            if with_body and name in self.server.cut:  # breaks off, and so does every later answer
                self.close_connection = True
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                return
        else:
            status = 404
            headers["X-Error-Code"] = "RepoNotFound"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def card(self) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for name, data in self.server.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "0"}
            if name in LARGE:
                entry["lfs"] = {"sha256": sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}
            siblings.append(entry)
        return {"id": "acme/tiny", "sha": REVISION, "cardData": {"license": "mit"}, "siblings": siblings}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve on a free port of this machine."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
