"""Taking ticks of a scripted policy: phases, pace, what keeps quiet, and what an end before the end leaves."""

from __future__ import annotations

import time

import numpy as np
import pytest
from droid_vectors import make_image
from profiled_policy import ScriptedPolicy

from motedge.errors import ObservationError, UsageError
from motedge.profile.measure import Measurer, other_instructions
from motedge.profile.measurement import ENERGY, FIRST, IDLE, NEW_PROMPT, STEPS, WARM, WARMUP, Measurement
from motedge.profile.options import ProfileOptions
from motedge.profile.sensors.sampler import Sampler
from motedge.profile.sensors.sensor import GPU, POWER_W, Channel
from motedge.profile.span_recorder import SpanRecorder
from motedge.runtime.policy import Observation

SEEN = Observation(np.zeros(7), 0.25, "open the top drawer", image=make_image("smooth", 2, [540, 640]))


class Power:
    name, part = "fake", GPU

    def __init__(self) -> None:
        self.reads: list[float] = []

    def open(self) -> None:
        pass

    def read(self):
        self.reads.append(time.perf_counter())
        return {Channel("fake", "GPU 0", POWER_W): 30.0}

    def facts(self):
        return {}

    def close(self) -> None:
        pass


def _take(policy: ScriptedPolicy, options: ProfileOptions, *sensors: Power) -> Measurement:
    measured = Measurement(origin_s=time.perf_counter())
    with Sampler(sensors, options.interval_ms) as sampler:
        measured.sensors, measured.parts = sampler.log, sampler.parts
        taker = Measurer(policy, SEEN, measured, sampler, SpanRecorder())
        taker.first()
        taker.warm_up(options.warmup)
        taker.idle(options.idle_s)
        taker.warm(options)
        taker.new_prompts(options.new_prompts)
        taker.energy(options.energy_s)
    return measured


def test_phases_and_what_is_known_of_each_tick() -> None:
    policy = ScriptedPolicy()
    options = ProfileOptions(ticks=6, warmup=2, new_prompts=3, idle_s=0.05, energy_s=0.1, interval_ms=10)
    measured = _take(policy, options, Power())
    counts = {phase: len(measured.of_phase(phase)) for phase in (FIRST, WARMUP, WARM, NEW_PROMPT)}
    assert counts == {FIRST: 1, WARMUP: 2, WARM: 6, NEW_PROMPT: 3}
    assert [name for name, *_ in measured.phases] == [FIRST, WARMUP, IDLE, WARM, NEW_PROMPT, ENERGY]
    assert all(start_s < end_s for _, start_s, end_s in measured.phases)
    tick = measured.of_phase(WARM)[0]
    assert tick.stages_ms["step 0 cond"] >= 2.0 and tick.ms > tick.stages_ms["denoise"] > 3.0
    assert tick.prefills == 0 and measured.ticks[0].prefills == 1
    assert set(tick.graphs_ms) == {"vae_encoder", "gen_step"} and len(tick.graphs_ms["gen_step"]) == 2
    renewed = policy.seen[-3 - len(measured.of_phase(ENERGY)) :][:3]
    assert len(set(renewed)) == 3 and SEEN.instruction not in renewed
    assert measured.chunk["rows"] == 32 and measured.ledger == {"weights of gen_step": 1000}
    assert measured.rss_bytes is None or measured.rss_bytes > 1 << 20


def test_sensors_are_silent_in_warm_ticks_and_read_beside_the_others() -> None:
    sensor = Power()
    options = ProfileOptions(ticks=20, warmup=0, new_prompts=0, idle_s=0.0, energy_s=0.2, interval_ms=2)
    measured = _take(ScriptedPolicy(), options, sensor)
    warm, energy = measured.of_phase(WARM), measured.of_phase(ENERGY)
    assert not any(tick.start_s < read_s < tick.end_s for tick in warm for read_s in sensor.reads)
    assert sum(tick.start_s < read_s < tick.end_s for tick in energy for read_s in sensor.reads) >= 5


def test_without_a_sensor_of_power_there_is_neither_rest_nor_energy() -> None:
    start_s = time.perf_counter()
    measured = _take(ScriptedPolicy(), ProfileOptions(ticks=2, warmup=0, new_prompts=0, idle_s=60, energy_s=60))
    assert time.perf_counter() - start_s < 10
    assert measured.of_phase(ENERGY) == [] and measured.span_of(IDLE) is None
    assert "no sensor here tells of power" in measured.notes[0]


def test_ticks_at_a_pace() -> None:
    options = ProfileOptions(ticks=8, warmup=0, new_prompts=0, energy_s=0, rate_hz=50)
    measured = _take(ScriptedPolicy(), options)
    starts = [tick.start_s for tick in measured.of_phase(WARM)]
    assert np.diff(starts).mean() == pytest.approx(0.02, rel=0.3)
    assert all(tick.late_ms is not None and tick.late_ms >= 0 for tick in measured.of_phase(WARM))
    slow = _take(ScriptedPolicy(), ProfileOptions(ticks=8, warmup=0, new_prompts=0, energy_s=0, rate_hz=1000))
    late = [tick.late_ms for tick in slow.of_phase(WARM)]
    assert late == sorted(late) and late[-1] > 20, "ticks of 5 ms at 1000 Hz fall behind"


def test_a_gpu_tells_its_steps_in_ticks_of_their_own() -> None:
    measured = Measurement(origin_s=0.0)
    with Sampler([], 100) as sampler:
        taker = Measurer(ScriptedPolicy(on_device=True), SEEN, measured, sampler, SpanRecorder())
        taker.first()
        taker.steps()
    told = measured.of_phase(STEPS)
    assert len(told) == 20 and len(measured.of_phase(WARMUP)) == 2
    assert told[0].stages_ms["GPU step 0 cond"] == pytest.approx(0.2)
    assert told[0].graphs_ms["gen_step"] == pytest.approx([0.2, 0.2])
    assert "GPU step 0 cond" not in measured.of_phase(FIRST)[0].stages_ms
    gpu_ms = told[0].stages_ms["GPU denoise"] + told[0].stages_ms["GPU vae_encoder"]
    assert told[0].stages_ms["host"] == pytest.approx(told[0].ms - gpu_ms), "steps are parts of the denoising"
    with Sampler([], 100) as sampler:
        on_host = Measurer(ScriptedPolicy(), SEEN, Measurement(origin_s=0.0), sampler, SpanRecorder())
        on_host.first()
        on_host.steps()


def test_time_is_up() -> None:
    options = ProfileOptions(ticks=10_000, warmup=0, new_prompts=0, energy_s=0, max_s=0.05)
    measured = _take(ScriptedPolicy(), options)
    assert 5 <= len(measured.of_phase(WARM)) < 100
    assert "of 10000 warm ticks within 0.05 s" in measured.notes[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UsageError("odd")])
def test_what_was_measured_stays_when_a_tick_fails(error: BaseException) -> None:
    measured = Measurement(origin_s=0.0)
    with Sampler([], 100) as sampler, pytest.raises(type(error)):
        taker = Measurer(ScriptedPolicy(fail_at=4, error=error), SEEN, measured, sampler, SpanRecorder())
        taker.first()
        taker.warm(ProfileOptions(ticks=10))
    assert len(measured.of_phase(WARM)) == 3 and measured.span_of(WARM) is not None


def test_a_prompt_that_is_too_long_ends_the_new_ones() -> None:
    measured = Measurement(origin_s=0.0)
    policy = ScriptedPolicy(fail_at=1, error=ObservationError("the instruction is too long"))
    with Sampler([], 100) as sampler:
        Measurer(policy, SEEN, measured, sampler, SpanRecorder()).new_prompts(4)
    assert len(measured.of_phase(NEW_PROMPT)) == 1 and "too long" in measured.notes[0]


def test_other_instructions_differ_and_keep_their_length() -> None:
    found = other_instructions("put the red cube away", 6)
    assert len(set(found)) == 6 and "put the red cube away" not in found
    assert all(sorted(words.split()) == sorted(["put", "the", "red", "cube", "away"]) for words in found[:4])
    assert other_instructions("stop", 2) == ["stop 2", "stop 3"]


@pytest.mark.parametrize(
    "wrong",
    [{"ticks": 0}, {"warmup": -1}, {"new_prompts": 1.5}, {"rate_hz": 0.0}, {"deadline_ms": float("nan")},
     {"max_s": float("inf")}, {"interval_ms": 0.5}, {"idle_s": -1.0}, {"energy_s": 1e9}],
)  # fmt: skip
def test_options_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        ProfileOptions(**wrong)  # type: ignore[arg-type]
