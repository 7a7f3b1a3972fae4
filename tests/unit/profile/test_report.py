"""profile.json and the files beside it: what they hold, and what is refused when they are read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from droid_vectors import make_image
from profiled_policy import FACTS, ScriptedPolicy, document_of

from motedge.errors import DataError
from motedge.files import write_json
from motedge.profile.chrome_trace import chrome_trace
from motedge.profile.measure import Measurer
from motedge.profile.measurement import WARM, Measurement
from motedge.profile.options import ProfileOptions
from motedge.profile.process_memory import resident_bytes
from motedge.profile.report import load_profile, profile_document
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import CLOCK_MHZ, THROTTLE_COUNT, THROTTLED, Channel
from motedge.profile.span_recorder import SpanRecorder
from motedge.profile.text import profile_lines
from motedge.profile.times_file import exported_times
from motedge.runtime.policy import Observation

SEEN = Observation(np.zeros(7), 0.25, "open the drawer", image=make_image("smooth", 2, [540, 640]))


def _measure(ticks: int = 5, **policy: Any) -> Measurement:
    measured = Measurement(origin_s=time.perf_counter(), load_s=0.1)
    with Sampler([], 100) as sampler:
        taker = Measurer(ScriptedPolicy(**policy), SEEN, measured, sampler, SpanRecorder())
        taker.first()
        taker.warm(ProfileOptions(ticks=ticks))
        taker.new_prompts(2)
    return measured


def test_document_is_json_and_reads_back(tmp_path: Path) -> None:
    document = profile_document(_measure(), ProfileOptions(ticks=5, deadline_ms=1.0), FACTS, None)
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(document, allow_nan=False))
    assert load_profile(file) == load_profile(tmp_path) == json.loads(file.read_text())
    assert document["complete"] and document["deadline"]["missed"] == 5
    assert document["stages"]["tick"]["warm"]["count"] == 5 and document["stages"]["tick"]["warm"]["p99"] is None
    assert document["stages"]["tick"]["first"]["count"] == 1
    assert document["samples"]["phase"].count("warm") == 5
    assert len(document["samples"]["stages_ms"]["tick"]) == len(document["samples"]["phase"]) == 8
    assert document["graphs"]["gen_step"]["count"] == 10
    # The first tick alone runs it
    assert document["graphs"]["und_prefill"]["count"] >= 1


def test_summary_adds_up() -> None:
    document = document_of([10.0] * 20)
    summary = document["summary"]
    assert summary["tick"]["p50"] == pytest.approx(11.6)
    assert summary["chunks_per_s"] == pytest.approx(1000 / 11.6, rel=1e-4)
    assert summary["actions_per_s"] == pytest.approx(32 * 1000 / 11.6, rel=1e-4)
    assert summary["share_of_chunk"] == pytest.approx(0.0116 / (32 / 15), rel=1e-2)
    assert summary["host_ms"] == pytest.approx(0.6) and summary["first_ms"] == pytest.approx(11.6)
    assert document["jitter"]["latency_ms"]["spread"] == pytest.approx(0, abs=1e-6)


def test_lines_name_what_matters() -> None:
    text = "\n".join(profile_lines(document_of([10.0] * 20, stopped="interrupted; phase warm, 20 of 100 warm ticks")))
    for part in ("INCOMPLETE   interrupted", "jetson-agx-thor-t5000", "MAXN", "warm: 20 ticks", "= tick", "chunks/s"):
        assert part in text
    assert "p99 is told from 100 ticks on" in text and "throttling   not known" in text


def test_nothing_measured_still_gives_a_document() -> None:
    document = profile_document(
        Measurement(origin_s=0.0, stopped="interrupted; loading"), ProfileOptions(), FACTS, None
    )
    assert not document["complete"] and document["summary"]["tick"] is None
    assert "no tick was measured" in "\n".join(profile_lines(document))


def test_sensors_in_the_document() -> None:
    measured = _measure(2)
    clock, cap, events = (
        Channel("NVML", "GPU 0", CLOCK_MHZ),
        Channel("NVML", "GPU 0: power cap", THROTTLED),
        Channel("Linux", "events", THROTTLE_COUNT),
    )
    for number in range(4):
        values = {clock: 1000.0 + number, cap: float(number == 3), events: 7.0 + number}
        measured.sensors.samples.append((measured.origin_s + number, values))
    measured.sensors.absent["jtop"] = "not installed"
    document = profile_document(measured, ProfileOptions(), FACTS, None)
    assert document["clocks"]["NVML GPU 0"] == {"min": 1000.0, "max": 1003.0, "last": 1003.0}
    assert document["throttling"] == {"known": True, "seen": {"NVML GPU 0: power cap": 0.25, "Linux events": 3.0}}
    text = "\n".join(profile_lines(document))
    assert "power cap (0.25)" in text and "jtop: not installed" in text and "1000 to 1003 MHz" in text


@pytest.mark.parametrize("on_device", [False, True])
def test_trace_nests_and_starts_at_zero(on_device: bool) -> None:
    measured = _measure(on_device=on_device)
    events = chrome_trace(measured, "motedge test")["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {"motedge test", "phases", "host"} | ({"GPU"} if on_device else set())
    for track in {event["tid"] for event in spans}:
        stack: list[float] = []
        for event in sorted((e for e in spans if e["tid"] == track), key=lambda e: (e["ts"], -e["dur"])):
            while stack and stack[-1] <= event["ts"] + 1e-3:
                stack.pop()
            assert not stack or event["ts"] + event["dur"] <= stack[-1] + 2e-3, event
            stack.append(event["ts"] + event["dur"])
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in spans if event["tid"] != 3)
    assert sum(event["name"] == "tick" for event in spans) == len(measured.ticks)


@pytest.mark.parametrize("on_device", [False, True])
def test_times_as_trtexec_exports_them(on_device: bool) -> None:
    measured = _measure(on_device=on_device)
    times = exported_times(measured.of_phase(WARM))
    keys = {"startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs"}
    assert len(times) == 5 and keys | {"endD2hMs", "h2dMs", "computeMs", "d2hMs", "latencyMs"} == set(times[0])
    for entry, tick in zip(times, measured.of_phase(WARM)):
        assert entry["latencyMs"] == pytest.approx(tick.ms, abs=1e-3)
        assert 0 < entry["computeMs"] < entry["latencyMs"] and entry["h2dMs"] >= 0.5
    assert exported_times([]) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no profile"),
        ("{", "can't be read"),
        ("[]", "is no profile"),
        ('{"schema": "motedge.plan/v1"}', "is no profile"),
        ('{"schema": "motedge.profile/v1"}', "damaged"),
    ],
)
def test_files_that_are_no_profiles(tmp_path: Path, content: str, said: str) -> None:
    if content is not None:
        (tmp_path / "profile.json").write_text(content)
    with pytest.raises(DataError, match=said):
        load_profile(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda s: s.pop("phase"), lambda s: s["stages_ms"]["tick"].pop(), lambda s: s["stages_ms"].update(tick="x")],
)
def test_damaged_samples(tmp_path: Path, damage: Any) -> None:
    document = document_of([1.0] * 3)
    damage(document["samples"])
    (tmp_path / "profile.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="damaged"):
        load_profile(tmp_path)


def test_resident_memory(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    assert resident_bytes(tmp_path / "status") == (1024 * 1024, 2048 * 1024)
    assert resident_bytes(tmp_path / "none") == (None, None)


def test_samples_are_a_line_each(tmp_path: Path) -> None:
    value = {
        "ms": [1.5, None, -2e-7, 3],
        "flags": [True, False],
        "words": ["[\n 1,\n 2\n]", "é"],
        "none": [],
        "nested": [[1, 2], [3]],
        "maps": [{"a": [0]}],
    }
    write_json(tmp_path / "samples.json", value, samples=True)
    text = (tmp_path / "samples.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert '"ms": [1.5, null, -2e-07, 3],\n' in text and '"flags": [true, false],\n' in text
