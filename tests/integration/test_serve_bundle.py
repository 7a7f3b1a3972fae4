"""A real bundle behind the server: the same actions as without it, deadlines, a reasoner's plan, questions, signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_bundle_scene import ENGINES, STEPS, picture, serving
from serve_scene import DescribedClient, observation, until

from motedge.cli.main import main
from motedge.client import (
    ActionEnvelope,
    ChunkStream,
    MonotonicClock,
    RemoteOptions,
    RemotePolicy,
    StreamOptions,
    droid_observation,
)
from motedge.errors import BundleError, HostError, UsageError
from motedge.runtime.policy import Observation, load_policy
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.serve.bundle_check import check_bundle
from motedge.serve.bundle_choice import BundleChoice
from motedge.serve.bundle_resident import load_resident
from motedge.serve.recording import RecordingChoice


@pytest.fixture(scope="module")
def bundle(reasoned_bundle: Path) -> Path:
    return reasoned_bundle


def test_actions_are_those_of_the_policy_bit_for_bit(bundle: Path) -> None:
    views, joints = {"wrist": picture(1), "left": picture(2), "right": picture(3)}, np.linspace(-1, 1, 7)
    with load_policy(bundle, **ENGINES, **STEPS) as policy:
        expected = [policy.act(Observation(joints, 0.25, "pick up the cup", views=views), seed=seed) for seed in (5, 6)]
        committed = expected[0].actions[:3]
        seen = Observation(joints, 0.25, "pick up the cup", views=views)
        expected.append(policy.act(seen, seed=7, committed=committed))
    want = {"embodiment": "droid_lerobot", "rate_hz": 15, "action_rows": 32, "family": "edge"}
    with serving(bundle) as running, RemotePolicy(running.url, expect=want) as remote:
        sent = droid_observation(joints, 0.25, "pick up the cup", **views)
        got = [remote.act(sent, seed=5), remote.act(sent, seed=6), remote.act(sent, committed, seed=7)]
    for there, here in zip(got, expected):
        np.testing.assert_array_equal(there.actions, here.actions)
        assert there.field_names == here.field_names and there.units == here.units and there.kind == "fresh"
        assert there.missing_views == () and there.age_s > 0
        assert set(here.timings_ms) == set(there.timings_ms)
    assert len(remote.metadata["bundle_sha256"]) == 64


def test_an_instruction_that_is_too_long_is_the_clients_fault(bundle: Path) -> None:
    with serving(bundle) as running, DescribedClient(running.url) as client:
        answer = client.infer(observation(prompt="cup " * 2000))
        assert answer.startswith("[observation]") and "expected:" in answer
        assert client.infer(observation())["actions"].shape == (32, 8)


def test_deadlines_take_cheaper_points_and_hold(bundle: Path) -> None:
    with serving(bundle, deadline_ms=5000.0) as running, DescribedClient(running.url) as client:
        answer = client.infer(observation())
        assert answer["deadline"]["met"] is True and answer["kind"] == "fresh"
        # The cheapest point can't be made in a twentieth of a millisecond
        answer = client.infer(observation(**{"motedge/deadline_ms": 0.05}))
        assert isinstance(answer, str) or answer["kind"] == "held"
        if not isinstance(answer, str):
            assert answer["deadline"]["met"] is False
        until(lambda: client.infer(observation())["kind"] == "fresh")
        with DescribedClient(running.url) as other:
            for _ in range(5):
                answer = other.infer(observation(**{"motedge/deadline_ms": 0.05}))
                # Not what is left of the other robot's chunk
                assert isinstance(answer, str) and answer.startswith("[deadline]")


def test_the_reasoner_writes_the_prompt(bundle: Path) -> None:
    options = ReasonOptions(max_tokens=4, slice_tokens=1)
    with serving(bundle, reason=options) as running, DescribedClient(running.url) as client:
        first = client.infer(observation())
        assert first["reasoning"]["instruction"] == "pick up the cup"
        until(lambda: client.infer(observation())["reasoning"].get("tokens"))
        options = RemoteOptions(connect_timeout_s=0.2, retry_s=0.05)
        with pytest.raises(HostError, match="one at a time"):
            RemotePolicy(running.url, options=options)
        client.socket.close()
        with RemotePolicy(running.url) as other:
            assert other.act(observation()).actions.shape == (32, 8)


def test_what_was_answered_is_recorded_and_replayed_bit_for_bit(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = RecordingChoice(tmp_path / "ring", 10_000_000, "a machine")
    with serving(bundle, recording=recording) as running, DescribedClient(running.url) as client:
        for number in range(3):
            client.infer(observation(number / 10, **{"motedge/request_id": number}))
        client.infer(observation(prompt=" "))
        assert running.get("/reload", post=b"")[0] == 200
        until(lambda: client.infer(observation(0.5))["generation"] == 2)
        committed = {"motedge/committed": np.zeros((2, 8), np.float32), "motedge/seed": 9}
        client.infer(observation(0.6, **committed))
    assert main(["replay", str(tmp_path / "ring"), str(bundle), "--check", "size", "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert len(replayed["ticks"]) >= 5 and {tick["outcome"] for tick in replayed["ticks"]} == {"same"}
    assert len({tick["session"] for tick in replayed["ticks"]}) == 2


def test_a_ring_that_another_has_is_told_at_once(bundle: Path, tmp_path: Path) -> None:
    recording = RecordingChoice(tmp_path / "ring", 10_000_000)
    with serving(bundle, recording=recording), pytest.raises(HostError):
        load_resident(BundleChoice(bundle, engines=ENGINES, recording=recording), 1)


def test_what_does_not_go_together_is_said(bundle: Path) -> None:
    for wrong, match in (
        ({"chat": True, "reason": ReasonOptions()}, "one reply at a time"),
        ({"serve_policy": False}, "nothing to serve"),
        ({"ladder": Path("x")}, "--deadline-ms"),
    ):
        with pytest.raises(UsageError, match=match):
            BundleChoice(bundle, **wrong)
    with pytest.raises(UsageError, match="thinks within its ticks"):
        load_resident(BundleChoice(bundle, engines=ENGINES, reason=ReasonOptions(), deadline_ms=100.0), 1)


# ---------------------------------------------------------------------------------------------- the command


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """`motedge serve` as a process, its port, and the lines of its log."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "motedge", "serve", *arguments, "--port", "0", "--check", "size", "--threads", "1"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)
    lines: list[str] = []

    def read() -> None:
        for line in process.stderr or ():
            lines.append(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        until(lambda: any("listening on" in line for line in lines) or process.poll() is not None, 30)
        ports = [int(found.group(1)) for line in lines if (found := re.search(r"listening on ws://[\d.]+:(\d+)", line))]
        yield process, ports[0] if ports else 0, lines
    finally:
        process.kill()
        process.wait(10)
        reader.join(5)


def test_the_command_serves_reloads_and_ends_under_load(bundle: Path, tmp_path: Path) -> None:
    link, token = tmp_path / "current", tmp_path / "token"
    link.symlink_to(bundle)
    token.write_text("a-secret-of-some-length")
    token.chmod(0o600)
    answers: list[Any] = []
    failed: list[BaseException] = []

    def ask(port: int, stop: threading.Event) -> None:
        options = RemoteOptions(timeout_s=5, connect_timeout_s=60)
        with RemotePolicy(f"ws://127.0.0.1:{port}", token="a-secret-of-some-length", options=options) as remote:
            try:
                while not stop.is_set():
                    answers.append(remote.act(observation()))
            except HostError as error:
                failed.append(error)

    stop = threading.Event()
    with command(str(link), "--steps", "1", "--token-file", str(token)) as (process, port, lines):
        robots = [threading.Thread(target=ask, args=(port, stop)) for _ in range(2)]
        for robot in robots:
            robot.start()
        until(lambda: len(answers) > 5, 30)
        process.send_signal(signal.SIGHUP)
        until(lambda: answers[-1].generation == 2, 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        stop.set()
        for robot in robots:
            robot.join(20)
    assert "[I] ended\n" in lines and not any("Traceback" in line for line in lines)
    # Nothing but the end itself was noticed
    assert len(failed) <= 2 and {answer.kind for answer in answers} == {"fresh"}


def test_the_command_ends_while_it_loads(bundle: Path) -> None:
    with command(str(bundle)) as (process, _, lines):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "[I] ended\n" in lines


def test_a_robots_loop_over_the_socket(bundle: Path) -> None:
    """What runs on a robot: a stream of chunks over the socket, and the envelope behind it, at 15 Hz."""
    home = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.0])
    envelope = ActionEnvelope.for_embodiment("droid_lerobot")
    envelope.reset(np.append(home, 0.0))
    state = home.copy()

    def observe() -> dict[str, Any]:
        return droid_observation(state, 0.0, "pick up the cup", wrist=picture(1), left=picture(2), right=picture(3))

    options, clock = StreamOptions(rate_hz=15, horizon=12, prefetch_lead_s=0.4), MonotonicClock()
    with (
        serving(bundle) as running,
        RemotePolicy(running.url, expect={"rate_hz": 15}) as policy,
        ChunkStream(policy.act, observe, options, clock=clock) as stream,
    ):
        stream.wait_first(timeout_s=10)
        for _ in range(30):
            command = envelope.apply(stream.next_action().row, dt_s=1 / 15).action
            state[:] = command[:7]
            clock.sleep(stream.next_due_s() - clock.now_s())
        counters = stream.report().counters
    assert counters.chunks_used >= 3 and counters.source_errors == counters.chunks_bad == 0
    assert policy.reconnects == 0 and not np.allclose(state, home)


def test_the_example_of_an_arm_drives_against_the_server(bundle: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    with serving(bundle, engines=ENGINES) as running:
        words = [sys.executable, str(root / "examples/remote_arm.py"), "--url", running.url, "--seconds", "2.5"]
        words += ["--horizon", "12", "--lead-s", "0.4"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["connection"] == {"reconnects": 0, "late_answers": 0} and len(report["state"]) == 8
    assert report["stream"]["counters"]["chunks_used"] >= 3 and report["stream"]["counters"]["source_errors"] == 0
    # Nobody there any more
    words += ["--timeout-s", "0.2"]
    gone = [word if word != running.url else "http://127.0.0.1:1" for word in words]
    assert subprocess.run(gone, capture_output=True, text=True, check=False).returncode == 2


def lacking(bundle: Path, folder: Path, *graphs: str) -> Path:
    """A bundle of which there is the manifest alone, without some graphs."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for graph in graphs:
        del manifest["graphs"][graph]
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_command_says_what_is_wrong(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = lacking(bundle, tmp_path / "without", "und", "vision_encoder")
    for arguments, code, match in (
        ([str(tmp_path / "none")], 2, "there is no bundle"),
        ([str(bundle), "--host", "0.0.0.0"], 2, "needs a token"),
        ([str(bundle), "--token-file", str(tmp_path / "none")], 2, "can't be read"),
        ([str(bundle), "--no-policy"], 2, "nothing to serve"),
        ([str(bundle), "--chat", "--reason"], 2, "one reply at a time"),
        ([str(bundle), "--reason-tokens", "3"], 2, "--reason beside it"),
        ([str(bundle), "--tls-cert", "x"], 2, "certificate and its key"),
        ([str(bundle), "--max-waiting", "0"], 2, "1 or more"),
        ([str(tmp_path), "--port", "0"], 2, "manifest.json"),
        ([str(bundle), "--port", "0", "--variant", "fused-fp8"], 2, "fused-fp8"),
        ([str(bundle), "--recipe", "fp8"], 2, "recipe 'fp8'"),
        ([str(bundle), "--embodiment", "droid"], 2, "unknown embodiment 'droid'"),
        ([str(bundle), "--engine", "tensorflow"], 2, "tensorflow"),
        ([str(bundle), "--steps", "0"], 2, "steps"),
        ([str(bundle), "--deadline-ms", "100", "--ladder", str(tmp_path / "none")], 2, "can't be read"),
        ([str(bundle), "--deadline-ms", "100", "--reason"], 2, "thinks within its ticks"),
        ([str(without), "--chat"], 2, "has no reasoner"),
        ([str(without), "--reason"], 2, "has no reasoner"),
    ):
        assert main(["serve", *arguments]) == code, arguments
        told = capsys.readouterr().err
        # Before there is anything to connect to
        assert match in told and "listening" not in told


def test_a_bundle_is_looked_at_before_it_is_loaded(bundle: Path, tmp_path: Path) -> None:
    for choice in ({}, {"chat": True}, {"reason": ReasonOptions()}, {"chat": True, "serve_policy": False}):
        check_bundle(BundleChoice(bundle, engines=ENGINES, policy=STEPS, **choice))
    asked = lacking(bundle, tmp_path / "asked", "gen_step")
    check_bundle(BundleChoice(asked, chat=True, serve_policy=False))
    with pytest.raises(BundleError, match="has no policy") as caught:
        check_bundle(BundleChoice(asked, chat=True))
    assert caught.value.got == "no gen_step" and "--no-policy --chat" in caught.value.fix
    # Engines that a builder made: a packed bundle has nothing to choose a variant from
    check_bundle(BundleChoice(bundle, engines={"engine": "tensorrt", "variant": "fused-fp8"}))
