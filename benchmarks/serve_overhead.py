"""What the server adds to a tick: from an observation's first byte on a socket to its answer's last byte, less the tick
itself; on loopback, with a 640 x 540 image.

    python benchmarks/serve_overhead.py --requests 3000 --out benchmarks/results/serve_overhead.json

Rows: `socket`, a client that writes ready-made frames and reads bytes, so that nothing but the server and the kernel is
measured; `client`, motedge's own, which packs the observation and unpacks the answer; `floor`, the same bytes to a
program that reads them and answers at once, which is what the kernel and Python's sockets cost by themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from conditions import SCHEMA, collect_conditions, load_average
from made_server import running

from motedge.client import RemotePolicy, droid_observation
from motedge.client.wire import pack, unpack
from motedge.errors import GateError, MotedgeError
from motedge.files import write_json

_COLD = 100
_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_GOAL_MS = 1.0


def observation(seed: int = 0) -> dict[str, Any]:
    """Noise for a picture: nothing on the way could shrink it."""
    image = np.random.RandomState(seed).randint(0, 256, (540, 640, 3)).astype(np.uint8)
    return droid_observation(np.linspace(-1, 1, 7), 0.5, "pick up the cup", image=image)


def masked_frame(payload: bytes, seed: int = 0) -> bytes:
    """A binary message as a client sends it (RFC 6455, 5.2), longer than 65,535 bytes."""
    mask = np.random.RandomState(seed).bytes(4)
    key = np.frombuffer(mask * (len(payload) // 4 + 1), np.uint8)[: len(payload)]
    hidden = (np.frombuffer(payload, np.uint8) ^ key).tobytes()
    return b"\x82\xff" + len(payload).to_bytes(8, "big") + mask + hidden


def read_exactly(plain: socket.socket, count: int) -> bytes:
    """So many bytes."""
    parts, left = [], count
    while left:
        part = plain.recv(left)
        if not part:
            raise MotedgeError("the server hung up")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_message(plain: socket.socket) -> bytes:
    """The payload of one frame from the server; its pings are skipped."""
    while True:
        head = read_exactly(plain, 2)
        length = head[1]
        if length == 126:
            length = int.from_bytes(read_exactly(plain, 2), "big")
        elif length == 127:
            length = int.from_bytes(read_exactly(plain, 8), "big")
        payload = read_exactly(plain, length)
        if head[0] & 0x0F != 0x9:
            return payload


def by_socket(port: int, requests: int) -> list[float]:
    """ms of each request, less its tick."""
    frame = masked_frame(pack(observation()))
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.sendall(_HANDSHAKE)
        said = b""
        while b"\r\n\r\n" not in said:
            said += plain.recv(1)
        read_message(plain)
        found = []
        for _ in range(_COLD + requests):
            began = time.perf_counter()
            plain.sendall(frame)
            answer = read_message(plain)
            took_ms = 1e3 * (time.perf_counter() - began)
            found.append(took_ms - unpack(answer)["server_timing"]["infer_ms"])
    return found[_COLD:]


def by_client(port: int, requests: int) -> list[float]:
    """ms of each call of `RemotePolicy.act`, less its tick."""
    seen = observation()
    with RemotePolicy(f"ws://127.0.0.1:{port}") as policy:
        found = []
        for _ in range(_COLD + requests):
            chunk = policy.act(seen)
            found.append(chunk.round_trip_ms - chunk.server_timing["infer_ms"])
    return found[_COLD:]


def by_nothing(requests: int) -> list[float]:
    """ms of as many bytes there and back, in a process forked off."""
    frame, answer = masked_frame(pack(observation())), bytes(2000)
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        opened.enter_context(_echo(listener, len(frame), answer))
        plain = opened.enter_context(socket.create_connection(listener.getsockname()))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = []
        for _ in range(_COLD + requests):
            began = time.perf_counter()
            plain.sendall(frame)
            read_exactly(plain, len(answer))
            found.append(1e3 * (time.perf_counter() - began))
    return found[_COLD:]


@contextlib.contextmanager
def _echo(listener: socket.socket, count: int, answer: bytes) -> Iterator[None]:
    process = os.fork()
    if process == 0:
        with contextlib.suppress(Exception):
            other, _ = listener.accept()
            other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                read_exactly(other, count)
                other.sendall(answer)
        os._exit(0)
    try:
        yield
    finally:
        threading.Thread(target=os.waitpid, args=(process, 0), daemon=True).start()


def row(name: str, found_ms: list[float]) -> dict[str, Any]:
    """Percentiles."""
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(found_ms, (50, 90, 99)))
    return {"name": name, "requests": len(found_ms), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}


def main() -> int:
    """Measures in rounds, one row after the other, so that a disturbance meets all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gate", action="store_true", help=f"fail if the socket's p50 is above {_GOAL_MS:g} ms")
    args = parser.parse_args()
    conditions = collect_conditions(1)
    found: dict[str, list[float]] = {"floor": [], "socket": [], "client": []}
    with running() as (_, port):
        measures: dict[str, Callable[[], list[float]]] = {
            "floor": lambda: by_nothing(args.requests),
            "socket": lambda: by_socket(port, args.requests),
            "client": lambda: by_client(port, args.requests),
        }
        for _ in range(args.rounds):
            for name, measure in measures.items():
                found[name] += measure()
    rows = [row(name, values) for name, values in found.items()]
    for each in rows:
        print(
            f"{each['name']:<8}{each['requests']:>8}{each['p50_ms']:>10.3f}{each['p90_ms']:>10.3f}{each['p99_ms']:>10.3f}"
        )
    if args.out:
        document = {"schema": SCHEMA, "name": "serve_overhead", "conditions": conditions}
        write_json(args.out, {**document, "image": [540, 640, 3], "rows": rows, "load_average_after": load_average()})
    if args.gate and rows[1]["p50_ms"] > _GOAL_MS:
        raise GateError("the server adds more than it may", expected=f"{_GOAL_MS} ms p50", got=json.dumps(rows[1]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MotedgeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
