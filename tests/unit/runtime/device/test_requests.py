"""Every kind of request on a (simulated) device as on the host: no actions, sound, distilled models, being watched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from motedge.bundle import Contract, TensorSpec
from motedge.errors import ContractError, HostError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.request import SamplerSettings
from motedge.runtime.step_cache.options import FixedCache, SeaCache
from motedge.runtime.step_view import StepView

GUIDED = SamplerSettings(steps=4, guidance=3.0, guidance_interval=(300.0, 980.0))
DISTILLED = SamplerSettings(steps=3, shift=1.0, guidance=1.0, distilled_sigmas=(1.0, 0.7, 0.2))
Q = 3


@pytest.fixture
def gen_contract(model: Any) -> Contract:
    """gen_step that takes requests without actions and single images."""
    contract: Contract = model.contracts["gen_step"]
    return dataclasses.replace(contract, profile={**contract.profile, "T": (1, 3, 6), "A": (0, 5, 9), "N": (4, 17, 60)})


@pytest.fixture
def sound_contract(gen_contract: Contract) -> Contract:
    state, mask = TensorSpec("sound", ("Q", "J"), "fp32", "test"), TensorSpec("sound_noisy", ("J",), "fp32", "test")
    velocity = TensorSpec("sound_velocity", ("Q", "J"), "fp32", "test")
    return dataclasses.replace(
        gen_contract,
        graph="gen_step_sound",
        inputs=(*gen_contract.inputs, state, mask),
        outputs=(*gen_contract.outputs, velocity),
        sizes={**gen_contract.sizes, "Q": Q},
        profile={**gen_contract.profile, "J": (1, 5, 40), "N": (5, 20, 100)},
    )


@pytest.fixture
def functions(model: Any) -> dict[str, Any]:
    def with_sound(x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        vision, action = model.functions["gen_step"](x)
        sound = (np.float32(0.4) * x["sound"] + x["vision"].mean() + x["t"][0] / 2000) * x["sound_noisy"]
        return [vision + np.float32(0.1) * x["sound"].mean(), action, sound]

    return {**model.functions, "gen_step_sound": with_sound}


def same(device: Any, host: Any) -> None:
    for name in ("vision", "action", "sound"):
        ours, theirs = getattr(device, name), getattr(host, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6)
    assert device.counters.forwards == host.counters.forwards


def of_frames(frames: int, **changes: Any) -> dict[str, Any]:
    """A request of that many latent frames, the first one clean unless it is the only one; without actions."""
    noisy = np.ones(frames, np.float32)
    noisy[0] = frames == 1
    clean = np.random.RandomState(frames).standard_normal((2, frames, 3, 4)).astype(np.float32)
    actions = {"action_clean": np.zeros((0, 4), np.float32), "action_noisy": np.zeros(0, np.float32), "raw_dim": 4}
    return {"vision_clean": clean, "vision_noisy": noisy, "domain_id": 0, **actions, **changes}


@pytest.mark.parametrize("solver", ["kernel", "graph"])
def test_without_actions(
    device_loop: Any, host_loop: Any, gen_inputs: Any, gen_contract: Contract, solver: str
) -> None:
    scene, host = device_loop(solver=solver, gen_contract=gen_contract), host_loop(gen_contract=gen_contract)
    for frames in (1, 3, 1, 5):
        for tick in range(3):
            inputs = gen_inputs(seed=10 * frames + tick, **of_frames(frames))
            result = scene.run(inputs, GUIDED)
            same(result, host.run(inputs, GUIDED))
            assert result.counters.launch.startswith("one CUDA graph" if tick else "piece by piece")
            assert result.action.shape == (0, 4)


@pytest.mark.capability(mode="sound", family="any", backend="onnxruntime-cuda", proof="simulated")
@pytest.mark.capability(mode="sound", family="any", backend="tensorrt", proof="simulated")
@pytest.mark.capability(mode="sound", family="any", backend="tensorrt-rtx", proof="simulated")
@pytest.mark.parametrize("actions", [0, 5])
@pytest.mark.parametrize("settings", [GUIDED, SamplerSettings(steps=2, guidance=1.0)], ids=["guided", "plain"])
def test_with_sound(
    device_loop: Any,
    host_loop: Any,
    gen_inputs: Any,
    sound_contract: Contract,
    functions: Any,
    settings: Any,
    actions: int,
) -> None:
    """The kernels are there, and the graph solves: it alone knows sound."""
    scene = device_loop(functions, solver="kernel", gen_contract=sound_contract)
    host = host_loop(functions, gen_contract=sound_contract)
    for count in (4, 30, 4):
        for tick in range(3):
            changes = {} if actions else of_frames(3)
            inputs = gen_inputs(seed=count + tick, sound_latents=count, **changes)
            result = scene.run(inputs, settings)
            same(result, host.run(inputs, settings))
            assert result.sound.shape == (Q, count) and result.sound.any()
            assert result.counters.launch.startswith("one CUDA graph" if tick else "piece by piece")


def test_sound_without_its_solver(
    device_loop: Any, gen_inputs: Any, sound_contract: Contract, functions: Any, monkeypatch: Any
) -> None:
    scene = device_loop(functions, solver="kernel", gen_contract=sound_contract)
    source = scene.loop._programs._solvers
    scene.loop._programs._solvers = SolverSource(source.cuda, source.workspace, source.kernels, None)
    with pytest.raises(HostError, match="solver_step"):
        scene.run(gen_inputs(sound_latents=4), GUIDED)
    with pytest.raises(ContractError, match="J"):
        scene.run(gen_inputs(sound_latents=41), GUIDED)


@pytest.mark.capability(mode="distilled", family="any", backend="onnxruntime-cuda", proof="simulated")
@pytest.mark.capability(mode="distilled", family="any", backend="tensorrt", proof="simulated")
@pytest.mark.capability(mode="distilled", family="any", backend="tensorrt-rtx", proof="simulated")
@pytest.mark.parametrize("sound", [0, 7])
def test_a_distilled_model(
    device_loop: Any,
    host_loop: Any,
    gen_inputs: Any,
    sound_contract: Contract,
    gen_contract: Any,
    functions: Any,
    sound: int,
) -> None:
    contract = sound_contract if sound else gen_contract
    scene, host = device_loop(functions, gen_contract=contract), host_loop(functions, gen_contract=contract)
    for seed in range(3):
        for changes in ({}, of_frames(1)):
            inputs = gen_inputs(seed=seed, sound_latents=sound, **changes)
            result = scene.run(inputs, DISTILLED)
            same(result, host.run(inputs, DISTILLED))
            assert result.counters.launch.startswith("step by step: a distilled model takes fresh noise")
            assert [step.t for step in result.timings.steps] == pytest.approx([1000, 700, 200])
    assert not scene.solver.counts["runs"]


def test_a_solver_from_before_sound(
    device_loop: Any, gen_inputs: Any, sound_contract: Contract, functions: Any
) -> None:
    scene = device_loop(functions, gen_contract=sound_contract)
    scene.solver.contract = dataclasses.replace(scene.solver.contract, profile={"M": (64, 128, 192)})
    with pytest.raises(ContractError, match=r"too narrow[\s\S]*export again"):
        scene.run(gen_inputs(sound_latents=30), GUIDED)


WATCHED = [
    GUIDED,
    SamplerSettings(steps=3, guidance=1.0),
    SamplerSettings(steps=5, step_cache=FixedCache((1, 3), (2, 3))),
    SamplerSettings(steps=5, step_cache=SeaCache(0.15)),
    DISTILLED,
]


@pytest.mark.parametrize("solver", ["kernel", "graph"])
@pytest.mark.parametrize("settings", WATCHED, ids=["guided", "plain", "fixed", "sea", "distilled"])
def test_being_watched(device_loop: Any, host_loop: Any, gen_inputs: Any, settings: Any, solver: str) -> None:
    scene, host = device_loop(solver=solver), host_loop()
    seen: dict[str, list[Any]] = {"device": [], "host": []}

    def watch(where: str) -> Any:
        def look(view: StepView) -> None:
            seen[where].append((view.step, view.steps, view.sigma, view.vision.copy(), view.clean_vision()))

        return look

    inputs = gen_inputs(seed=3)
    unwatched = scene.run(inputs, settings)
    result = scene.run(inputs, settings, watch("device"))
    expected = host.run(inputs, settings, watch("host"))
    same(result, expected)
    same(result, unwatched)
    assert result.counters.launch.startswith("step by step")
    assert len(seen["device"]) == len(seen["host"]) == settings.steps == len(result.timings.steps)
    for ours, theirs in zip(seen["device"], seen["host"]):
        assert ours[:3] == theirs[:3]
        for a, b in zip(ours[3:], theirs[3:]):
            np.testing.assert_allclose(a, b, rtol=0, atol=3e-6)
    assert result.timings.graph_ms is None and result.timings.gen_ms > 0
    assert [step.forwards for step in result.timings.steps] == [step.forwards for step in expected.timings.steps]
    # And one that nobody looks at is one graph again
    launched = scene.run(gen_inputs(seed=4), settings).counters.launch
    assert launched.startswith("step by step" if settings in WATCHED[3:] else "one CUDA graph")


@pytest.mark.parametrize("settings", [GUIDED, DISTILLED], ids=["device", "host"])
def test_a_watch_that_stops_it(device_loop: Any, host_loop: Any, gen_inputs: Any, settings: Any) -> None:
    scene = device_loop()

    def stop(view: StepView) -> None:
        if view.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.run(gen_inputs(), settings, stop)
    same(scene.run(gen_inputs(), settings), host_loop().run(gen_inputs(), settings))


@pytest.mark.parametrize(
    ("settings", "watched"), [(GUIDED, False), (GUIDED, True), (DISTILLED, False)], ids=["whole", "watched", "host"]
)
@pytest.mark.parametrize("step", [0, 2])
def test_a_velocity_that_is_not_finite(
    device_loop: Any, model: Any, gen_inputs: Any, settings: Any, watched: bool, step: int
) -> None:
    """Graph, step and branch are named; steps that are watched end there."""
    calls = []

    def broken(x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        velocities: list[np.ndarray] = model.functions["gen_step"](x)
        if x["t"][0] == np.float32(settings.schedule().timesteps[step]):
            velocities[0][...] = np.nan
        calls.append(x["t"][0])
        return velocities

    scene = device_loop({"gen_step": broken})
    with pytest.raises(NonFiniteError, match=rf"'gen_step' returned NaN or infinity at step {step}, conditional"):
        scene.run(gen_inputs(), settings, (lambda view: None) if watched else None)
    times = set(calls)
    assert len(times) == (step + 1 if watched or settings is DISTILLED else settings.steps)


@pytest.mark.parametrize("settings", [GUIDED, DISTILLED], ids=["device", "host"])
def test_changing_shapes_leave_nothing_behind(
    device_loop: Any, gen_inputs: Any, gen_contract: Contract, settings: Any
) -> None:
    """Page-locked memory can't be freed: it must be used again."""
    scene = device_loop(gen_contract=gen_contract, max_programs=2)
    held: list[dict[str, int]] = []
    for number in range(4):
        for frames in (6, 1, 4, 2):
            scene.run(gen_inputs(seed=number, **of_frames(frames)), settings)
        held.append(dict(scene.cuda.ledger))
    assert held[0] == held[-1] and held[0][PINNED] > 0
