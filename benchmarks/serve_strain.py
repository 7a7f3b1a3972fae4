"""Robots that count what they asked and what they were told, beside clients that do it ill use; of serve_load.py."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from made_server import running
from serve_overhead import _HANDSHAKE, masked_frame, row

from motedge.client import RemoteOptions, RemotePolicy, droid_observation
from motedge.client.remote_errors import ConnectionFailedError, RemoteError, RemoteTimeoutError
from motedge.client.wire import pack
from motedge.errors import HostError

DRAIN_S = 10.0
IMAGE = np.zeros((540, 640, 3), np.uint8)
# A request that was on its way for longer when the server was told to end must have been taken
_ON_ITS_WAY_S = 0.5
_OPTIONS = RemoteOptions(timeout_s=5.0, connect_timeout_s=30.0)


@dataclass
class Asked:
    """What one robot asked and was told."""

    sent: int = 0
    sent_s: float = 0.0
    # With actions, and with an error that says why not
    answered: int = 0
    refused: int = 0


class Load:
    """What is counted while it lasts."""

    def __init__(self, port: int, *, token: str | None = None) -> None:
        """`port`: of the server; `token`: that robots show."""
        self.port, self.token = port, token
        # Robots go on until their server has gone: what it took it has to answer
        self.stop, self.ending = threading.Event(), threading.Event()
        self.counts: Counter[str] = Counter()
        self.times_ms: list[float] = []
        self.wrong: list[str] = []
        self.robots: dict[str, Asked] = {}
        self._lock = threading.Lock()

    def count(self, what: str, time_ms: float | None = None) -> None:
        """One more."""
        with self._lock:
            self.counts[what] += 1
            if time_ms is not None:
                self.times_ms.append(time_ms)

    def robot(self, number: int) -> None:
        """Asks with a state that nobody else has, and looks whether it comes back."""
        name, asked = f"robot {number}", Asked()
        self.robots[name] = asked
        with RemotePolicy(f"ws://127.0.0.1:{self.port}", token=self.token, options=_OPTIONS) as policy:
            while not self.stop.is_set():
                state = np.float32(number / 64 + (asked.sent % 1000) / 1e6)
                seen = droid_observation(np.full(7, state), 0.5, name, image=IMAGE)
                asked.sent, asked.sent_s = asked.sent + 1, time.monotonic()
                try:
                    chunk = policy.act(seen)
                except RemoteError as error:
                    asked.refused += 1
                    self._expect_end(f"{name}: {error}")
                    return
                except (ConnectionFailedError, RemoteTimeoutError) as error:
                    self._expect_end(f"{name}: {error}")
                    return
                asked.answered += 1
                if chunk.actions[0, 0] != state:
                    self.wrong.append(f"{name} asked with {state} and got {chunk.actions[0, 0]}")
                if policy.reconnects:
                    self.wrong.append(f"{name} lost its connection")
                    return
                self.count("answered", chunk.round_trip_ms)

    def nuisance(self, number: int) -> None:
        """One ill use after the other."""
        uses: tuple[Callable[[socket.socket], None], ...] = (_vanish, _half, _noise, _too_large, _stall, _no_http)
        turn = number
        while not (self.stop.is_set() or self.ending.is_set()):
            use, turn = uses[turn % len(uses)], turn + 1
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain:
                if use is not _no_http:
                    plain.sendall(_HANDSHAKE)
                    plain.recv(4096)
                use(plain)
            self.count(use.__name__.strip("_"))
            time.sleep(0.02)

    def start(self, robots: int, nuisances: int = 0) -> list[threading.Thread]:
        """All of them, each in a thread."""
        work = [(self.robot, n) for n in range(robots)] + [(self.nuisance, n) for n in range(nuisances)]
        threads = [threading.Thread(target=target, args=(number,), daemon=True) for target, number in work]
        for thread in threads:
            thread.start()
        return threads

    def _expect_end(self, text: str) -> None:
        if not self.ending.is_set():
            self.wrong.append(text)


def owed(load: Load, ledger: Path, told_s: float) -> dict[str, Any]:
    """What the server took and never answered, by its own account.

    Args:
        load: what the robots counted.
        ledger: what the server counted, written when it ended.
        told_s: when it was told to end.
    """
    accepted = json.loads(ledger.read_text(encoding="utf-8"))
    lost = {
        name: accepted.get(name, 0) - asked.answered - asked.refused
        for name, asked in load.robots.items()
        if accepted.get(name, 0) != asked.answered + asked.refused
    }
    untaken = [told_s - asked.sent_s for name, asked in load.robots.items() if asked.sent > accepted.get(name, 0)]
    return {
        "accepted": sum(accepted.get(name, 0) for name in load.robots),
        "answered": sum(asked.answered for asked in load.robots.values()),
        "refused_with_an_error": sum(asked.refused for asked in load.robots.values()),
        "lost": lost,
        # Sent, and not read before it stopped to read: below 0, sent after it was told
        "not_taken": len(untaken),
        "not_taken_sent_before_s": round(max(untaken, default=0.0), 4),
    }


def strain(clients: int, nuisances: int, seconds: float, tick_ms: float) -> dict[str, Any]:
    """Load for so long, SIGTERM under it, and what came of it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(
            tick_ms,
            waiting=clients + nuisances,
            connections=256,
            drain_s=DRAIN_S,
            ledger=Path(folder) / "ledger.json",
        ) as (process, port),
    ):
        load = Load(port)
        threads = load.start(clients, nuisances)
        # What is taken once, by each client, is not counted as growth
        time.sleep(seconds / 4)
        memory_mb, until_s = [memory(process)["VmRSS"]], time.monotonic() + seconds * 3 / 4
        while time.monotonic() < until_s:
            time.sleep(seconds / 40)
            memory_mb.append(memory(process)["VmRSS"])
        load.ending.set()
        told_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(3 * DRAIN_S)
        ended_s = time.monotonic() - told_s
        for thread in threads:
            thread.join(3 * _OPTIONS.timeout_s)
        accounts = owed(load, Path(folder) / "ledger.json", told_s)
    half = len(memory_mb) // 2
    return {
        **accounts,
        "rate_hz": round(accounts["answered"] / seconds, 1),
        "ill_uses": {name: count for name, count in sorted(load.counts.items()) if name != "answered"},
        "wrong": load.wrong[:20],
        "round_trip": row("round trip", load.times_ms or [0.0]),
        "memory_mb": [round(value, 1) for value in memory_mb],
        "growth_mb": round(float(np.mean(memory_mb[half:]) - np.mean(memory_mb[:half])), 2),
        "exit_code": code,
        "ended_s": round(ended_s, 3),
        "threads_left": sum(thread.is_alive() for thread in threads),
    }


def strain_troubles(found: dict[str, Any], growth_mb: float) -> list[str]:
    """What is not as it must be."""
    late_s = found["not_taken_sent_before_s"]
    return [
        *found["wrong"],
        *([f"accepted and not answered: {found['lost']}"] if found["lost"] else []),
        *([f"not read in {late_s} s"] if late_s > _ON_ITS_WAY_S else []),
        *([f"memory grew by {found['growth_mb']} MB"] if found["growth_mb"] > growth_mb else []),
        *([f"exit code {found['exit_code']}"] if found["exit_code"] else []),
        *([f"ended after {found['ended_s']} s"] if found["ended_s"] > DRAIN_S + 2 else []),
        *(["no answers"] if not found["answered"] else []),
        *([f"{found['threads_left']} clients hang"] if found["threads_left"] else []),
    ]


def memory(process: subprocess.Popen[str]) -> dict[str, float]:
    """Memory that a process holds (VmRSS) and held at most (VmHWM), in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    if not found:
        raise HostError("this system does not tell a process's memory")
    return found


def _frame() -> bytes:
    return masked_frame(pack(droid_observation(np.zeros(7), 0.5, "go", image=IMAGE)))


def _vanish(plain: socket.socket) -> None:
    plain.sendall(_frame())


def _half(plain: socket.socket) -> None:
    plain.sendall(_frame()[:300_000])


def _noise(plain: socket.socket) -> None:
    plain.sendall(masked_frame(np.random.RandomState(int(time.monotonic() * 1e3) % 2**31).bytes(70_000)))
    plain.recv(4096)


def _too_large(plain: socket.socket) -> None:
    plain.sendall(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4))
    plain.recv(4096)


def _stall(plain: socket.socket) -> None:
    plain.sendall(_frame())
    time.sleep(0.5)


def _no_http(plain: socket.socket) -> None:
    plain.sendall(b"\x16\x03\x01\x02\x00 no request\r\n\r\n")
    plain.recv(4096)
