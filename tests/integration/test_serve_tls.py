"""TLS between client and server: trusted, not trusted, and one side without."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
import websockets.sync.client
from serve_scene import DescribedClient, observation, served

from motedge.client import RemoteOptions, RemotePolicy
from motedge.client.remote_errors import ConnectionFailedError
from motedge.errors import UsageError

# Whoever tries again and again is seen to by the clock
PATIENT = RemoteOptions(connect_timeout_s=30.0, retry_s=0.05)
ONCE = RemoteOptions(connect_timeout_s=10.0, retry_s=60.0)
HASTY = RemoteOptions(connect_timeout_s=0.3, retry_s=0.05)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=robot"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("no openssl here that makes a certificate")
    return str(certificate), str(key)


def refused(url: str, tls_ca: str | None = None, options: RemoteOptions = PATIENT, token: str | None = None) -> str:
    """What the client says; at once, unless it is told to hurry."""
    began_s = time.monotonic()
    with pytest.raises(ConnectionFailedError) as caught:
        RemotePolicy(url, token=token, tls_ca=tls_ca, options=options)
    assert time.monotonic() - began_s < 10, "it was tried again and again"
    return str(caught.value)


def test_it_is_spoken(pair: tuple[str, str]) -> None:
    certificate, key = pair
    with served(tls_cert=certificate, tls_key=key, wait=False) as running:
        url = running.url.replace("ws://", "wss://")
        with RemotePolicy(url, tls_ca=certificate) as policy:
            assert policy.act(observation(0.25)).actions[0, 0] == 0.25
        with pytest.raises(ssl.SSLError):
            websockets.sync.client.connect(url)
        told = refused(url)
        assert "not trusted" in told and "tls_ca" in told
        told = refused(url.replace("127.0.0.1", "localhost"), certificate)
        assert "not trusted" in told and "a name or address that is in the certificate" in told


def test_one_side_without(pair: tuple[str, str]) -> None:
    certificate, key = pair
    with served() as running:
        told = refused(running.url.replace("ws://", "wss://"), certificate)
        assert told.startswith("no TLS with the server at wss://") and "ws:// for a server without" in told
    with served(tls_cert=certificate, tls_key=key, wait=False) as running:
        assert "wss://, if the server speaks TLS" in refused(running.url, options=HASTY)


def test_no_version_that_both_speak(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = pair
    from motedge.serve import server

    whole = server.tls_context

    def newest(options: object) -> ssl.SSLContext | None:
        context = whole(options)  # type: ignore[arg-type]
        if context is not None:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    def older(authority: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    monkeypatch.setattr(server, "tls_context", newest)
    monkeypatch.setattr("motedge.client.tls.trust", older)
    with served(tls_cert=certificate, tls_key=key, wait=False) as running:
        assert "same versions of TLS" in refused(running.url.replace("ws://", "wss://"), certificate, HASTY)


def test_an_authority_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    for name in ("a.pem", "none.pem"):
        with pytest.raises(UsageError, match="can't be used") as caught:
            RemotePolicy("wss://127.0.0.1:1", tls_ca=str(tmp_path / name))
        assert "a PEM file" in caught.value.expected and "--tls-cert" in caught.value.fix


def test_an_authority_for_an_address_without_tls(pair: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="one without TLS") as caught:
        RemotePolicy("ws://127.0.0.1:1", tls_ca=pair[0], token="secret")
    assert caught.value.expected == "wss://HOST:PORT" and "secret" not in str(caught.value)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
def test_who_never_ends_a_handshake_keeps_nobody_out(pair: tuple[str, str], said: bytes) -> None:
    certificate, key = pair
    with (
        served(tls_cert=certificate, tls_key=key, wait=False, connections=2) as running,
        contextlib.ExitStack() as opened,
    ):
        for _ in range(400):
            plain = opened.enter_context(socket.create_connection(("127.0.0.1", running.server.port), timeout=10))
            with contextlib.suppress(OSError):
                plain.sendall(said)
        url, began_s = running.url.replace("ws://", "wss://"), time.monotonic()
        with RemotePolicy(url, tls_ca=certificate, options=ONCE) as policy:
            assert time.monotonic() - began_s < 5, "it had to wait for the others' time to be over"
            assert policy.act(observation(0.25)).actions.shape == (4, 8)
        assert len(running.server._door._strangers) <= 16


def test_what_comes_in_the_clear_does_not_pass_for_encrypted(pair: tuple[str, str]) -> None:
    certificate, key = pair
    with (
        served(tls_cert=certificate, tls_key=key, wait=False) as running,
        socket.create_connection(("127.0.0.1", running.server.port), timeout=10) as plain,
    ):
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/1.1" not in plain.recv(1 << 16)


def test_a_request_that_comes_with_the_end_of_the_handshake(pair: tuple[str, str]) -> None:
    """As a client of TLS 1.3 may send it: in one piece with its own last word."""
    certificate, key = pair
    context = ssl.create_default_context(cafile=certificate)
    came, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, said, server_hostname="127.0.0.1")
    with (
        served(tls_cert=certificate, tls_key=key, wait=False) as running,
        socket.create_connection(("127.0.0.1", running.server.port), timeout=10) as plain,
    ):
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(said.read())
                came.write(plain.recv(1 << 16))
        tls.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        plain.sendall(said.read())
        answer = b""
        while b"\r\n\r\n" not in answer:
            try:
                answer += tls.read(1 << 16)
            except ssl.SSLWantReadError:
                came.write(plain.recv(1 << 16))
        assert answer.startswith(b"HTTP/1.1 200")


def test_why_a_server_refuses_is_passed_on() -> None:
    with served(token="a secret of some length") as running:
        told = refused(running.url)
        assert "HTTP 401: the token is missing or wrong" in told and "why:" in told
        assert "asks for a token, and none was given" in told and "token=read_token(FILE)" in told
        told = refused(running.url, token="another one")
        assert "refuses the token that was given" in told and "--token-file FILE" in told and "another" not in told
    with served(chat=True, policy=False) as running:
        told = refused(running.url)
        assert "HTTP 404" in told and "start the server without --no-policy" in told
    with served(connections=1) as running, DescribedClient(running.url):
        assert "503" in refused(running.url, options=HASTY)
