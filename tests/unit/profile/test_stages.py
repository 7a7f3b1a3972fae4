"""Stages from spans, on the host and on a GPU."""

from __future__ import annotations

import pytest

from motedge.profile.span_recorder import DEVICE, Recorded, SpanRecorder, span_cost_us
from motedge.profile.stages import graph_times, in_order, stage_times, step_of
from motedge.runtime.spans import device_span, listening, span


def test_on_the_host_each_step_is_told() -> None:
    inner = [
        Recorded("ingest", 0.0, 0.002, 1),
        Recorded("vae_encoder", 0.002, 0.012, 1),
        Recorded("step 0 cond", 0.012, 0.052, 1),
        Recorded("step 0 uncond", 0.052, 0.082, 1),
        Recorded("step 0 solver", 0.082, 0.083, 1),
        Recorded("step 10 cond", 0.083, 0.093, 1),
    ]
    stages = stage_times([Recorded("tick", 0.0, 0.1, 0), *inner])
    assert stages["tick"] == pytest.approx(100)
    assert stages["denoise"] == pytest.approx(81)
    assert stages["between stages"] == pytest.approx(7)
    assert stages["host"] == pytest.approx(100 - 10 - 40 - 30 - 10)
    assert list(stages)[:6] == [
        "ingest",
        "vae_encoder",
        "step 0 cond",
        "step 0 uncond",
        "step 0 solver",
        "step 10 cond",
    ]
    assert list(stages)[-1] == "tick"


def test_on_a_gpu_its_own_clock_counts() -> None:
    spans = [
        Recorded("tick", 0.0, 0.1, 0),
        Recorded("enqueue", 0.0, 0.01, 1),
        Recorded("wait", 0.01, 0.095, 1),
        Recorded("vae_encoder", 0.005, 0.015, 0, DEVICE),
        Recorded("denoise", 0.015, 0.095, 0, DEVICE),
    ]
    stages = stage_times(spans)
    assert stages["GPU denoise"] == pytest.approx(80) and stages["GPU vae_encoder"] == pytest.approx(10)
    assert stages["host"] == pytest.approx(10) and stages["between stages"] == pytest.approx(5)
    assert "denoise" not in stages
    assert graph_times(stages, 5, 0)["gen_step"] == pytest.approx([16.0] * 5)


def test_runs_of_graphs() -> None:
    stages = {"vae_encoder": 10.0, "prefill": 8.0, "step 0 cond": 30.0, "step 1 cond": 0.01, "tick": 60.0}
    assert graph_times(stages, 1, 2) == {"vae_encoder": [10.0], "gen_step": [30.0], "und_prefill": [4.0, 4.0]}
    assert "und_prefill" not in graph_times(stages, 1, 0)


def test_order_and_unknown_stages() -> None:
    names = ["tick", "decode", "step 1 solver", "step 1 cond", "odd", "tokenize"]
    assert in_order(names) == ["tokenize", "step 1 cond", "step 1 solver", "odd", "decode", "tick"]
    assert step_of("step 12 uncond") == (12, "uncond") and step_of("step x cond") is None


def test_recorder_keeps_depth_order_and_device_times() -> None:
    recorder = SpanRecorder()
    with listening(recorder), span("tick"):
        with span("ingest"), span("within"):
            pass
        with span("wait"):
            pass
        device_span("denoise", -3.0, 0.0)
    spans = recorder.take()
    assert [(s.name, s.depth) for s in spans if s.track != DEVICE] == [
        ("tick", 0),
        ("ingest", 1),
        ("within", 2),
        ("wait", 1),
    ]
    wait = next(s for s in spans if s.name == "wait")
    device = next(s for s in spans if s.track == DEVICE)
    assert device.end_s == wait.end_s and device.ms == pytest.approx(3.0)
    assert recorder.take() == ()


def test_a_tick_that_failed_leaves_nothing_open() -> None:
    recorder = SpanRecorder()
    with listening(recorder):
        recorder.begin("tick")
    assert recorder.take() == ()
    with listening(recorder), span("tick"):
        pass
    assert [s.depth for s in recorder.take()] == [0]


def test_nvtx_is_told_too() -> None:
    told: list[str] = []

    class Nvtx:
        push_range = staticmethod(told.append)
        pop_range = staticmethod(lambda: told.append("pop"))

    with listening(SpanRecorder(Nvtx)), span("tick"):
        pass
    assert told == ["motedge: tick", "pop"]


def test_a_span_costs_microseconds() -> None:
    assert 0 < span_cost_us(200) < 200
