"""A prompt of a new length made ready between ticks: its first tick is as the later ones, others are as before."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from motedge.errors import ContractError
from motedge.runtime.cuda.errors import OutOfDeviceMemoryError
from motedge.runtime.request import SamplerSettings
from motedge.runtime.step_cache.options import parse_step_cache

SETTINGS = SamplerSettings(steps=4, guidance=3.0)
LONGER = np.array([7, 3, 9, 11, 2, 4, 5], np.int64)


def rehearse(scene: Any, tokens: np.ndarray) -> int:
    """All steps, each from outside of the context; how many."""
    steps, count = scene.loop.rehearse(tokens), 0
    while True:
        with scene.cuda.current():
            if next(steps, None) is None and steps.gi_frame is None:
                return count
        count += 1


@pytest.mark.parametrize("solver", ["graph", "kernel"])
def test_the_first_tick_is_one_graph(device_loop: Any, host_loop: Any, gen_inputs: Any, solver: str) -> None:
    scene, host = device_loop(solver=solver), host_loop()
    plain, planned = gen_inputs(), dataclasses.replace(gen_inputs(), cond_tokens=LONGER)
    before = [scene.run(plain, SETTINGS) for _ in range(3)][-1]
    with scene.cuda.current():
        scene.loop.prepare(LONGER)
    runs = scene.gen.counts["runs"]
    # Contexts, the two forwards, the capture, and one that K and V were before
    assert rehearse(scene, LONGER) == 5 and scene.gen.counts["runs"] == runs + 2
    launches = scene.cuda.counts["graph launch"]
    again = scene.run(plain, SETTINGS)
    np.testing.assert_array_equal(again.action, before.action)
    found, expected = scene.run(planned, SETTINGS), host.run(planned, SETTINGS)
    np.testing.assert_allclose(found.action, expected.action, rtol=0, atol=3e-6)
    assert scene.cuda.counts["graph launch"] == launches + 2
    assert (found.counters.launch, found.counters.prefills) == ("one CUDA graph", 0)
    # Known by now
    assert rehearse(scene, LONGER) == 2


def test_ticks_between_its_steps_are_right(device_loop: Any, gen_inputs: Any) -> None:
    scene, inputs = device_loop(), gen_inputs()
    expected = [scene.run(inputs, SETTINGS) for _ in range(3)][-1]
    steps = scene.loop.rehearse(LONGER)
    while True:
        with scene.cuda.current():
            if next(steps, "over") == "over":
                break
        for _ in range(2):
            np.testing.assert_array_equal(scene.run(inputs, SETTINGS).action, expected.action)
    assert scene.run(dataclasses.replace(inputs, cond_tokens=LONGER), SETTINGS).counters.launch == "one CUDA graph"


def test_engines_that_can_not_be_captured_run_twice(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop(engine={"capture_refusal": "it keeps graphs of its own"})
    for _ in range(2):
        scene.run(gen_inputs(), SETTINGS)
    runs = scene.gen.counts["runs"]
    rehearse(scene, LONGER)
    assert scene.gen.counts["runs"] == runs + 4
    assert "own" in scene.run(dataclasses.replace(gen_inputs(), cond_tokens=LONGER), SETTINGS).counters.launch


def test_nothing_to_rehearse(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    assert rehearse(scene, LONGER) == 0
    # Steps that the host decides
    scene.run(gen_inputs(), dataclasses.replace(SETTINGS, step_cache=parse_step_cache("sea")))
    assert rehearse(scene, LONGER) == 0


def test_what_the_first_tick_would_raise(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    expected = [scene.run(gen_inputs(), SETTINGS) for _ in range(3)][-1]
    with pytest.raises(ContractError):
        rehearse(scene, np.zeros(10**4, np.int64))
    scene.cuda.inject("allocate", OutOfDeviceMemoryError("the GPU has no room for rotary tables"), after=1)
    with pytest.raises(OutOfDeviceMemoryError, match="rotary tables"):
        rehearse(scene, LONGER)
    np.testing.assert_array_equal(scene.run(gen_inputs(), SETTINGS).action, expected.action)
