"""Recording beside a policy: nothing is waited for, and what goes wrong with the disk stays with the recording."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_fakes import make_policy

from motedge.errors import HostError, ObservationError, UsageError
from motedge.runtime.policy.observation import Observation
from motedge.runtime.recorder import RecordedPolicy, RecorderOptions, TickRecorder
from motedge.runtime.recorder.replay import recorded_ticks, replay_tick
from motedge.runtime.recorder.ring_reader import RingReader

SEEN = Observation(np.zeros(7), 0.25, "open the drawer", image=np.full((540, 640, 3), 90, np.uint8))
SESSION = {"bundle": "edge", "manifest_sha256": "a" * 64}


def _ticks(folder: Path) -> list[Any]:
    return list(recorded_ticks(RingReader(folder)))


def test_a_policy_is_recorded_and_replayed(tmp_path: Path) -> None:
    policy, _ = make_policy()
    with RecordedPolicy(policy, TickRecorder(tmp_path, SESSION), policy.settings) as recorded:
        chunks = [recorded.act(SEEN), recorded.act(SEEN, seed=3), recorded.act(SEEN, prompt="another text")]
    assert recorded.recorder.counters.written == 3
    found = _ticks(tmp_path)
    assert [tick.document["number"] for _, tick in found] == [0, 1, 2]
    assert all(session.document["bundle"] == "edge" for session, _ in found)
    assert [tick.document["seed"] for _, tick in found] == [chunk.seed for chunk in chunks]
    again, fakes = make_policy()
    with again:
        outcomes = [replay_tick(again, tick) for _, tick in found]
    assert [outcome.outcome for outcome in outcomes] == ["same"] * 3
    assert [request.seed for request, _ in fakes.loop.requests] == [chunk.seed for chunk in chunks]
    assert fakes.tokenizer.prompts[-1] == "another text"


def test_errors_of_the_policy_come_through(tmp_path: Path) -> None:
    policy, _ = make_policy()
    long = Observation(np.zeros(7), 0.25, "word " * 100, image=SEEN.image)
    with RecordedPolicy(policy, TickRecorder(tmp_path, SESSION), policy.settings) as recorded:
        with pytest.raises(ObservationError):
            recorded.act(long)
        recorded.act(SEEN)
    assert recorded.recorder.counters.written == 1


def test_a_slow_disk_loses_ticks_not_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, _ = make_policy()
    recorder = TickRecorder(tmp_path, SESSION, RecorderOptions(waiting=2))
    go = threading.Event()
    append = recorder._ring.append

    def slow(payload: bytes) -> int:
        go.wait()
        return append(payload)

    monkeypatch.setattr(recorder._ring, "append", slow)
    with policy:
        chunk = policy.act(SEEN)
    start_s = time.perf_counter()
    kept = [recorder.record(SEEN, chunk, policy.settings) for _ in range(10)]
    assert time.perf_counter() - start_s < 2
    assert 2 <= sum(kept) <= 3 and recorder.counters.dropped == 10 - sum(kept)
    with pytest.raises(HostError, match="still being written"):
        recorder.close(0.05)
    go.set()
    recorder.close()
    assert recorder.counters.written == sum(kept)
    assert not recorder.record(SEEN, chunk, policy.settings), "closed"


def test_a_full_disk_ends_the_recording_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, _ = make_policy()
    recorder = TickRecorder(tmp_path, SESSION)

    def full(payload: bytes) -> int:
        raise HostError("the disk is full while writing it")

    monkeypatch.setattr(recorder._ring, "append", full)
    with RecordedPolicy(policy, recorder, policy.settings) as recorded:
        recorded.act(SEEN)
        while recorder.counters.failure is None:
            time.sleep(0.005)
        assert recorded.act(SEEN).kind == "fresh"
    assert "disk is full" in str(recorder.counters.failure)
    assert recorder.counters.written == 0 and recorder.counters.refused == 2


def test_a_tick_too_large_for_the_ring_is_left_out(tmp_path: Path) -> None:
    policy, _ = make_policy()
    noise = np.random.RandomState(0).randint(0, 255, (540, 640, 3), np.uint8)
    large = Observation(np.zeros(7), 0.25, "open", image=noise)
    with RecordedPolicy(
        policy, TickRecorder(tmp_path, SESSION, RecorderOptions(max_bytes=1 << 20)), policy.settings
    ) as r:
        r.act(large)
        r.act(SEEN)
    assert (r.recorder.counters.written, r.recorder.counters.refused) == (1, 1)
    assert r.recorder.counters.failure is None


def test_sessions_survive_the_ring_going_round(tmp_path: Path) -> None:
    policy, _ = make_policy()
    options = RecorderOptions(max_bytes=100_000, waiting=100)
    with RecordedPolicy(policy, TickRecorder(tmp_path, SESSION, options), policy.settings) as recorded:
        for _ in range(20):
            recorded.act(SEEN)
    found = _ticks(tmp_path)
    assert 0 < len(found) < 20 and all(session is not None for session, _ in found)


def test_replays_that_differ_or_can_not_be(tmp_path: Path) -> None:
    policy, _ = make_policy()
    with RecordedPolicy(policy, TickRecorder(tmp_path, SESSION), policy.settings) as recorded:
        recorded.act(SEEN)
    (_, tick), *_ = _ticks(tmp_path)
    again, _ = make_policy()
    with again:
        moved = tick.arrays["actions"].copy()
        moved[3, 2] += 0.5
        outcome = replay_tick(again, type(tick)(tick.kind, tick.document, {**tick.arrays, "actions": moved}))
        assert outcome.outcome == "different" and outcome.largest == pytest.approx(0.5)
        cut = replay_tick(again, type(tick)(tick.kind, tick.document, {**tick.arrays, "actions": moved[:3]}))
        assert cut.outcome == "different" and cut.largest is None and "when recorded" in str(cut.why)
        held = {**tick.document, "reply": {**tick.document["reply"], "kind": "held"}}
        assert "deadline" in str(replay_tick(again, type(tick)(tick.kind, held, tick.arrays)).why)
        broken = {**tick.document, "seed": "x"}
        assert replay_tick(again, type(tick)(tick.kind, broken, tick.arrays)).outcome == "skipped"
        assert replay_tick(again, type(tick)(tick.kind, {}, {})).outcome == "skipped"


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="queue"):
        RecorderOptions(waiting=0)
