"""What the log says of a server that is waited for."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from motedge.client import RemoteOptions, RemotePolicy, SimulatedClock
from motedge.client.clock import Clock
from motedge.client.remote_errors import ConnectionFailedError
from motedge.client.waiting import Waiting, cause_of


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{bound.getsockname()[1]}"


def wait(url: str, connect_timeout_s: float, clock: Clock) -> None:
    options = RemoteOptions(connect_timeout_s=connect_timeout_s)
    with pytest.raises(ConnectionFailedError, match="no policy server at") as caught:
        RemotePolicy(url, options=options, clock=clock)
    assert "Connection refused" in str(caught.value.got) and "motedge serve" in str(caught.value.fix)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_who_waits_is_told_why_and_for_how_long(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    wait(nobody, 100.0, SimulatedClock())
    lines = said(caplog)
    left_s = []
    for line in lines:
        found = re.fullmatch(rf"waiting for {nobody}: connection refused; up to (\d+) s", line)
        assert found, line
        left_s.append(int(found.group(1)))
    # The first after about 2 s, then every 30 s at most, however often is tried
    assert len(lines) == 4 and 97 <= left_s[0] <= 99
    assert all(30 <= before - after <= 33 for before, after in zip(left_s, left_s[1:]))


def test_a_short_wait_says_nothing(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    wait(nobody, 1.0, SimulatedClock())
    assert not said(caplog)


def test_one_wait_after_the_other_says_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """As a robot's loop makes them that asks again and again."""
    clock = SimulatedClock()
    waiting = Waiting("ws://robot:8000", clock)
    for _ in range(12):
        waiting.begin(clock.now_s() + 5.0)
        for _ in range(5):
            waiting.go_on("connection refused")
            clock.sleep(1.0)
    assert said(caplog) == ["waiting for ws://robot:8000: connection refused; up to 3 s"] * 2


def test_a_server_that_takes_the_connection_and_says_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that loads its engines."""
    from serve_scene import MadeResident, served

    for name in ("connection._LOOK_S", "waiting.FIRST_S"):
        monkeypatch.setattr(f"motedge.client.{name}", 0.05)
    loaded = threading.Event()

    def load(number: int) -> MadeResident:
        loaded.wait(10)
        return MadeResident()

    timer = threading.Timer(0.5, loaded.set)
    timer.start()
    with served(load, wait=False) as running, RemotePolicy(running.url, options=RemoteOptions(connect_timeout_s=10.0)):
        lines = [line for line in said(caplog) if line.startswith("waiting for")]
    timer.join()
    assert (
        len(lines) == 1 and "connected, but it says nothing yet; a server that loads does not; up to 10 s" in lines[0]
    )


def test_causes_in_words() -> None:
    assert cause_of(ConnectionRefusedError(111, "Connection refused")) == "connection refused"
    assert cause_of(TimeoutError("timed out")) == "timed out" and cause_of(TimeoutError()) == "TimeoutError"
