"""The policy server as its clients see it: the protocol, errors, access, over real sockets on loopback."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve_scene import DescribedClient, MadeResident, observation, served, until

from motedge.errors import HostError, ObservationError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Of /metrics: name and labels -> value."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_client_by_the_description_gets_a_thousand_answers() -> None:
    with served(rate_hz=1e6, burst=100) as running, DescribedClient(running.url) as client:
        assert client.metadata["schema"] == "motedge.policy_server/v1" and client.metadata["action_rows"] == 4
        for number in range(1000):
            answer = client.infer(observation(number / 1000))
            assert answer["actions"].shape == (4, 8) and answer["actions"].dtype == np.float32
            np.testing.assert_array_equal(answer["actions"][:, :7], np.float32(number / 1000))
            assert answer["server_timing"]["infer_ms"] >= 0
            assert ("prev_total_ms" in answer["server_timing"]) == (number > 0)
        found = samples(running.get("/metrics")[1])
    assert found["motedge_requests_total", ("answered",)] == 1000
    assert found["motedge_requests_total", ("dropped",)] == 0
    for stage in ("decode", "queue", "infer", "encode", "total", "policy_vae"):
        assert found["motedge_stage_seconds_count", (stage,)] == 1000
    assert found["motedge_clients", ()] == 1 and found["motedge_ready", ()] == 1


def test_the_openpi_client_gets_a_thousand_answers() -> None:
    openpi = pytest.importorskip("openpi_client.websocket_client_policy", reason="openpi-client is not installed")
    with served(rate_hz=1e6, burst=100, token="a token of some length") as running:
        policy = openpi.WebsocketClientPolicy("127.0.0.1", running.server.port, api_key="a token of some length")
        assert policy.get_server_metadata()["embodiment"] == "droid_lerobot"
        for number in range(1000):
            answer = policy.infer(observation(number / 1000))
            np.testing.assert_array_equal(answer["actions"][:, :7], np.float32(number / 1000))
        with pytest.raises(RuntimeError, match="joint state has the wrong length"):
            policy.infer(observation(**{"observation/joint_position": np.zeros(6)}))
        assert policy.infer(observation(0.5))["actions"].shape == (4, 8)


@pytest.mark.parametrize("request_id", [None, 7, "a"])
def test_an_error_is_told_and_the_conversation_goes_on(request_id: Any) -> None:
    bad = observation(**{"observation/gripper_position": 7.0, "motedge/request_id": request_id})
    with served() as running, DescribedClient(running.url) as client:
        answer = client.infer(bad)
        if request_id is None:
            assert answer.startswith("[observation] the gripper state is out of range\n  expected:")
        else:
            assert answer["motedge/request_id"] == request_id and answer["error"]["code"] == "observation"
            assert "out of range" in answer["error"]["text"]
        assert "Traceback" not in str(answer)
        assert client.infer(observation())["actions"].shape == (4, 8)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt": None}, "no 'prompt'"),
        ({"observation/joint_position": None}, "no 'observation/joint_position'"),
        ({"observation/wrist_image_left": None, "observation/exterior_image_1_left": None}, "no 'observation/image'"),
        ({"observation/image": np.zeros((540, 640, 3), np.uint8)}, "composed image and cameras"),
        ({"observation/wrist_image_left": np.zeros((3, 36, 64), np.uint8)}, "channels come last"),
        ({"observation/wrist_image_left": np.zeros((5000, 5000, 3), np.uint8)}, "too large"),
        ({"observation/exterior_image_0_left": 1, "observation/exterior_image_2_left": 1}, "counted from 0 and from 1"),
        ({"observation/joint_position": [None, []]}, "[observation]"),
        ({"prompt": " "}, "instruction is empty"),
        ({"observation/joint_position": np.full(7, np.nan)}, "NaN or infinity"),
        ({"motedge/deadlin_ms": 3}, "did you mean 'motedge/deadline_ms'"),
        ({"motedge/deadline_ms": -3}, "no deadline"),
        ({"motedge/seed": 2**32}, "no seed"),
        ({"motedge/committed": "x"}, "no array"),
    ],
)
def test_what_is_wrong_with_an_observation_is_said(changes: dict[str, Any], told: str) -> None:
    with served(message_bytes=128 << 20) as running, DescribedClient(running.url) as client:
        answer = client.infer(observation(**changes))
        assert isinstance(answer, str) and told in answer


def test_a_message_that_breaks_its_reader_is_answered_and_the_next_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as running, DescribedClient(running.url) as client:
        monkeypatch.setattr("motedge.serve.policy_socket.request_from_message", lambda *given: 1 / 0)
        answer = client.infer(observation(**{"motedge/request_id": 7}))
        assert answer["motedge/request_id"] == 7 and answer["error"]["code"] == "failed"
        assert "bug" in answer["error"]["text"] and "Zero" not in answer["error"]["text"]
        monkeypatch.undo()
        assert client.infer(observation())["actions"].shape == (4, 8)


def test_cameras_have_the_names_that_clients_use() -> None:
    resident = MadeResident()
    first, second = np.full((36, 64, 3), 1, np.uint8), np.full((36, 64, 3), 2, np.uint8)
    left, right, zero = (f"observation/exterior_image_{number}_left" for number in (1, 2, 0))
    composed = {
        "observation/image": np.zeros((540, 640, 3), np.uint8),
        left: None,
        "observation/wrist_image_left": None,
    }
    with served(resident) as running, DescribedClient(running.url) as client:
        for changes in ({left: first, right: second}, {zero: first, left: second}, {left: first}, composed):
            assert client.infer(observation(**changes, session_id="x"))["actions"].shape == (4, 8)
        # As RoboLab and simulators have them: one state in a sequence, double precision
        client.infer(
            observation(**{"observation/joint_position": np.zeros((1, 7)), "observation/gripper_position": 0.5})
        )
    openpi, roboarena, one, whole, state = (request.observation for request in resident.requests)
    assert [openpi.views[name][0, 0, 0] for name in ("wrist", "left", "right")] == [0, 1, 2]
    assert [roboarena.views[name][0, 0, 0] for name in ("wrist", "left", "right")] == [0, 1, 2]
    assert sorted(one.views) == ["left", "wrist"]
    assert whole.image.shape == (540, 640, 3) and whole.views is None
    assert state.gripper_position == 0.5 and state.joint_position.shape == (7,)


def test_the_newest_observation_wins_and_answers_keep_their_order() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(10))
    with served(resident) as running, DescribedClient(running.url) as client:
        for number in range(5):
            client.send(observation(number / 10, **{"motedge/request_id": number}))
            until(lambda: len(resident.requests) == 1)
        waiting = running.server.room.gpu._room._waiting
        until(lambda: [job.request.request_id for job in waiting.values()] == [4])
        go.set()
        answers = [client.receive() for _ in range(5)]
    assert [answer["motedge/request_id"] for answer in answers] == [0, 1, 2, 3, 4]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, "dropped", "dropped", "dropped", None]
    assert [request.request_id for request in resident.requests] == [0, 4]
    np.testing.assert_array_equal(answers[4]["actions"][:, 0], np.float32(0.4))


def test_many_clients_get_their_own_answers() -> None:
    def ask(url: str, number: int, wrong: list[Any]) -> None:
        with DescribedClient(url) as client:
            for round_ in range(20):
                value = number + round_ / 100
                answer = client.infer(observation(value / 10, **{"motedge/request_id": f"{number}-{round_}"}))
                if answer["motedge/request_id"] != f"{number}-{round_}" or answer["actions"][0, 0] != np.float32(
                    value / 10
                ):
                    wrong.append(answer)

    wrong: list[Any] = []
    with served(waiting=8, rate_hz=1e6) as running:
        threads = [threading.Thread(target=ask, args=(running.url, number, wrong)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert not wrong


def test_no_more_wait_than_may() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(10))
    with (
        served(resident, waiting=1) as running,
        DescribedClient(running.url) as one,
        DescribedClient(running.url) as two,
        DescribedClient(running.url) as three,
    ):
        one.send(observation())
        until(lambda: len(resident.requests) == 1)
        two.send(observation())
        until(lambda: running.server.room.gpu.waiting == 1)
        assert three.infer(observation()).startswith("[busy] too many clients ask at once")
        go.set()
        assert one.receive()["actions"].shape == two.receive()["actions"].shape == (4, 8)


def test_who_asks_too_often_is_told() -> None:
    with served(rate_hz=0.01, burst=3) as running, DescribedClient(running.url) as client:
        answers = [client.infer(observation()) for _ in range(4)]
    assert [isinstance(answer, str) for answer in answers] == [False, False, False, True]
    assert answers[3].startswith("[rate] too many observations\n  expected: at most 0.01 a second, 3 at once")


def test_deadlines_are_kept_or_told() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(10))
    with served(resident) as running, DescribedClient(running.url) as one, DescribedClient(running.url) as two:
        one.send(observation(**{"motedge/deadline_ms": 5}))
        until(lambda: len(resident.requests) == 1)
        two.send(observation(**{"motedge/deadline_ms": 5}))
        time.sleep(0.03)
        go.set()
        late, passed = one.receive(), two.receive()
        assert late["deadline"] == {"met": False}
        assert passed.startswith("[deadline] the deadline passed before the request's turn")
        assert two.infer(observation(**{"motedge/deadline_ms": 5000}))["deadline"] == {"met": True}
        assert "deadline" not in two.infer(observation())
        found = samples(running.get("/metrics")[1])
    assert found["motedge_deadlines_missed_total", ()] == 2
    assert found["motedge_requests_total", ("deadline",)] == 1


def test_errors_of_the_policy_are_told_and_bugs_are_not_shown() -> None:
    troubles = [ObservationError("too long a prompt"), HostError("no memory"), ZeroDivisionError("/secret/path"), None]

    def work(request: Any) -> None:
        trouble = troubles.pop(0)
        if trouble is not None:
            raise trouble

    with served(MadeResident(work=work)) as running, DescribedClient(running.url) as client:
        assert client.infer(observation()) == "[observation] too long a prompt"
        assert client.infer(observation()) == "[failed] no memory"
        answer = client.infer(observation())
        assert answer.startswith("[failed] the policy failed") and "secret" not in answer and "Zero" not in answer
        assert client.infer(observation())["actions"].shape == (4, 8)


def test_a_policy_that_fails_again_and_again_is_not_healthy() -> None:
    troubles = [HostError("no memory")] * 3

    def work(request: Any) -> None:
        if troubles:
            raise troubles.pop()

    with served(MadeResident(work=work)) as running, DescribedClient(running.url) as client:
        for _ in range(3):
            client.infer(observation())
        assert running.get("/healthz") == (503, "failing: see the log\n")
        client.infer(observation())
        assert running.get("/healthz") == (200, "OK\n")


def test_a_tick_that_hangs_is_not_healthy() -> None:
    go = threading.Event()
    resident = MadeResident(work=lambda request: go.wait(10))
    with served(resident, stall_s=0.05) as running, DescribedClient(running.url) as client:
        client.send(observation())
        until(lambda: running.get("/healthz")[0] == 503)
        assert running.get("/healthz")[1].startswith("stalled")
        go.set()
        client.receive()
        assert running.get("/healthz")[0] == 200


def test_thinking_goes_on_between_ticks() -> None:
    resident = MadeResident()
    with served(resident) as running, DescribedClient(running.url) as client:
        client.infer(observation())
        until(lambda: resident.thoughts == 3)


def test_an_address_beyond_this_machine_needs_a_token() -> None:
    with pytest.raises(UsageError, match="needs a token"), served(host="0.0.0.0"):
        pass


def test_an_address_that_is_taken() -> None:
    with served() as running, pytest.raises(HostError, match="no server can listen"):
        from serve_scene import Served

        from motedge.serve.options import ServeOptions

        Served(lambda number: MadeResident(), ServeOptions(port=running.server.port))


def test_the_pages_blocks_run() -> None:
    def observe() -> dict[str, Any]:
        return observation(0.25)

    resident = MadeResident()
    resident.metadata["action_rows"] = 32
    pages = [(page, (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")) for page in ("client", "serve")]
    programs = {page: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for page, text in pages}
    with served(resident) as running:
        for program in (programs["client"][1], programs["serve"][0]):
            local = re.sub(r"ws://[0-9.]+:8000", running.url, program)
            assert local != program
            exec(local, {"token": None, "observe": observe})
    assert len(resident.requests) >= 1
