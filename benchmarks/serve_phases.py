"""One fault each, on a server of its own: a dead thread, wrong tokens, pictures that are too large, a full disk; of
serve_load.py. Each returns what it found; what must not be is in its `wrong`."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import websockets.exceptions
import websockets.sync.client
from made_server import DEADLY, running
from serve_overhead import row
from serve_strain import DRAIN_S, IMAGE, Load, memory, owed

from motedge.client import RemoteOptions, RemotePolicy, droid_observation
from motedge.client.remote_errors import RemoteError
from motedge.client.wire import pack
from motedge.errors import EXIT_INTERNAL, HostError
from motedge.runtime.recorder.ring_reader import RingReader

TOKEN = "a-token-that-only-robots-know"
_PATIENT = RemoteOptions(timeout_s=20.0, connect_timeout_s=60.0)
_LISTENING = re.compile(r"listening on ws://[\d.]+:(\d+)")
# A file may not be longer: the disk is full for whoever writes more
_FILE_BYTES = 6 << 20
_GROWTH_MB = 400.0


def dead_thread(robots: int = 10) -> dict[str, Any]:
    """The thread that owns the engines dies under load: everyone is told, and the process ends with 4."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.json"
        with running(20.0, ledger=ledger) as (process, port):
            load = Load(port)
            threads = load.start(robots)
            time.sleep(2.0)
            load.ending.set()
            told = ""
            with RemotePolicy(f"ws://127.0.0.1:{port}", options=_PATIENT) as policy:
                killed_s = time.monotonic()
                try:
                    policy.act(droid_observation(np.zeros(7), 0.5, DEADLY, image=IMAGE))
                except RemoteError as error:
                    told = str(error).splitlines()[0]
            code = process.wait(3 * DRAIN_S)
            ended_s = time.monotonic() - killed_s
            for thread in threads:
                thread.join(20)
            accounts = owed(load, ledger, killed_s)
    wrong = [
        *load.wrong,
        *([f"accepted and not told: {accounts['lost']}"] if accounts["lost"] else []),
        *([f"exit code {code}"] if code != EXIT_INTERNAL else []),
        *([f"the killer was told {told!r}"] if "died" not in told else []),
    ]
    return {**accounts, "told": told, "exit_code": code, "ended_s": round(ended_s, 3), "wrong": wrong}


def wrong_tokens(seconds: float = 8.0, robots: int = 4) -> dict[str, Any]:
    """Clients without the token, and sockets that say nothing, more than there are places: robots come in and go on."""
    with tempfile.TemporaryDirectory() as folder:
        token, ledger = Path(folder) / "token", Path(folder) / "ledger.json"
        token.write_text(TOKEN)
        token.chmod(0o600)
        with running(1.0, connections=16, token_file=token, ledger=ledger) as (process, port):
            load, told = Load(port, token=TOKEN), Counter[str]()
            threads = [*load.start(robots), *_strangers(port, load, told)]
            connected_ms, until_s = [], time.monotonic() + seconds
            while time.monotonic() < until_s:
                began = time.monotonic()
                with RemotePolicy(f"ws://127.0.0.1:{port}", token=TOKEN, options=_PATIENT):
                    connected_ms.append(1e3 * (time.monotonic() - began))
                time.sleep(0.1)
            load.ending.set()
            load.stop.set()
            process.send_signal(signal.SIGTERM)
            code = process.wait(3 * DRAIN_S)
            for thread in threads:
                thread.join(20)
            accepted = json.loads(ledger.read_text(encoding="utf-8"))
    answered = {name: count for name, count in told.items() if name not in ("401", "503", "nothing")}
    wrong = [
        *load.wrong,
        *([f"answered without a token: {answered}"] if answered else []),
        *([f"taken without a token: {sorted(accepted)}"] if set(accepted) - set(load.robots) else []),
        *([f"exit code {code}"] if code else []),
    ]
    refused = dict(sorted(told.items()))
    return {
        "refused": refused,
        "answered_to_robots": load.counts["answered"],
        "connected": row("newcomers with the token", connected_ms),
        "exit_code": code,
        "wrong": wrong,
    }


def _strangers(port: int, load: Load, told: Counter[str]) -> list[threading.Thread]:
    """Threads that ask without the token, or keep sockets on which they say nothing, until the load ends."""
    headers: tuple[dict[str, str], ...] = (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}", "Origin": "http://a.page"},
    )
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"}
    asked = (("GET", "/"), ("GET", "/metrics"), ("POST", "/reload"), ("GET", "/v1/models"))
    lock = threading.Lock()

    def ask() -> None:
        turn = 0
        while not load.ending.is_set():
            (method, path), shown = asked[turn % len(asked)], headers[turn % len(headers)]
            turn += 1
            status = _status(port, method, path, {**(upgrade if path == "/" else {}), **shown})
            with lock:
                # A page is refused with its own status, whatever it shows
                told["401" if status == "403" and "Origin" in shown else status] += 1

    def keep() -> None:
        kept: list[socket.socket] = []
        while not load.ending.is_set():
            with contextlib.suppress(OSError):
                kept.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                kept[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" if len(kept) % 2 else b"GET / H")
            if len(kept) > 100:
                kept.pop(0).close()
            time.sleep(0.005)
        for each in kept:
            each.close()

    threads = [threading.Thread(target=work, daemon=True) for work in (ask, ask, ask, keep)]
    for thread in threads:
        thread.start()
    return threads


def _status(port: int, method: str, path: str, headers: dict[str, str]) -> str:
    """Of one request on a connection of its own; "nothing" where it was cut off."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return "nothing"
    finally:
        connection.close()


@contextlib.contextmanager
def serving(bundle: Path, *words: str, file_bytes: int | None = None) -> Iterator[tuple[Any, int, list[str]]]:
    """`motedge serve` on a bundle: the process, its port, and the lines of its log so far."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    command = [
        sys.executable,
        "-m",
        "motedge",
        "serve",
        str(bundle),
        "--port",
        "0",
        "--check",
        "size",
        "--threads",
        "1",
    ]
    process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, preexec_fn=limit)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        until_s = time.monotonic() + 60
        while not (found := [m for line in list(lines) if (m := _LISTENING.search(line))]):
            if process.poll() is not None or time.monotonic() > until_s:
                raise HostError("motedge serve did not start", got="".join(lines[-5:]))
            time.sleep(0.05)
        yield process, int(found[0].group(1)), lines
    finally:
        process.kill()
        process.wait(10)
        reader.join(5)


def large_pictures(bundle: Path) -> dict[str, Any]:
    """Pictures that are too large, of robots and of questions: each is refused, and memory stays."""
    with serving(bundle, "--chat", "--capacity", "512", "--steps", "1", "--max-megapixels", "1") as (process, port, _):
        url = f"ws://127.0.0.1:{port}"
        with RemotePolicy(url, options=_PATIENT) as policy:
            policy.act(_seen(360, 640))
            _asked(port, [])
            before = memory(process)["VmHWM"]
            told = {"observation of 1280 x 960": _refused_picture(policy, 960, 1280)}
            told["message of 75 MB"] = _closed(url, pack(_seen(5000, 5000)))
            black, bomb = _png(1000, 1000), _png(60_000, 60_000, whole=False)
            for name, pictures in (
                ("question with 500 pictures of 1 megapixel", [black] * 500),
                ("question with 16 pictures of 1 megapixel", [black] * 16),
                ("question with a picture of 16 megapixels", [_png(4096, 4096)]),
                ("question with a picture that says 3,600 megapixels", [bomb]),
            ):
                told[name] = _asked(port, pictures)
            grown_mb = memory(process)["VmHWM"] - before
            still = policy.act(_seen(360, 640)).kind == "fresh" and _asked(port, []).startswith("200")
        process.send_signal(signal.SIGTERM)
        code = process.wait(3 * DRAIN_S)
    wrong = [
        *(
            f"{name}: {said}"
            for name, said in told.items()
            if not said.startswith(("observation", "1009", "hung up", "400"))
        ),
        *([] if still else ["nothing is answered any more"]),
        *([f"memory grew by {grown_mb:.0f} MB"] if grown_mb > _GROWTH_MB else []),
        *([f"exit code {code}"] if code else []),
    ]
    return {"told": told, "peak_memory_grown_mb": round(grown_mb, 1), "exit_code": code, "wrong": wrong}


def full_disk(bundle: Path, ticks: int = 60) -> dict[str, Any]:
    """The recorder's disk is full after some ticks: robots are answered on, and what was written can be read."""
    with tempfile.TemporaryDirectory() as folder:
        ring, limits = Path(folder) / "ring", {"file_bytes": _FILE_BYTES}
        words = ("--steps", "1", "--recorder", str(ring), "--recorder-mb", "200")
        with serving(bundle, *words, **limits) as (process, port, lines):
            # Noise: a recording can't make it smaller
            noise = np.random.RandomState(0).randint(0, 256, (540, 640, 3)).astype(np.uint8)
            seen = droid_observation(np.zeros(7), 0.5, "go", wrist=noise)
            with RemotePolicy(f"ws://127.0.0.1:{port}", options=_PATIENT) as policy:
                kinds = Counter(policy.act(seen).kind for _ in range(ticks))
            healthy = _status(port, "GET", "/healthz", {})
            process.send_signal(signal.SIGTERM)
            code = process.wait(3 * DRAIN_S)
        said = [line.strip() for line in lines if "nothing is recorded any more" in line]
        reader = RingReader(ring)
        written = sum(1 for _ in reader) - 1
    wrong = [
        *([f"answers {dict(kinds)}"] if kinds != {"fresh": ticks} else []),
        *(["the log does not say it"] if len(said) != 1 else []),
        *([f"{written} ticks are in the ring"] if not 0 < written < ticks else []),
        *([f"damage: {reader.damage}"] if reader.damage else []),
        *([f"health {healthy}, exit code {code}"] if (healthy, code) != ("200", 0) else []),
    ]
    return {"answered": kinds["fresh"], "recorded": written, "health": healthy, "exit_code": code, "wrong": wrong}


def _seen(rows: int, columns: int) -> dict[str, Any]:
    return droid_observation(np.zeros(7), 0.5, "go", wrist=np.zeros((rows, columns, 3), np.uint8))


def _refused_picture(policy: RemotePolicy, rows: int, columns: int) -> str:
    try:
        return f"answered: {policy.act(_seen(rows, columns)).kind}"
    except RemoteError as error:
        return f"{error.code}: {str(error).splitlines()[0]}"


def _closed(url: str, message: bytes) -> str:
    """The code with which a connection is closed after that message."""
    with websockets.sync.client.connect(url, compression=None, max_size=None) as client:
        try:
            client.recv(timeout=10)
            client.send(message)
            return f"answered: {client.recv(timeout=20)[:40]!r}"
        except websockets.exceptions.ConnectionClosed as closed:
            # What it said last is lost where bytes of ours were still on their way
            return "hung up" if closed.rcvd is None else str(closed.rcvd.code)


def _asked(port: int, pictures: list[bytes]) -> str:
    """Status and what is said of a question that shows these."""
    urls = [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in pictures]
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content.append({"type": "text", "text": "What is there?"})
    body = json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": 2}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", body=body)
        answer = connection.getresponse()
        said = json.loads(answer.read()).get("error", {}).get("message", "")
        return f"{answer.status} {said.splitlines()[0] if said else ''}".strip()
    finally:
        connection.close()


def _png(rows: int, columns: int, *, whole: bool = True) -> bytes:
    """A black picture, one bit a pixel; not whole: the header alone has that size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    stream = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    stream.seek(0, io.SEEK_END)
    stream.write(chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 1, 0, 0, 0, 0)))
    line = b"\x00" + bytes(-(-columns // 8))
    stream.write(chunk(b"IDAT", zlib.compress(line * (rows if whole else 1), 9)) + chunk(b"IEND", b""))
    return stream.getvalue()
