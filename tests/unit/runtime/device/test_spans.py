"""What a loop on a (simulated) device tells of its time: its stages, and each step where that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motedge.runtime.request import SamplerSettings
from motedge.runtime.spans import listening
from motedge.runtime.step_cache.options import FixedCache


class Heard:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.device_spans: list[tuple[str, float, float]] = []

    def begin(self, name: str) -> None:
        self.begun.append(name)

    def end(self, name: str) -> None:
        pass

    def device(self, name: str, start_ms: float, end_ms: float) -> None:
        self.device_spans.append((name, start_ms, end_ms))


def test_stages_of_the_host(device_loop: Any, gen_inputs: Any) -> None:
    scene, heard = device_loop(), Heard()
    with listening(heard):
        scene.run(gen_inputs(), SamplerSettings())
    assert heard.begun == ["prefill", "noise", "enqueue", "wait"]


@pytest.mark.parametrize("solver", ["kernel", "graph"])
def test_each_step_is_told_and_nothing_else_changes(
    device_loop: Any, host_loop: Any, gen_inputs: Any, solver: str
) -> None:
    scene, host, heard = device_loop(solver=solver), host_loop(), Heard()
    settings = SamplerSettings(steps=3, guidance_interval=(950.0, 1001.0), step_cache=FixedCache(cond=(1,)))
    expected = host.run(gen_inputs(), settings)
    for _ in range(3):
        plain = scene.run(gen_inputs(), settings)
    assert plain.counters.launch == "one CUDA graph"
    for _ in range(2):
        heard.device_spans.clear()
        with listening(heard, device_steps=True):
            timed = scene.run(gen_inputs(), settings)
        np.testing.assert_allclose(timed.action, expected.action, rtol=0, atol=2e-6)
        assert "each step is timed" in timed.counters.launch or "first of its kind" in timed.counters.launch
    names = [name for name, *_ in heard.device_spans]
    assert names == ["step 0 cond", "step 0 uncond", "step 0 solver", "step 1 solver", "step 2 cond", "step 2 solver"]
    ends = [heard.device_spans[0][1]]
    for _, start_ms, end_ms in heard.device_spans:
        assert start_ms == ends[-1] <= end_ms <= 0
        ends.append(end_ms)
    assert ends[-1] == 0
    assert scene.run(gen_inputs(), settings).counters.launch == "one CUDA graph", "the captured one is still there"
