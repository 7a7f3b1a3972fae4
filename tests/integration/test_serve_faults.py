"""What goes wrong on a vehicle: clients that vanish, halves of messages, wrong tokens, a dead thread, the end."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import websockets.exceptions
import websockets.sync.client
from serve_scene import DescribedClient, MadeResident, encode, observation, served, until

from motedge.errors import HostError, InternalError, MotedgeError
from motedge.serve.access import is_authorised, read_token

TOKEN = "a secret of some length"


def closed_with(client: DescribedClient) -> int:
    """The code of the close frame that comes next, whatever else does before."""
    with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
        while True:
            client.socket.recv(timeout=10)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81", msgpack.packb({"a": 1}) + b"x", b"\xdd\xff\xff\xff\xff"])
def test_what_is_no_message_ends_the_conversation(data: bytes) -> None:
    with served() as running, DescribedClient(running.url) as client:
        client.socket.send(data)
        assert client.receive().startswith("[unreadable] the message can't be read")
        assert closed_with(client) == 1007
        with DescribedClient(running.url) as other:
            assert other.infer(observation())["actions"].shape == (4, 8)


def test_objects_are_refused() -> None:
    array = {b"__ndarray__": True, b"data": b"cos\nsystem\n(S'true'\ntR.", b"dtype": "|O", b"shape": [1]}
    with served() as running, DescribedClient(running.url) as client:
        client.socket.send(msgpack.packb({"prompt": array}))
        assert "not taken" in client.receive()


def test_text_is_refused() -> None:
    with served() as running, DescribedClient(running.url) as client:
        client.socket.send("hello")
        assert client.receive().startswith("[unreadable] observations come as binary messages")
        assert closed_with(client) == 1003


def test_a_message_that_is_too_large_ends_the_conversation() -> None:
    with served(message_bytes=20_000) as running, DescribedClient(running.url) as client:
        assert client.infer(observation())["actions"].shape == (4, 8)
        client.socket.send(bytes(20_001))
        assert closed_with(client) == 1009
        assert running.get("/healthz")[0] == 200


def raw(running: Any, data: bytes) -> socket.socket:
    """A socket on which that was said."""
    plain = socket.create_connection(("127.0.0.1", running.server.port), timeout=10)
    plain.sendall(data)
    return plain


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01"])
def test_who_says_nothing_whole_is_hung_up_on(said: bytes) -> None:
    with served(patience_s=0.1) as running:
        plain = raw(running, said)
        while plain.recv(1000):
            pass
        plain.close()
        assert running.get("/healthz")[0] == 200


def test_halves_of_messages_leave_nothing_behind() -> None:
    whole = msgpack.packb(observation(), default=encode)
    frame = b"\x82\xfe" + len(whole).to_bytes(2, "big") + bytes(4) + whole
    with served() as running:
        for cut in (1, 3, 7, 100, len(frame) - 1):
            plain = raw(running, HANDSHAKE)
            plain.recv(4000)
            plain.sendall(frame[:cut])
            until(lambda: running.server._sockets)
            plain.close()
            until(lambda: not running.server._sockets)
        with DescribedClient(running.url) as client:
            assert client.infer(observation())["actions"].shape == (4, 8)


def test_a_client_that_vanishes_is_not_worked_for() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(10))
    with served(resident) as running, DescribedClient(running.url) as stays:
        stays.send(observation(0.1))
        until(lambda: len(resident.requests) == 1)
        leaves = DescribedClient(running.url)
        leaves.send(observation(0.2))
        until(lambda: running.server.room.gpu.waiting == 1)
        leaves.socket.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: running.server.room.gpu.waiting == 0)
        leaves.socket.close()
        go.set()
        assert stays.receive()["actions"][0, 0] == np.float32(0.1)
        assert stays.infer(observation(0.3))["actions"][0, 0] == np.float32(0.3)
    assert [round(float(request.observation.joint_position[0]), 3) for request in resident.requests] == [0.1, 0.3]


def test_a_client_that_asks_without_end_and_vanishes_leaves_nothing_behind() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(20))
    with served(resident) as running:
        client = DescribedClient(running.url)
        for number in range(40):
            client.send(observation(number / 100))
        until(lambda: len(resident.requests) == 1)
        # As many answers are outstanding as may be: nothing more is read
        (talk,) = running.server._sockets
        until(lambda: talk._room.locked())
        client.socket.socket.shutdown(socket.SHUT_RDWR)
        client.socket.close()
        go.set()
        until(lambda: not running.server._sockets)
        until(lambda: running.server.room.gpu.waiting == 0)
        assert running.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        *(("short", 0o600, "no secret"), ("x" * 40, 0o644, "others may read"), (" \n", 0o600, "is empty")),
        *(("two words of a token", 0o600, "no secret"), ("one-line-of-it\nanother", 0o600, "can't be sent")),
    ],
)
def test_a_token_file_must_hold_a_secret(tmp_path: Path, text: str, mode: int, told: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(MotedgeError, match=told) as caught:
        read_token(file)
    assert caught.value.expected and caught.value.got and str(file) in caught.value.fix
    if mode == 0o600:
        # What it tells to do is right
        subprocess.run(caught.value.fix, shell=True, check=True)
        assert len(read_token(file)) > 30
    file.write_text(f"  {TOKEN.replace(' ', '-')}\n")
    file.chmod(0o600)
    assert is_authorised(f"Bearer {read_token(file)}", read_token(file))
    with pytest.raises(MotedgeError, match="can't be read") as caught:
        read_token(tmp_path / "none")
    assert caught.value.got == "No such file or directory" and "umask 077" in caught.value.fix


def test_a_robot_may_come_before_the_engines_are_loaded() -> None:
    loaded = threading.Event()
    found: list[Any] = []

    def load(number: int) -> MadeResident:
        loaded.wait(10)
        return MadeResident()

    def come(url: str) -> None:
        with DescribedClient(url) as client:
            found.append(client.infer(observation()))

    with served(load, wait=False) as running:
        assert running.get("/healthz") == (503, "loading\n")
        robot = threading.Thread(target=come, args=(running.url,))
        robot.start()
        time.sleep(0.05)
        assert not found
        loaded.set()
        robot.join(10)
        assert found[0]["actions"].shape == (4, 8) and running.get("/healthz")[0] == 200


def test_a_load_that_fails_ends_the_server() -> None:
    def load(number: int) -> Any:
        raise HostError("no GPU")

    with served(load, wait=False) as running:
        running.thread.join(10)
        assert isinstance(running.error, HostError)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_told_to_everyone_and_ends_the_server() -> None:
    go = threading.Event()

    def work(request: Any) -> None:
        go.wait(10)
        raise SystemExit(3)

    with served(MadeResident(work=work)) as running, DescribedClient(running.url) as one:
        two = DescribedClient(running.url)
        one.send(observation())
        until(lambda: running.server.room.gpu.busy_s() > 0)
        two.send(observation())
        until(lambda: running.server.room.gpu.waiting == 1)
        go.set()
        for client in (one, two):
            assert client.receive().startswith("[failed] the thread that runs the policy died")
            assert closed_with(client) == 1001
        running.thread.join(10)
        assert isinstance(running.error, InternalError)


def test_the_end_answers_what_is_under_way() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(10))
    with served(resident) as running, DescribedClient(running.url) as one, DescribedClient(running.url) as two:
        one.send(observation(0.1))
        until(lambda: len(resident.requests) == 1)
        two.send(observation(0.2))
        until(lambda: running.server.room.gpu.waiting == 1)
        running.call(running.server.stop)
        until(lambda: running.server.room.state == "draining")
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", running.server.port), timeout=1).close()
        go.set()
        assert one.receive()["actions"][0, 0] == np.float32(0.1)
        assert two.receive()["actions"][0, 0] == np.float32(0.2)
        assert closed_with(one) == closed_with(two) == 1001
        running.thread.join(10)
        assert not running.thread.is_alive() and running.error is None
    assert resident.closed == 1


def test_the_end_does_not_wait_for_ever() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(20))
    with (
        served(resident, drain_s=0.2) as running,
        DescribedClient(running.url) as one,
        DescribedClient(running.url) as two,
    ):
        one.send(observation())
        until(lambda: len(resident.requests) == 1)
        two.send(observation())
        until(lambda: running.server.room.gpu.waiting == 1)
        running.call(running.server.stop)
        assert two.receive() == "[stopping] the server is about to end"
        running.thread.join(10)
        assert not running.thread.is_alive()
        assert isinstance(running.error, HostError) and "a tick still runs" in str(running.error)
        go.set()


def test_a_reload_drops_nothing() -> None:
    residents: list[MadeResident] = []

    def load(number: int) -> MadeResident:
        residents.append(MadeResident(number, work=lambda request: time.sleep(0.001)))
        return residents[-1]

    stop, answers = threading.Event(), []

    def ask(url: str) -> None:
        with DescribedClient(url) as client:
            while not stop.is_set():
                answers.append(client.infer(observation()))

    with served(load, rate_hz=1e6) as running:
        robots = [threading.Thread(target=ask, args=(running.url,)) for _ in range(3)]
        for robot in robots:
            robot.start()
        until(lambda: len(answers) > 5)
        for number in (2, 3, 4):
            assert running.get("/reload", post=b"") == (200, f"serving bundle number {number}\n")
            until(lambda number=number: running.server.room.gpu.resident.generation == number)
        seen = len(answers)
        until(lambda: len(answers) > seen + 5)
        stop.set()
        for robot in robots:
            robot.join(10)
    assert all(isinstance(answer, dict) for answer in answers)
    assert {answer["generation"] for answer in answers} >= {1, 4}
    assert [resident.closed for resident in residents] == [1, 1, 1, 1]


def test_a_reload_that_fails_changes_nothing() -> None:
    residents: list[MadeResident] = []

    def load(number: int) -> MadeResident:
        if number == 2:
            raise HostError("no room on the GPU")
        residents.append(MadeResident(number))
        if number == 3:
            residents[-1].metadata["rate_hz"] = 30.0
        return residents[-1]

    with served(load) as running, DescribedClient(running.url) as client:
        assert running.get("/reload", post=b"") == (409, "no room on the GPU\n")
        status, text = running.get("/reload", post=b"")
        assert status == 409 and "rate_hz 15.0 -> 30.0" in text
        assert client.infer(observation())["generation"] == 1
        assert [resident.closed for resident in residents] == [0, 1]
        assert 'motedge_reloads_total{outcome="failed"} 2.0' in running.get("/metrics")[1]


def test_nothing_is_left_of_a_thousand_clients() -> None:
    """Tasks, sockets and objects; what a long run leaves is measured by benchmarks/serve_load.py."""
    with served(rate_hz=1e6) as running:

        def visit(count: int) -> None:
            for number in range(count):
                with DescribedClient(running.url) as client:
                    if number % 2:
                        client.infer(observation())

        def tasks() -> int:
            return asyncio.run_coroutine_threadsafe(_tasks(), running.loop).result(10)

        visit(20)
        until(lambda: not running.server._sockets)
        gc.collect()
        before = (tasks(), threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))
        visit(200)
        until(lambda: not running.server._sockets)
        gc.collect()
        until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before[2])
        assert tasks() <= before[0] and threading.active_count() <= before[1]


async def _tasks() -> int:
    return len(asyncio.all_tasks())
