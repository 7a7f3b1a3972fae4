"""A policy's tick on a (simulated) device against the tick on the host, and what happens when the context is lost."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from device_engines import SOLVER_CONTRACT, FunctionEngine, solver_function
from host_cuda import HostCuda

from motedge.errors import HostError, UsageError
from motedge.runtime.cuda.errors import CudaError, StickyCudaError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.device.image_encoder import ImageEncoder
from motedge.runtime.device.loop import DeviceLoop
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.policy.device_tick import DeviceTick, HostSight
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.one_thread import OneThreadTick
from motedge.runtime.policy.protocols import PROTOCOLS
from motedge.runtime.policy.recovery import RecoveringTick
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.tick import HostTick, TickRequest
from motedge.runtime.request import SamplerSettings

SHAPE = PolicyShape(canvas=(8, 8), content=(6, 8), frames=9, latent=(3, 3, 4), rows=5, fps=15.0)
SETTINGS = SamplerSettings(steps=4, guidance=3.0)


def observation(seed: int) -> Observation:
    image = np.random.RandomState(seed).randint(0, 256, (540, 640, 3)).astype(np.uint8)
    return Observation(np.zeros(7), 0.5, "go", image=image)


def request(seed: int) -> TickRequest:
    action = np.zeros((5, 4), np.float32)
    action[0, :3] = (0.1, -0.2, 0.3)
    return TickRequest(action, np.array([7, 3, 9], np.int64), np.array([7, 4], np.int64), 1, 3, seed)


@pytest.fixture
def tick_scene(model: Any, tables: Any, host_loop: Any, numpy_engine: Any) -> Any:
    def make(functions: Any = None) -> SimpleNamespace:
        functions = {**model.functions, **(functions or {})}
        cuda = HostCuda(deferred=True)
        engines: dict[str, Any] = {
            graph: FunctionEngine(cuda, contract, functions[graph], workspace_bytes=lambda dims: 4096)
            for graph, contract in model.contracts.items()
        }
        engines["solver_step"] = FunctionEngine(cuda, SOLVER_CONTRACT, solver_function)
        with cuda.current():
            workspace = Workspace(cuda)
            encoder = ImageEncoder(cuda, engines["vae_encoder"], workspace)
            source = SolverSource(cuda, workspace, None, engines["solver_step"])
            loop = DeviceLoop(
                cuda,
                engines["und_prefill"],
                engines["gen_step"],
                source,
                tables,
                model.config,
                workspace,
                cuda.stream("high"),
            )
            sight = HostSight(encoder, SHAPE, PROTOCOLS["droid"])
            tick = DeviceTick(cuda, list(engines.values()), workspace, encoder, loop, sight, SHAPE)
        host = HostTick(
            numpy_engine("vae_encoder", functions["vae_encoder"]), host_loop(functions), SHAPE, PROTOCOLS["droid"]
        )
        return SimpleNamespace(cuda=cuda, engines=engines, tick=tick, host=host, encoder=encoder)

    return make


def test_equals_the_host_and_stays_on_the_device(tick_scene: Any) -> None:
    scene = tick_scene()
    for seed in range(4):
        before = scene.cuda.counts["graph launch"]
        for tick in (scene.tick, scene.host):
            assert tick.see(observation(seed)) == ()
        result, expected = scene.tick.run(request(seed), SETTINGS), scene.host.run(request(seed), SETTINGS)
        np.testing.assert_allclose(result.action, expected.action, rtol=0, atol=3e-6)
        # Two graphs: the encoder's and the loop's
        assert scene.cuda.counts["graph launch"] - before == (2 if seed else 0)
    assert scene.encoder.refusal is None and result.stages_ms["vae_ms"] > 0
    assert result.timings.gen_ms > 0 and result.counters.prompt_hits == 2


@pytest.mark.parametrize("wrap", [lambda make: make(), lambda make: RecoveringTick(make, lambda: None), OneThreadTick])
def test_a_prepared_prompt_costs_no_prefill(tick_scene: Any, wrap: Any) -> None:
    scene = tick_scene()
    tick = wrap(lambda: scene.tick)
    for one in (tick, scene.host):
        one.prepare(request(0).cond_tokens)
        one.prepare(request(0).uncond_tokens)
        one.see(observation(0))
        assert one.run(request(0), SETTINGS).counters.prefills == 0
    tick.close()


def test_seen_twice_acts_on_the_last(tick_scene: Any) -> None:
    scene = tick_scene()
    scene.tick.see(observation(1))
    scene.tick.see(observation(2))
    scene.host.see(observation(2))
    expected = scene.host.run(request(0), SETTINGS)
    np.testing.assert_allclose(scene.tick.run(request(0), SETTINGS).action, expected.action, rtol=0, atol=3e-6)


def test_close_gives_everything_back(tick_scene: Any) -> None:
    scene = tick_scene()
    scene.tick.see(observation(1))
    scene.tick.run(request(0), SETTINGS)
    held = scene.tick.memory_bytes()
    assert held["weights of gen_step"] == 1000 and held["activations"] == 4096 and held["tick buffers"] > 0
    freed: dict[str, int] = {}
    close = scene.cuda.close
    scene.cuda.close = lambda: (freed.update(scene.cuda.ledger), close())
    scene.tick.close()
    scene.tick.close()
    assert set(freed) == {PINNED} and scene.cuda.closed
    assert all(engine.counts["closed"] == 1 for engine in scene.engines.values())


def test_nan_of_the_encoder_is_named(tick_scene: Any, model: Any) -> None:
    scene = tick_scene({"vae_encoder": lambda x: [model.functions["vae_encoder"](x)[0] * np.nan]})
    scene.tick.see(observation(0))
    with pytest.raises(NonFiniteError, match="vae_encoder"):
        scene.tick.run(request(0), SETTINGS)


def test_an_encoder_that_cant_be_captured_is_told(tick_scene: Any) -> None:
    scene = tick_scene()
    scene.engines["vae_encoder"].capture_refusal = "it keeps a graph of its own"
    for seed in range(2):
        scene.tick.see(observation(seed))
        result = scene.tick.run(request(seed), SETTINGS)
    assert result.counters.launch == "one CUDA graph; image encoder: it keeps a graph of its own"


def test_a_context_that_is_gone_does_not_keep_the_engines(tick_scene: Any) -> None:
    scene = tick_scene()
    scene.tick.see(observation(1))
    scene.tick.run(request(0), SETTINGS)

    def gone() -> Any:
        raise StickyCudaError("the context was destroyed")

    scene.cuda.current = gone
    scene.tick.close()
    assert all(engine.counts["closed"] == 1 for engine in scene.engines.values())


def test_all_work_in_one_thread(tick_scene: Any) -> None:
    """Whoever calls, from whichever thread; what goes wrong comes through."""
    threads: set[int] = set()
    scenes: list[Any] = []

    def make() -> Any:
        threads.add(threading.get_ident())
        scenes.append(tick_scene())
        tick, see = scenes[0].tick, scenes[0].tick.see
        tick.see = lambda seen: (threads.add(threading.get_ident()), see(seen))[1]
        return tick

    tick = OneThreadTick(make)
    results: list[Any] = []

    def act(seed: int) -> None:
        tick.see(observation(seed))
        results.append(tick.run(request(seed), SETTINGS))

    for seed in range(3):
        caller = threading.Thread(target=act, args=(seed,))
        caller.start()
        caller.join()
    scenes[0].host.see(observation(2))
    expected = scenes[0].host.run(request(2), SETTINGS)
    np.testing.assert_allclose(results[2].action, expected.action, rtol=0, atol=3e-6)
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert tick.memory_bytes()["weights of gen_step"] == 1000
    scenes[0].cuda.inject("copy", CudaError("a copy failed"))
    with pytest.raises(CudaError, match="a copy failed"):
        tick.see(observation(0))
    tick.close()
    tick.close()
    with pytest.raises(HostError, match="no GPU"):
        OneThreadTick(_no_gpu)


def _no_gpu() -> Any:
    raise HostError("no GPU")


class Recovery:
    """A RecoveringTick, the scenes that it made, and how often the context was reset."""

    def __init__(self, tick_scene: Any) -> None:
        self.scenes: list[Any] = []
        self.resets = 0
        self._tick_scene = tick_scene
        self.tick = RecoveringTick(self._make, self._reset)

    def _make(self) -> Any:
        self.scenes.append(self._tick_scene())
        return self.scenes[-1].tick

    def _reset(self) -> None:
        self.resets += 1

    def crash(self, call: str = "synchronize") -> None:
        self.scenes[-1].cuda.inject(call, StickyCudaError("a kernel read an illegal address"))


@pytest.mark.parametrize("call", ["synchronize", "copy"])
def test_a_lost_context_is_rebuilt_once(tick_scene: Any, call: str, caplog: Any) -> None:
    recovery = Recovery(tick_scene)
    tick = recovery.tick
    tick.see(observation(3))
    tick.run(request(3), SETTINGS)
    expected = recovery.scenes[0].host
    recovery.crash(call)
    tick.see(observation(4))
    expected.see(observation(4))
    result = tick.run(request(4), SETTINGS)
    np.testing.assert_allclose(result.action, expected.run(request(4), SETTINGS).action, rtol=0, atol=3e-6)
    assert tick.rebuilds == 1 and recovery.resets == 1 and len(recovery.scenes) == 2
    assert "lost" in caplog.text
    recovery.crash(call)
    with pytest.raises(StickyCudaError, match="illegal"):
        tick.see(observation(5))
        tick.run(request(5), SETTINGS)
    with pytest.raises(HostError, match="can't be used any more"):
        tick.see(observation(6))
    assert len(recovery.scenes) == 2
    tick.close()


def test_a_driver_that_gives_no_other_context(tick_scene: Any) -> None:
    """As NVIDIA's drivers do after an illegal address: the error says that the process must go."""
    recovery = Recovery(tick_scene)
    recovery.tick.see(observation(0))
    recovery.crash()

    def refuse() -> Any:
        raise StickyCudaError("GPU 0 can't be opened", got="CUDA_ERROR_ILLEGAL_ADDRESS")

    recovery.tick._make = refuse
    for _ in range(2):
        with pytest.raises(HostError, match="restart the process"):
            recovery.tick.run(request(0), SETTINGS)
    assert recovery.resets == 1
    recovery.tick.close()


def test_the_reply_says_that_the_context_was_rebuilt(tick_scene: Any) -> None:
    recovery = Recovery(tick_scene)
    recovery.tick.see(observation(0))
    recovery.crash("record")
    assert "rebuilt" in recovery.tick.run(request(0), SETTINGS).counters.launch
    recovery.tick.close()
    with pytest.raises(UsageError, match="was closed"):
        recovery.tick.see(observation(0))


@pytest.mark.parametrize("one_thread", [False, True])
def test_a_profile_hears_both_clocks(tick_scene: Any, one_thread: bool) -> None:
    """Spans of the host, of the GPU's work before the end, and the stages that a profile makes of them."""
    from motedge.profile.span_recorder import SpanRecorder
    from motedge.profile.stages import stage_times
    from motedge.runtime.spans import listening, span

    scene, recorder = tick_scene(), SpanRecorder()
    tick = OneThreadTick(lambda: scene.tick) if one_thread else scene.tick
    for device_steps in (False, False, True, True, False):
        with listening(recorder, device_steps=device_steps), span("tick"):
            with span("ingest"):
                tick.see(observation(1))
            tick.run(request(3), SETTINGS)
        stages = stage_times(recorder.take())
        assert {"ingest", "prefill", "noise", "enqueue", "wait", "GPU vae_encoder", "GPU denoise"} <= set(stages)
        assert ("GPU step 3 uncond" in stages) == device_steps
        assert 0 <= stages["host"] <= stages["tick"] and stages["between stages"] >= 0
    tick.close()
