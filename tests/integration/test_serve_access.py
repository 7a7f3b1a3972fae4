"""Who gets in: tokens, pages in browsers, names, and that nobody who may not ask keeps those out who may."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import websockets.exceptions
import websockets.sync.client
from serve_scene import DescribedClient, observation, served, until

TOKEN = "a secret of some length"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
GET = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@contextlib.contextmanager
def raw(running: Any, data: bytes = b"") -> Iterator[socket.socket]:
    """A socket on which that was said."""
    with socket.create_connection(("127.0.0.1", running.server.port), timeout=10) as plain:
        plain.sendall(data)
        yield plain


def said(plain: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := plain.recv(4000):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET + b"\r\n", b"401"),
        (GET + b"Origin: http://evil.example\r\n\r\n", b"403"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"200"),
        (b"POST /reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n", b"401"),
    ],
)
def test_who_shows_no_token_keeps_no_connection(request_: bytes, status: bytes) -> None:
    with served(token=TOKEN) as running, raw(running, request_) as plain:
        began_s = time.monotonic()
        answer = said(plain)
        assert answer.startswith(b"HTTP/1.1 " + status) and b"connection: close" in answer.lower()
        assert time.monotonic() - began_s < 5


def test_who_asks_without_the_token_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with served(token=TOKEN) as running:
        assert {running.get("/metrics")[0] for _ in range(20)} == {401}
        text = running.get("/metrics", **SHOWN)[1]
    assert 'motedge_refused_connections_total{cause="token"} 20.0' in text
    assert sum("without the token" in record.getMessage() for record in caplog.records) == 3


def test_what_is_no_http_is_counted_and_not_written_down(caplog: pytest.LogCaptureFixture) -> None:
    with served() as running:
        for _ in range(3):
            with raw(running, b"GET /metrics HTTP/1.1\r\n no header\r\n\r\n") as plain:
                assert said(plain).startswith(b"HTTP/1.0 400")
        assert 'motedge_refused_connections_total{cause="http"} 3.0' in running.get("/metrics")[1]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_connection_on_which_nothing_is_asked_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motedge.serve.server.IDLE_S", 0.2)
    with served() as running, raw(running, GET + b"\r\n") as plain:
        assert b"motedge_ready" in said(plain)


def test_a_robot_that_thinks_for_longer_than_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motedge.serve.server.IDLE_S", 0.1)
    with served() as running, DescribedClient(running.url) as client:
        time.sleep(0.4)
        assert client.infer(observation())["actions"].shape == (4, 8)


@pytest.mark.parametrize("asked", [b"", b"GET / HT", GET, GET + b"\r\n", GET.replace(b"metrics", b"healthz") + b"\r\n"])
def test_strangers_do_not_keep_clients_out(asked: bytes) -> None:
    with served(token=TOKEN, connections=2) as running, contextlib.ExitStack() as opened:
        for _ in range(100):
            plain = opened.enter_context(raw(running))
            with contextlib.suppress(OSError):
                plain.sendall(asked)
        with DescribedClient(running.url, **SHOWN) as client:
            assert client.infer(observation())["actions"].shape == (4, 8)
            # Nor do more of them push out who is in
            for _ in range(40):
                plain = opened.enter_context(raw(running))
                with contextlib.suppress(OSError):
                    plain.sendall(asked)
            assert client.infer(observation())["actions"].shape == (4, 8)
        door = running.server._door
        assert len(door._strangers) <= 16 and len(door._admitted) <= 2


def test_only_so_many_clients() -> None:
    with served(connections=2) as running, DescribedClient(running.url) as one, DescribedClient(running.url) as two:
        with pytest.raises(websockets.exceptions.InvalidStatus, match="503"):
            websockets.sync.client.connect(running.url)
        assert running.get("/metrics")[0] == 503 and running.get("/healthz")[0] == 200
        one.socket.close()
        until(lambda: running.get("/metrics")[0] == 200)
        with DescribedClient(running.url) as three:
            assert three.infer(observation())["actions"].shape == two.infer(observation())["actions"].shape


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name, b"200") for name in ("127.0.0.1:8000", "localhost", "[::1]:80", "LocalHost:1", "robot.local")),
        *(
            (name, b"403")
            for name in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "x@127.0.0.1")
        ),
    ],
)
def test_a_name_that_a_dns_server_made_this_machines_is_refused(host: str, status: bytes) -> None:
    with served(hosts=("robot.local",)) as running:
        for path in (b"/metrics", b"/healthz"):
            request = b"GET " + path + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n\r\n"
            with raw(running, request) as plain:
                assert said(plain).startswith(b"HTTP/1.1 " + status)
    with served(token=TOKEN) as running:
        request = GET.replace(b"127.0.0.1", host.encode()) + f"Authorization: Bearer {TOKEN}\r\n".encode()
        with raw(running, request + b"Connection: close\r\n\r\n") as plain:
            assert said(plain).startswith(b"HTTP/1.1 200")


def test_a_server_without_chat_says_how_to_come_by_it() -> None:
    for more, fix in (({}, "motedge serve BUNDLE --chat"), ({"one_robot": True}, "--no-policy --chat")):
        with served(**more) as running:
            for path, post in (("/v1/models", None), ("/v1/chat/completions", b"{}"), ("/v1/embeddings", b"{}")):
                status, text = running.get(path, post=post)
                error = json.loads(text)["error"]
                assert status == 404 and error["type"] == "invalid_request_error" and error["code"] == "not_found"
                assert "answers no questions" in error["message"] and fix in error["message"]


def test_what_is_refused_under_v1_is_said_in_openais_form() -> None:
    with served(token=TOKEN, chat=True, body_bytes=1000) as running:
        question = {"post": b"x" * 2000}
        for path, more, status, code in (
            ("/v1/models", {}, 401, "invalid_api_key"),
            ("/v1/chat/completions", question, 401, "invalid_api_key"),
            ("/v1/models", {"Origin": "null", **SHOWN}, 403, None),
            ("/v1/nothing", SHOWN, 404, "not_found"),
            ("/v1/models", {"post": b"", **SHOWN}, 405, None),
            ("/v1/chat/completions", {**question, **SHOWN}, 413, None),
        ):
            found, text = running.get(path, **more)
            error = json.loads(text)["error"]
            assert (found, error["code"], error["type"]) == (status, code, "invalid_request_error") and error["message"]


@pytest.mark.parametrize(
    "header", [None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \xff", "Bearer "]
)
def test_without_the_token_nothing_is_answered(header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    with served(token=TOKEN, chat=True, wait=True) as running:
        for path in ("/", "/metrics", "/nothing"):
            assert running.get(path, **headers) == (401, "the token is missing or wrong\n")
        for path in ("/reload", "/v1/chat/completions"):
            assert running.get(path, post=b"{}", **headers)[0] == 401
        with pytest.raises(websockets.exceptions.InvalidStatus, match="401"):
            websockets.sync.client.connect(running.url, additional_headers=headers)
        assert running.server.room.gpu.resident.requests == []


def test_with_the_token_all_is_answered() -> None:
    with served(token=TOKEN) as running:
        for scheme in ("Bearer", "Api-Key", "bearer"):
            with DescribedClient(running.url, Authorization=f"{scheme} {TOKEN}") as client:
                assert client.infer(observation())["actions"].shape == (4, 8)
        assert running.get("/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_pages_in_browsers_are_refused() -> None:
    with served(origins=("http://panel.local",)) as running:
        with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
            websockets.sync.client.connect(running.url, origin="http://evil.example")
        assert running.get("/reload", post=b"", Origin="null")[0] == 403
        with DescribedClient(running.url, Origin="http://panel.local") as client:
            assert client.infer(observation())["actions"].shape == (4, 8)
