"""Forwards left out on a (simulated) device: the same as the host's loop, in one graph; what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motedge.runtime.request import SamplerSettings
from motedge.runtime.step_cache.options import FixedCache, SeaCache

PLANS = [
    SamplerSettings(steps=4, step_cache=FixedCache(every=2)),
    SamplerSettings(steps=6, guidance_interval=(500.0, 1001.0), step_cache=FixedCache((2, 5), (1, 2, 4))),
    SamplerSettings(steps=6, guidance_interval=(0.0, 900.0), step_cache=FixedCache(every=3)),
    SamplerSettings(steps=5, guidance=1.0, step_cache=FixedCache((1, 3), (1, 3))),
]


@pytest.mark.capability(mode="step_cache", family="any", backend="onnxruntime-cuda", proof="simulated")
@pytest.mark.capability(mode="step_cache", family="any", backend="tensorrt", proof="simulated")
@pytest.mark.capability(mode="step_cache", family="any", backend="tensorrt-rtx", proof="simulated")
@pytest.mark.parametrize("solver", ["kernel", "graph"])
@pytest.mark.parametrize("settings", PLANS, ids=lambda plan: str(plan.step_cache))
def test_equals_the_host(device_loop: Any, host_loop: Any, gen_inputs: Any, settings: Any, solver: str) -> None:
    scene, host = device_loop(solver=solver), host_loop()
    for tick, seed in enumerate((5, 6, 7)):
        inputs = gen_inputs(seed=seed)
        before = scene.gen.counts["runs"]
        result, expected = scene.run(inputs, settings), host.run(inputs, settings)
        np.testing.assert_allclose(result.action, expected.action, rtol=0, atol=2e-6)
        np.testing.assert_allclose(result.vision, expected.vision, rtol=0, atol=2e-6)
        assert result.counters.forwards == expected.counters.forwards == settings.forwards()
        assert result.counters.reused == expected.counters.reused > 0
        assert result.counters.launch.startswith("piece by piece" if tick == 0 else "one CUDA graph")
        assert scene.gen.counts["runs"] - before == settings.forwards()


def test_rules_have_graphs_of_their_own(device_loop: Any, host_loop: Any, gen_inputs: Any) -> None:
    scene, host = device_loop(), host_loop()
    for cache in (None, FixedCache(every=2), None, FixedCache((1,), (1,)), FixedCache(every=2)):
        settings = SamplerSettings(step_cache=cache)
        for _ in range(2):
            result, expected = scene.run(gen_inputs(), settings), host.run(gen_inputs(), settings)
            np.testing.assert_allclose(result.action, expected.action, rtol=0, atol=2e-6)
    assert len(scene.loop.programs) == 3


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("threshold", [0.0, 0.15, 10.0])
def test_seacache_is_solved_on_the_host(
    device_loop: Any, host_loop: Any, gen_inputs: Any, threshold: float, guidance: float
) -> None:
    settings = SamplerSettings(steps=6, guidance=guidance, step_cache=SeaCache(threshold))
    scene, host = device_loop(), host_loop()
    for seed in range(3):
        before = scene.gen.counts["runs"]
        result, expected = scene.run(gen_inputs(seed=seed), settings), host.run(gen_inputs(seed=seed), settings)
        np.testing.assert_allclose(result.action, expected.action, rtol=0, atol=2e-6)
        np.testing.assert_allclose(result.vision, expected.vision, rtol=0, atol=2e-6)
        assert result.counters.forwards == expected.counters.forwards == scene.gen.counts["runs"] - before
        assert result.counters.reused == expected.counters.reused
        assert result.counters.launch == "step by step: SeaCache looks at the latent before every step"
        assert [step.reused for step in result.timings.steps] == [step.reused for step in expected.timings.steps]
