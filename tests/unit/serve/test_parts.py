"""Small parts of the server: turns, rates, tokens, options, words to the service manager, metrics."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from motedge.errors import HostError, MotedgeError, UsageError
from motedge.serve.access import check_exposure, is_authorised, is_loopback, tls_context
from motedge.serve.metadata import contract_difference
from motedge.serve.metrics import ServeMetrics
from motedge.serve.options import ServeOptions
from motedge.serve.rate_limit import RateLimit
from motedge.serve.service_manager import READY, notify, watchdog_s
from motedge.serve.waiting_room import RoomFullError, WaitingRoom

ROOT = Path(__file__).resolve().parents[3]


@given(
    st.lists(st.tuples(st.sampled_from(["put", "take", "forget"]), st.integers(0, 5)), max_size=60), st.integers(1, 4)
)
def test_the_waiting_room_keeps_order_and_the_newest(steps: list[tuple[str, int]], capacity: int) -> None:
    room: WaitingRoom[Any] = WaitingRoom(capacity)
    # The same by hand: clients in order, and each one's newest
    order: list[int] = []
    newest: dict[int, int] = {}
    for number, (what, client) in enumerate(steps):
        if what == "put":
            request = SimpleNamespace(client=client, number=number)
            if client in newest:
                assert room.put(request).number == newest[client]
            elif len(order) == capacity:
                with pytest.raises(RoomFullError):
                    room.put(request)
                continue
            else:
                assert room.put(request) is None
                order.append(client)
            newest[client] = number
        elif what == "take":
            taken = room.take()
            assert (taken is None) == (not order)
            if taken is not None:
                assert taken.client == order.pop(0) and taken.number == newest.pop(taken.client)
        else:
            gone = room.forget(client)
            assert (gone is None) == (client not in newest)
            if gone is not None:
                order.remove(client)
                del newest[client]
        assert len(room) == len(order)
    assert [request.client for request in room.empty()] == order and len(room) == 0


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_no_more_than_the_rate_come_through(gaps_s: list[float]) -> None:
    rate_hz, burst, now_s = 10.0, 3, 100.0
    limit, allowed = RateLimit(rate_hz, burst, now_s), 0
    for gap_s in gaps_s:
        now_s += gap_s
        allowed += limit.allows(now_s)
    assert allowed <= burst + rate_hz * (now_s - 100.0) + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    limit = RateLimit(10.0, 1, 100.0)
    assert limit.allows(100.0) and not limit.allows(50.0) and limit.allows(60.0)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.5.5.5", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.2", False), ("robot", False), ("", False)),
    ],
)
def test_addresses(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        check_exposure(ServeOptions(host=host))
    else:
        with pytest.raises(UsageError, match="needs a token"):
            check_exposure(ServeOptions(host=host))
        check_exposure(ServeOptions(host=host, token="a" * 20))


@given(st.text(max_size=40))
def test_no_other_header_is_the_token(header: str) -> None:
    token = "the-token-of-this-test"
    good = header.partition(" ")[0].lower() in ("bearer", "api-key") and header.partition(" ")[2].strip() == token
    assert is_authorised(header, token) == good
    assert is_authorised(header, None) and is_authorised(f"Bearer {token}", token)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"port": -1}, {"port": 70000}, {"waiting": 0}, {"waiting": True}, {"drain_s": 0}),
        *({"stall_s": float("nan")}, {"tls_cert": "x"}, {"message_bytes": 1.5}, {"rate_hz": float("inf")}),
    ],
)
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ServeOptions(**wrong)


def test_certificates_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("no certificate")
    for name in ("a.pem", "none.pem"):
        file = str(tmp_path / name)
        with pytest.raises(HostError, match="can't be used") as caught:
            tls_context(ServeOptions(tls_cert=file, tls_key=file))
        assert file in caught.value.got and "openssl req" in caught.value.fix
    # OpenSSL says of neither that it is this one
    with pytest.raises(HostError, match="--tls-key") as caught:
        tls_context(ServeOptions(tls_cert=str(tmp_path / "a.pem"), tls_key=str(tmp_path / "none.pem")))
    assert caught.value.got == f"{tmp_path / 'none.pem'}: No such file or directory"
    with pytest.raises(UsageError, match="--tls-key FILE beside it"):
        ServeOptions(tls_cert="a.pem")
    assert tls_context(ServeOptions()) is None


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    address = f"\0motedge-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        notify(READY)
        assert listener.recv(100) == b"READY=1"
    # Nobody listens any more: nothing happens
    notify(READY)
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(READY)


@pytest.mark.parametrize(
    ("usec", "pid", "expected"), [("30000000", None, 15.0), ("30000000", "1", None), ("x", None, None)]
)
def test_the_watchdog_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_s() == expected


def test_the_unit_names_what_there_is() -> None:
    """What the unit runs is what the command takes."""
    from motedge.cli.main import build_parser

    unit = (ROOT / "packaging/motedge-serve.service").read_text(encoding="utf-8")
    assert "Type=notify" in unit and "ExecReload=/bin/kill -HUP $MAINPID" in unit
    (options,) = (line.split("=", 2)[2].strip('"') for line in unit.splitlines() if "SERVE_OPTIONS=--" in line)
    args = build_parser().parse_args(["serve", "/opt/motedge/current", *options.split()])
    assert args.engine == "tensorrt" and args.deadline_ms == 150


def test_metrics_are_prometheus() -> None:
    metrics = ServeMetrics()
    metrics.request(None, met=False, held=True)
    metrics.request("dropped", met=None)
    metrics.stages({"infer_ms": 12.0, "total": 20.0})
    metrics.chat("stop")
    metrics.refused("token")
    metrics.watch("clients", "Robots", lambda: 3.0)
    text, content_type = metrics.text()
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert content_type.startswith("text/plain") and all(name.startswith("motedge_") for name in families)
    values = {(s.name, *s.labels.values()): s.value for family in families.values() for s in family.samples}
    assert values["motedge_requests_total", "answered"] == values["motedge_requests_total", "dropped"] == 1
    assert values["motedge_deadlines_missed_total",] == values["motedge_held_chunks_total",] == 1
    assert values["motedge_stage_seconds_sum", "infer"] == pytest.approx(0.012)
    assert values["motedge_clients",] == 3
    # Two servers of one process don't share theirs
    assert b'outcome="answered"} 0.0' in ServeMetrics().text()[0]


def test_what_a_reload_may_not_change() -> None:
    old = {"embodiment": "droid_lerobot", "rate_hz": 15.0, "bundle_sha256": "a"}
    assert contract_difference(old, {**old, "bundle_sha256": "b"}) == ""
    assert contract_difference(old, {**old, "rate_hz": 5.0}) == "rate_hz 15.0 -> 5.0"
    # A vehicle's client sends what the first bundle asked for, and the next one would refuse it
    old = {"image_size": [96, 96], "observation_keys": ["observation/image", "prompt"]}
    assert contract_difference(old, {**old, "image_size": [192, 96]}) == "image_size [96, 96] -> [192, 96]"
    assert contract_difference(old, {**old, "observation_keys": ["prompt"]}).startswith("observation_keys [")
    assert issubclass(RoomFullError, MotedgeError)


@pytest.mark.skipif(sys.platform != "linux", reason="counts Linux's page faults")
def test_what_messages_leave_behind_is_kept() -> None:
    """In a process of its own: the C library can't be told to forget it again."""
    program = (
        "import resource, sys\n"
        "from motedge.serve.allocator import keep_freed_memory\n"
        "print(int(keep_freed_memory()))\n"
        "def work():\n"
        "    for _ in range(100):\n"
        "        blocks = [bytes(1_100_000) + b'x' for _ in range(3)]\n"
        "        del blocks\n"
        "work()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "work()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    kept, faults = (
        int(word)
        for word in subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert faults < 100
