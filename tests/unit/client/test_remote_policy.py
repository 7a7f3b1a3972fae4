"""A remote policy: reconnections, timeouts, metadata; and what it is for: a stream of chunks with an envelope."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from socket import SHUT_RDWR
from typing import Any

import numpy as np
import pytest
import websockets.sync.server

from motedge.client import ChunkStream, RemoteOptions, RemotePolicy, StreamOptions, droid_observation
from motedge.client.envelope import ActionEnvelope
from motedge.client.remote_errors import ConnectionFailedError, MetadataError, RemoteError, RemoteTimeoutError
from motedge.client.wire import pack, unpack
from motedge.errors import ObservationError, UsageError

METADATA = {"schema": "motedge.policy_server/v1", "embodiment": "droid_lerobot", "rate_hz": 15.0, "action_rows": 32}
QUICK = RemoteOptions(timeout_s=2.0, connect_timeout_s=2.0, retry_s=0.01)
FIELDS = [*(f"joint_position_{index}" for index in range(7)), "gripper_position"]


def answer_to(message: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = {
        "actions": np.full((32, 8), float(message["observation/joint_position"][0]), np.float32),
        "rate_hz": 15.0,
        "field_names": FIELDS,
        "units": ["rad"] * 8,
        "kind": "fresh",
        "first_row": 0,
        "age_s": 0.01,
        "missing_views": [],
        "server_timing": {"infer_ms": 1.0},
        "timings_ms": {"total_ms": 1.0},
        "generation": 1,
        "motedge/request_id": message["motedge/request_id"],
    }
    return {**answer, **changes}


class MadeServer:
    """Does what it is told to with each connection: a list of functions of (socket, number of the connection)."""

    def __init__(self, port: int = 0) -> None:
        self.metadata: Any = dict(METADATA)
        self.messages: list[dict[str, Any]] = []
        self.connections = 0
        self.script: list[Any] = []
        self.headers: list[Any] = []
        self.open: list[Any] = []
        self.server = websockets.sync.server.serve(self.handle, "127.0.0.1", port, compression=None)
        self.port = self.server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def handle(self, socket: Any) -> None:
        self.connections += 1
        self.open.append(socket)
        self.headers.append(socket.request.headers)
        socket.send(self.metadata if isinstance(self.metadata, str) else pack(self.metadata))
        for data in socket:
            message = unpack(data)
            self.messages.append(message)
            step = (
                self.script.pop(0) if self.script else (lambda socket, message: socket.send(pack(answer_to(message))))
            )
            step(socket, message)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(5)
        # Older releases of websockets leave those that are connected alone
        for socket in self.open:
            socket.close()


@pytest.fixture
def server() -> Iterator[MadeServer]:
    made = MadeServer()
    yield made
    made.close()


def observation(value: float = 0.0) -> dict[str, Any]:
    return droid_observation(np.full(7, value), 0.0, "go", wrist=np.zeros((36, 64, 3), np.uint8))


def hang_up(socket: Any, message: Any) -> None:
    socket.close()


def cut_off(socket: Any, message: Any) -> None:
    """Without a word, as where a cable is pulled."""
    socket.socket.shutdown(SHUT_RDWR)


def test_asks_and_answers(server: MadeServer) -> None:
    with RemotePolicy(server.url, token="secret", expect={"rate_hz": 15, "action_rows": 32}, options=QUICK) as policy:
        chunk = policy.act(observation(0.5), np.zeros((2, 8)), deadline_ms=100, seed=7)
    assert chunk.actions.shape == (32, 8) and chunk.actions[0, 0] == 0.5 and chunk.rate_hz == 15
    assert chunk.server_timing == {"infer_ms": 1.0} and chunk.round_trip_ms > 0 and chunk.generation == 1
    message = server.messages[0]
    assert message["motedge/deadline_ms"] == 100 and message["motedge/seed"] == 7
    assert message["motedge/committed"].shape == (2, 8) and message["prompt"] == "go"
    assert server.headers[0]["Authorization"] == "Bearer secret" and "Origin" not in server.headers[0]


def test_a_lost_connection_is_made_anew_and_the_question_asked_again(server: MadeServer) -> None:
    server.script = [hang_up, cut_off]
    with RemotePolicy(server.url, options=QUICK) as policy:
        assert policy.act(observation(0.25)).actions[0, 0] == 0.25
        assert policy.reconnects == 2 and server.connections == 3
        assert [message["motedge/request_id"] for message in server.messages] == [1, 1, 1]


def test_a_server_that_comes_back_is_found(server: MadeServer) -> None:
    with RemotePolicy(server.url, options=QUICK) as policy:
        policy.act(observation())
        port = server.port
        server.close()
        again: list[MadeServer] = []
        timer = threading.Timer(0.2, lambda: again.append(MadeServer(port)))
        timer.start()
        assert policy.act(observation(0.75)).actions[0, 0] == 0.75
        timer.join()
        again[0].close()


def test_a_server_that_stays_away_is_told_in_time(server: MadeServer) -> None:
    options = RemoteOptions(timeout_s=0.3, connect_timeout_s=2.0, retry_s=0.01)
    with RemotePolicy(server.url, options=options) as policy:
        server.close()
        server.server.socket.close()
        began = time.monotonic()
        with pytest.raises(ConnectionFailedError):
            policy.act(observation())
        assert time.monotonic() - began < 1.5
    with pytest.raises(ConnectionFailedError, match="no policy server at"):
        RemotePolicy("ws://127.0.0.1:9", options=RemoteOptions(connect_timeout_s=0.1, retry_s=0.01))


def test_an_answer_that_is_late_is_never_taken_for_another(server: MadeServer) -> None:
    held: list[Any] = []
    server.script = [
        lambda socket, message: held.append(message),
        lambda socket, message: [socket.send(pack(answer_to(each))) for each in (held[0], message)],
    ]
    with RemotePolicy(server.url, options=RemoteOptions(timeout_s=0.1, connect_timeout_s=2)) as policy:
        with pytest.raises(RemoteTimeoutError):
            policy.act(observation(0.1))
        assert policy.act(observation(0.2)).actions[0, 0] == np.float32(0.2)
        assert policy.late_answers == 1 and policy.reconnects == 0


def test_errors_of_the_server_come_with_their_code(server: MadeServer) -> None:
    error = {"error": {"code": "dropped", "text": "a newer one came"}}
    server.script = [
        lambda socket, message: socket.send(pack({**error, "motedge/request_id": message["motedge/request_id"]})),
        lambda socket, message: socket.send("[unreadable] no msgpack"),
        lambda socket, message: socket.send(pack(answer_to(message, actions=np.zeros(8)))),
        lambda socket, message: socket.send(pack(answer_to(message, **{"motedge/request_id": 99}))),
        lambda socket, message: socket.send(b"\xc1"),
    ]
    with RemotePolicy(server.url, options=QUICK) as policy:
        with pytest.raises(RemoteError, match="a newer one came") as caught:
            policy.act(observation())
        assert caught.value.code == "dropped"
        for match in ("no msgpack", "no chunk of actions", "answered request 99", "can't be read"):
            with pytest.raises(Exception, match=match):
                policy.act(observation())
        assert policy.act(observation()).actions.shape == (32, 8)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({}, "not a motedge policy server"),
        ([1], "not a motedge policy server"),
        ({"schema": "motedge.policy_server/v2"}, "not a motedge policy server"),
        ("go away", "the server refuses: go away"),
        (
            {**METADATA, "rate_hz": 30.0, "embodiment": "umi"},
            "embodiment 'umi', not 'droid_lerobot'; rate_hz 30.0, not 15",
        ),
        ({"schema": METADATA["schema"], "embodiment": "droid_lerobot"}, "has no 'rate_hz'"),
    ],
)
def test_metadata_is_checked(server: MadeServer, metadata: Any, match: str) -> None:
    server.metadata = metadata
    with pytest.raises((MetadataError, RemoteError), match=match):
        RemotePolicy(server.url, expect={"embodiment": "droid_lerobot", "rate_hz": 15}, options=QUICK)


def test_another_policy_after_a_reconnection_is_not_asked(server: MadeServer) -> None:
    def change(socket: Any, message: Any) -> None:
        server.metadata["action_rows"] = 16
        socket.close()

    server.script = [change]
    with RemotePolicy(server.url, expect={"action_rows": 32}, options=QUICK) as policy:
        with pytest.raises(MetadataError, match="action_rows 16, not 32"):
            policy.act(observation())
        server.metadata["action_rows"] = 32
        assert policy.act(observation()).actions.shape == (32, 8)


def test_the_time_of_day_means_nothing(server: MadeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with RemotePolicy(server.url, options=QUICK) as policy:
        for jump_s in (-1e9, 1e9):
            monkeypatch.setattr(time, "time", lambda jump_s=jump_s: jump_s)
            assert 0 < policy.act(observation()).round_trip_ms < 2000


def test_close_ends_a_call_that_waits(server: MadeServer) -> None:
    asked = threading.Event()
    server.script = [lambda socket, message: asked.set()]
    policy = RemotePolicy(server.url, options=QUICK)
    threading.Timer(0.1, lambda: (asked.wait(5), policy.close())).start()
    began = time.monotonic()
    with pytest.raises((ConnectionFailedError, UsageError)):
        policy.act(observation())
    assert time.monotonic() - began < 1.5
    with pytest.raises(UsageError, match="closed"):
        policy.act(observation())
    policy.close()


def test_a_stream_and_an_envelope_on_top(server: MadeServer) -> None:
    """What is in the robot's loop: chunks over the socket, taken apart into actions inside the limits."""
    home = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.0])
    server.script = [hang_up]

    def still(socket: Any, message: Any) -> None:
        rows = np.tile(np.append(message["observation/joint_position"], 0.0).astype(np.float32), (32, 1))
        socket.send(pack(answer_to(message, actions=rows)))

    server.script += [still] * 100
    envelope = ActionEnvelope.for_embodiment("droid_lerobot")
    envelope.reset(np.append(home, 0.0))
    options = StreamOptions(rate_hz=15, horizon=8, prefetch_lead_s=0.2)

    def observe() -> dict[str, Any]:
        return droid_observation(home, 0.0, "go", wrist=np.zeros((36, 64, 3), np.uint8))

    with RemotePolicy(server.url, options=QUICK) as policy, ChunkStream(policy.act, observe, options) as stream:
        stream.wait_first(timeout_s=5)
        for _ in range(12):
            action = stream.next_action()
            assert action.error is None
            command = envelope.apply(action.row, dt_s=1 / 15).action
            np.testing.assert_allclose(command[:7], home, atol=1e-3)
            time.sleep(0.02)
    assert policy.reconnects == 1


def test_bad_input() -> None:
    for value in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError):
            RemoteOptions(timeout_s=value)
    with pytest.raises(UsageError, match="no address"):
        RemotePolicy("http://127.0.0.1", options=QUICK)
    with pytest.raises(ObservationError, match="either cameras or a composed image"):
        droid_observation(np.zeros(7), 0.0, "go")
    with pytest.raises(ObservationError, match="both"):
        droid_observation(np.zeros(7), 0.0, "go", wrist=np.zeros(1, np.uint8), image=np.zeros(1, np.uint8))
