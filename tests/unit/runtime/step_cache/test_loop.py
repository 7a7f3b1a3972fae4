"""The loop with forwards left out: nothing changes where none is, and what comes in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.request import SamplerSettings
from motedge.runtime.step_cache.options import FixedCache, SeaCache
from motedge.runtime.step_cache.sea import SeaIndicator, SeaRule
from motedge.runtime.step_cache.velocities import Extrapolated, Repeated

PLANS: list[dict[str, Any]] = [
    {"steps": 4},
    {"steps": 8, "shift": 10.0, "guidance": 6.0},
    {"steps": 6, "guidance": 1.0},
    {"steps": 6, "guidance_interval": (500, 1001)},
    {"steps": 6, "guidance_interval": (0, 900)},
]


@pytest.fixture
def parts(numpy_engine: Any, tables: Any, model: Any) -> Iterator[tuple[DenoiseLoop, Any]]:
    """Loop and gen engine."""
    gen = numpy_engine("gen_step")
    loop = DenoiseLoop(numpy_engine("und_prefill"), gen, tables, model.config)
    yield loop, gen
    loop.close()


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a.vision, b.vision) and np.array_equal(a.action, b.action)


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("cache", [FixedCache(), FixedCache(every=1), SeaCache(0.0)], ids=str)
def test_a_cache_that_leaves_nothing_out_changes_no_bit(parts: Any, gen_inputs: Any, plan: Any, cache: Any) -> None:
    loop, _ = parts
    plain = loop.run(gen_inputs(), SamplerSettings(**plan))
    cached = loop.run(gen_inputs(), SamplerSettings(**plan, step_cache=cache))
    assert _same(plain, cached)
    assert cached.counters.forwards == plain.counters.forwards
    assert cached.counters.reused == plain.counters.reused == 0


@pytest.mark.capability(mode="step_cache", family="any", backend="onnxruntime", proof="property")
@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("cache", ["every:2", "every:3", "steps:2,3", "cond:1", "uncond:2,3", "sea:0.1", "sea:0.9"])
def test_counts_are_those_of_the_engine(parts: Any, gen_inputs: Any, plan: Any, cache: str) -> None:
    loop, gen = parts
    full = loop.run(gen_inputs(), SamplerSettings(**plan)).counters.forwards
    before = gen.counts["runs"]
    settings = SamplerSettings(**plan, step_cache=cache)
    result = loop.run(gen_inputs(), settings)
    assert gen.counts["runs"] - before == result.counters.forwards
    assert result.counters.forwards + result.counters.reused == full
    if not cache.startswith("sea"):
        assert result.counters.forwards == settings.forwards()
    inputs = gen_inputs()
    assert np.array_equal(result.vision[:, 0], inputs.vision_clean[:, 0])
    assert np.array_equal(result.action[0], inputs.action_clean[0])


def test_a_large_threshold_computes_the_ends_alone(parts: Any, gen_inputs: Any) -> None:
    loop, _ = parts
    result = loop.run(gen_inputs(), SamplerSettings(steps=7, step_cache=SeaCache(1e9)))
    assert [(step.cond_reused, step.uncond_reused) for step in result.timings.steps] == [
        (False, False),
        *[(True, True)] * 5,
        (False, False),
    ]
    assert (result.counters.forwards, result.counters.reused) == (4, 10)


def test_each_run_starts_anew(parts: Any, gen_inputs: Any) -> None:
    loop, _ = parts
    settings = SamplerSettings(steps=9, step_cache="sea:0.3")  # type: ignore[arg-type]
    first = loop.run(gen_inputs(), settings)
    loop.run(gen_inputs(seed=8), SamplerSettings(steps=5, step_cache="every:2"))  # type: ignore[arg-type]
    assert _same(first, loop.run(gen_inputs(), settings))


def test_without_a_frame_to_generate_sea_computes_all(parts: Any, gen_inputs: Any) -> None:
    loop, _ = parts
    inputs = gen_inputs(vision_noisy=np.zeros(3, np.float32))
    result = loop.run(inputs, SamplerSettings(steps=6, step_cache=SeaCache(1e9)))
    assert result.counters.reused == 0
    assert _same(result, loop.run(inputs, SamplerSettings(steps=6)))


class _Line:
    """A branch whose velocities lie on a line in the step's number; one buffer, as an engine has."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self._vision, self._action = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1), np.float32)

    def forward(self, step: int) -> tuple[Any, Any]:
        self.ran.append(step)
        self._vision[...] = 3 + 2 * step
        self._action[...] = 1 - step
        return self._vision, self._action


def test_what_is_extrapolated_is_the_line_through_the_last_two() -> None:
    branch = _Line()

    class Rule(SeaRule):
        def computes(self, step: int, indicator: Any) -> bool:
            return step in (0, 2, 3, 7)

    source = Extrapolated(branch, Rule(0.1, 8), SeaIndicator(np.ones((1, 1, 1, 1), np.float32)), [900.0] * 8)
    seen = [tuple(float(v.item()) for v in source.at(k)) for k in range(8)]
    assert branch.ran == [0, 2, 3, 7]
    # Step 1 has a single one before it, and repeats it
    assert seen == [(3.0, 1.0), (3.0, 1.0)] + [(3.0 + 2 * k, 1.0 - k) for k in range(2, 8)]


def test_what_is_repeated_is_the_last_computed_one() -> None:
    branch = _Line()
    source = Repeated(branch, [True, False, False, True, False])
    assert [float(source.at(k)[0].item()) for k in range(5)] == [3, 3, 3, 9, 9]
    assert branch.ran == [0, 3]
