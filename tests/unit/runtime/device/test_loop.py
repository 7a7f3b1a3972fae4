"""The loop on a (simulated) device against the loop on the host: same noise, same result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from motedge.errors import ContractError, UsageError
from motedge.runtime.cuda.errors import CaptureError
from motedge.runtime.request import SamplerSettings
from motedge.runtime.schedule import FlowSchedule

PLANS = [
    SamplerSettings(steps=4, guidance=3.0),
    SamplerSettings(steps=4, guidance=3.0, guidance_interval=(960.0, 1001.0)),
    SamplerSettings(steps=1, guidance=1.0),
    SamplerSettings(steps=8, guidance=1.5, guidance_interval=(0.0, 900.0)),
]


def same(device: Any, host: Any) -> None:
    np.testing.assert_allclose(device.action, host.action, rtol=0, atol=2e-6)
    np.testing.assert_allclose(device.vision, host.vision, rtol=0, atol=2e-6)


@pytest.mark.capability(mode="policy", family="any", backend="onnxruntime-cuda", proof="simulated")
@pytest.mark.capability(mode="policy", family="any", backend="tensorrt", proof="simulated")
@pytest.mark.capability(mode="policy", family="any", backend="tensorrt-rtx", proof="simulated")
@pytest.mark.parametrize("solver", ["kernel", "graph"])
@pytest.mark.parametrize("settings", PLANS, ids=["cfg", "interval", "one", "eight"])
def test_equals_the_host_at_every_tick(
    device_loop: Any, host_loop: Any, gen_inputs: Any, settings: Any, solver: str
) -> None:
    scene, host = device_loop(solver=solver), host_loop()
    for tick, seed in enumerate((5, 6, 7)):
        inputs = gen_inputs(seed=seed)
        result = scene.run(inputs, settings)
        same(result, host.run(inputs, settings))
        assert result.counters.launch.startswith("piece by piece" if tick == 0 else "one CUDA graph")
        assert result.counters.forwards == host_forwards(settings)


def host_forwards(settings: SamplerSettings) -> int:
    return settings.guidance_plan().forwards(FlowSchedule(settings.steps, settings.shift).timesteps)


@pytest.mark.parametrize("solver", ["kernel", "graph"])
def test_clean_positions_stay_exactly(device_loop: Any, gen_inputs: Any, solver: str) -> None:
    inputs = gen_inputs()
    result = device_loop(solver=solver).run(inputs, PLANS[0])
    np.testing.assert_array_equal(result.vision[:, 0], inputs.vision_clean[:, 0])
    np.testing.assert_array_equal(result.action[0], inputs.action_clean[0])
    assert not result.action[:, inputs.raw_dim :].any()


@pytest.mark.parametrize("solver", ["kernel", "graph"])
def test_a_warm_tick_allocates_nothing_and_is_one_launch(device_loop: Any, gen_inputs: Any, solver: str) -> None:
    scene = device_loop(solver=solver)
    for seed in range(3):
        scene.run(gen_inputs(seed=seed), PLANS[0])
    before, held = dict(scene.cuda.counts), dict(scene.cuda.ledger)
    contexts = scene.gen.counts["contexts"], scene.und.counts["contexts"]
    copied = scene.cuda.copied_bytes
    result = scene.run(gen_inputs(seed=9), PLANS[0])
    after = scene.cuda.counts
    assert after["graph launch"] - before["graph launch"] == 1
    assert after["allocate"] == before.get("allocate", 0) and after["pinned"] == before.get("pinned", 0)
    assert scene.cuda.ledger == held
    assert (scene.gen.counts["contexts"], scene.und.counts["contexts"]) == contexts
    assert result.counters.prefills == 0 and result.counters.prompt_hits == 2 and result.counters.rope_hits == 2
    # The K and V were not moved again
    kv = 2 * 2 * 1 * 5 * 16 * 4
    assert scene.cuda.copied_bytes - copied < 20 * kv


def test_prompts_change_between_ticks(device_loop: Any, host_loop: Any, gen_inputs: Any) -> None:
    """Other words of the same length take the same graph; another length takes another, and back."""
    scene, host = device_loop(max_programs=2), host_loop()
    prompts = [[7, 3, 9, 20, 4], [7, 8, 9, 21, 5], [7, 1, 4], [7, 3, 9, 20, 4], [1, 2, 3, 4, 5, 6, 7, 8]]
    for repeat in range(2):
        for number, tokens in enumerate(prompts):
            inputs = gen_inputs(seed=10 * repeat + number, cond_tokens=np.array(tokens, np.int64))
            same(scene.run(inputs, PLANS[1]), host.run(inputs, PLANS[1]))
            assert len(scene.loop.programs) <= 2
    assert scene.loop.prompts.misses == 5


@pytest.mark.parametrize("solver", ["kernel", "graph"])
def test_masks_rates_domains_and_shapes_change(device_loop: Any, host_loop: Any, gen_inputs: Any, solver: str) -> None:
    scene, host = device_loop(solver=solver), host_loop()
    all_noisy = np.ones(3, np.float32)
    random = np.random.RandomState(3)
    changes: list[dict[str, Any]] = [
        {},
        {"vision_noisy": all_noisy},
        {"fps": 10.0},
        {"domain_id": 2},
        {"domain_id": 2, "raw_dim": 4},
        {
            "vision_clean": random.standard_normal((2, 2, 3, 4)).astype(np.float32),
            "vision_noisy": np.array([0, 1], np.float32),
        },
        {},
    ]
    for number, change in enumerate(changes):
        for seed in (number, 100 + number, 200 + number):
            inputs = gen_inputs(seed=seed, **change)
            same(scene.run(inputs, PLANS[0]), host.run(inputs, PLANS[0]))


def test_the_workspace_is_shared_and_may_grow(device_loop: Any, host_loop: Any, gen_inputs: Any) -> None:
    """Contexts that share a workspace don't disturb one another, and survive its move."""
    grows = {"workspace_bytes": lambda dims: 4096 * (dims.get("U", 0) + dims.get("S", 0))}
    scene, host = device_loop(engine=grows), host_loop()
    for seed, count in enumerate((3, 4, 5, 9, 5, 4, 12)):
        inputs = gen_inputs(seed=seed, cond_tokens=np.arange(count, dtype=np.int64))
        for _ in range(3):
            same(scene.run(inputs, PLANS[0]), host.run(inputs, PLANS[0]))
    assert scene.cuda.ledger["activations"] == 4096 * 12


def test_an_engine_that_refuses_capture(device_loop: Any, host_loop: Any, gen_inputs: Any) -> None:
    scene, host = device_loop(engine={"capture_refusal": "it keeps a graph of its own"}), host_loop()
    for seed in range(3):
        inputs = gen_inputs(seed=seed)
        result = scene.run(inputs, PLANS[0])
        same(result, host.run(inputs, PLANS[0]))
    assert result.counters.launch == "piece by piece: it keeps a graph of its own"


def test_a_capture_that_fails_falls_back(device_loop: Any, host_loop: Any, gen_inputs: Any, caplog: Any) -> None:
    scene, host = device_loop(), host_loop()
    scene.cuda.inject("capture", CaptureError("the library copied to pageable memory"))
    for seed in range(3):
        inputs = gen_inputs(seed=seed)
        result = scene.run(inputs, PLANS[0])
        same(result, host.run(inputs, PLANS[0]))
    assert "pageable" in result.counters.launch and "pageable" in caplog.text


def test_capture_switched_off(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop(capture=False)
    for seed in range(2):
        result = scene.run(gen_inputs(seed=seed), PLANS[0])
    assert result.counters.launch == "piece by piece: switched off"


def test_bad_requests_leave_the_loop_usable(device_loop: Any, host_loop: Any, gen_inputs: Any) -> None:
    scene, host = device_loop(), host_loop()
    with pytest.raises(UsageError, match="unconditional"):
        scene.run(gen_inputs(uncond_tokens=None), PLANS[0])
    with pytest.raises(ContractError, match="prompt tokens"):
        scene.run(gen_inputs(cond_tokens=np.arange(40, dtype=np.int64)), PLANS[0])
    with pytest.raises(ContractError, match="vocabulary"):
        scene.run(gen_inputs(cond_tokens=np.array([1, 2, 99999], np.int64)), PLANS[0])
    inputs = gen_inputs()
    same(scene.run(inputs, PLANS[0]), host.run(inputs, PLANS[0]))


def test_no_room_for_programs(device_loop: Any) -> None:
    with pytest.raises(UsageError, match="captured loop"):
        device_loop(max_programs=0)


def test_changing_kinds_leave_nothing_behind(device_loop: Any, gen_inputs: Any) -> None:
    """A program that is dropped gives its memory back, page-locked memory too."""
    scene = device_loop(solver="kernel", max_programs=2)
    for seed in range(12):
        scene.run(gen_inputs(seed=seed), SamplerSettings(steps=1 + seed % 4, guidance=3.0))
        if seed == 3:
            held = dict(scene.cuda.ledger)
    assert scene.cuda.ledger == held
