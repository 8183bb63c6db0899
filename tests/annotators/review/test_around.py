"""Settings, the server's files, the webhook receiver, and a server that misbehaves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from pydantic import ValidationError

from labelmill import environments
from labelmill.annotators.review import server as server_module
from labelmill.annotators.review.client import GoneError, InterruptedRequestError, Studio
from labelmill.annotators.review.config import ReviewConfig
from labelmill.annotators.review.server import Access, LabelStudioServer, answers, served_below
from labelmill.annotators.review.webhook import HEADER, receive
from labelmill.errors import ReviewError, ServiceError


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "localhost:8080"}, "expected an address"),
        ({"url": "ftp://x"}, "expected an address"),
        ({"media": {"bucket": "bucket"}}, "expected a prefix"),
        ({"overlap": 0}, "greater than or equal to 1"),
        ({"kind": "paper"}, "label-studio"),
        ({"overlaps": 2}, "did you mean 'overlap'"),
        ({"audit_share": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ReviewConfig.model_validate(settings)


def test_addresses_lose_their_slash_and_tokens_their_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ReviewConfig.model_validate({"url": "http://x/y/", "media": {"bucket": "s3://b/c/"}})
    assert (config.url, config.media.bucket) == ("http://x/y", "s3://b/c")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", " abc\n")
    assert config.token() == "abc"
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "")
    assert config.token() is None


def test_the_server_sees_a_link_to_the_media_and_nothing_else(tmp_path: Path) -> None:
    server = LabelStudioServer(tmp_path / "ls")
    media = tmp_path / "ws" / "media"
    path, prefix = server.link(media)
    assert Path(path).resolve() == media
    assert prefix == f"/data/local-files/?d={Path(path).name}/"
    assert server.link(media) == (path, prefix)
    assert [p.name for p in server.files.iterdir()] == [Path(path).name]
    assert server.files.stat().st_mode & 0o077 == 0


def test_an_existing_server_sees_what_lies_below_its_root(tmp_path: Path) -> None:
    assert served_below(tmp_path, tmp_path / "a b" / "media") == (
        str(tmp_path / "a b" / "media"),
        "/data/local-files/?d=a%20b/media/",
    )
    for outside in (tmp_path, tmp_path.parent, tmp_path.with_name(f"{tmp_path.name}-private") / "media"):
        with pytest.raises(ReviewError, match="not below the server's document root"):
            served_below(tmp_path, outside)


def test_before_its_first_start_nothing_runs(tmp_path: Path) -> None:
    server = LabelStudioServer(tmp_path / "ls")
    assert (server.access(), server.running(), server.down()) == (None, False, False)
    assert not answers("http://127.0.0.1:9", timeout_s=1)


def test_a_process_number_of_before_a_reboot_is_not_ours(tmp_path: Path) -> None:
    server = LabelStudioServer(tmp_path)
    (tmp_path / "process.json").write_text(json.dumps({"pid": 1, "started": "Thu Jan 1 00:00:00 1970"}))
    assert not server.running()
    (tmp_path / "process.json").write_text("{")
    assert not server.running()


def test_damaged_access_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "access.json").write_text("{")
    with pytest.raises(ServiceError, match="is damaged"):
        LabelStudioServer(tmp_path).access()


def test_two_servers_that_start_at_once_get_two_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening: list[socket.socket] = []

    def start(self: LabelStudioServer, program: Path, access: Access) -> None:
        time.sleep(0.3)  # the real one takes a minute before it listens
        listener = socket.socket()
        listener.bind(("127.0.0.1", int(access.url.rpartition(":")[2])))
        listener.listen()
        listening.append(listener)

    monkeypatch.setenv("LABELMILL_ENVIRONMENTS", str(tmp_path / "environments"))
    monkeypatch.setattr(server_module, "FIRST_PORT", 23_456)  # away from servers that run
    monkeypatch.setattr(LabelStudioServer, "_start", start)
    monkeypatch.setattr(
        environments, "ensure_environment", lambda *_: SimpleNamespace(script=lambda _: Path("none"))
    )
    servers = [LabelStudioServer(tmp_path / str(number)) for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda server: server.up().url, servers))
    for listener in listening:
        listener.close()
    assert len(listening) == 2
    assert len(set(found)) == 2


def call(url: str, **headers: str) -> int:
    try:
        with urlopen(Request(url, data=b"{}", headers=headers, method="POST")) as reply:  # noqa: S310 - loopback
            return int(reply.status)
    except HTTPError as error:
        with error:
            return error.code


def test_only_who_knows_the_secret_wakes_the_pull() -> None:
    with receive() as receiver:
        assert receiver.url.startswith("http://127.0.0.1:")
        assert call(receiver.url) == 403
        assert call(receiver.url, **{HEADER: "0" * 48}) == 403
        assert call(receiver.url, **{HEADER: "ä"}) == 403
        assert not receiver.woken.is_set()
        assert call(receiver.url, **receiver.header) == 204
        assert receiver.woken.is_set()
        port = int(receiver.url.split(":")[2].split("/")[0])
        with pytest.raises(ReviewError, match="cannot listen"), receive(port=port):
            pass


class Moody(BaseHTTPRequestHandler):
    """Answers with the statuses that it was told, one after another; the last one stays."""

    moods: list[int]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status = self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]
        if status == 0:
            self.connection.close()
            return
        body = json.dumps({"id": 1, "email": "a@b"} if status == 200 else {"detail": "moody"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        del format, arguments


@pytest.fixture
def moody() -> Iterator[tuple[Studio, type[Moody]]]:
    kind = type("Kind", (Moody,), {"moods": [200], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    studio = Studio(f"http://127.0.0.1:{server.server_port}", "0" * 40, patience_s=2.0)
    studio._client()  # loading the SDK for the first time would use the patience up on a busy machine
    try:
        yield studio, kind
    finally:
        studio.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("moods", [[200], [503, 200], [502, 500, 200], [429, 200], [0, 200]])
def test_a_server_that_recovers_is_waited_for(moody: tuple[Studio, type[Moody]], moods: list[int]) -> None:
    studio, server = moody
    server.moods[:] = moods
    assert studio.preflight() == "a@b"
    assert len(server.asked) == len(moods)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "refuses the token, got moody"),
        (403, "forbids to say who we are, got moody"),
        (400, "refuses to say who we are, got moody"),
        (500, "does not answer .*got status 500 moody.*labelmill services up"),
    ],
)
def test_a_refusal_is_one_line(moody: tuple[Studio, type[Moody]], status: int, says: str) -> None:
    studio, server = moody
    server.moods[:] = [status]
    with pytest.raises(ReviewError, match=says):
        studio.preflight()


def test_what_is_gone_is_none_and_what_cannot_be_repeated_is_not(moody: tuple[Studio, type[Moody]]) -> None:
    studio, server = moody
    server.moods[:] = [404]
    assert studio.get_project(5) is None
    with pytest.raises(GoneError):
        studio.tasks(5)
    server.moods[:] = [500]
    server.asked.clear()
    with pytest.raises(InterruptedRequestError):
        studio.import_tasks(5, [{"data": {}}])
    assert len(server.asked) == 1


@pytest.mark.parametrize("old", [0, 404, 503])
def test_a_server_that_moved_is_followed(moody: tuple[Studio, type[Moody]], old: int) -> None:
    studio, server = moody
    stranger: type[Moody] = type("Stranger", (Moody,), {"moods": [old], "asked": []})
    there = ThreadingHTTPServer(("127.0.0.1", 0), stranger)
    thread = threading.Thread(target=there.serve_forever)
    thread.start()
    said: list[str] = []
    moved = Studio(
        f"http://127.0.0.1:{there.server_port}", "0" * 40, patience_s=10, say=said.append,
        locate=lambda: studio.url,
    )  # fmt: skip
    try:
        assert moved.preflight() == "a@b"
    finally:
        moved.close()
        there.shutdown()
        thread.join()
        there.server_close()
    assert (len(stranger.asked), len(server.asked)) == (1, 1)
    assert said[-1] == f"Label Studio is at {studio.url} now"
