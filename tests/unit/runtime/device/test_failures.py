"""What goes wrong on a device: said clearly, nothing left allocated or running, and the next tick works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from host_cuda import HostCuda

from motedge.runtime.cuda.errors import CudaError, EngineError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.cuda.ledger import PINNED
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.request import SamplerSettings

SETTINGS = SamplerSettings(steps=4, guidance=3.0)


def poisoned(model: Any, when: Any, output: int = 0) -> Any:
    """gen_step that returns NaN in one element when `when(x)` holds."""

    def gen(x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        values = [value.copy() for value in model.functions["gen_step"](x)]
        if when(x):
            values[output].reshape(-1)[-1] = np.nan
        return values

    return gen


def is_uncond(x: Mapping[str, np.ndarray]) -> bool:
    return x["und_kv"].shape[3] == 3


@pytest.mark.parametrize("solver", ["kernel", "graph"])
@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("branch", ["conditional", "unconditional"])
def test_nan_names_step_and_branch(
    device_loop: Any, host_loop: Any, gen_inputs: Any, model: Any, branch: str, output: int, solver: str
) -> None:
    """As the loop on the host says it; first piece by piece, then from the captured graph."""
    switch = {"on": False}
    bad = poisoned(
        model, lambda x: switch["on"] and x["t"][0] < 950 and is_uncond(x) == (branch == "unconditional"), output
    )
    scene, host = device_loop({"gen_step": bad}, solver=solver), host_loop({"gen_step": bad})
    for _ in range(2):
        scene.run(gen_inputs(), SETTINGS)
    switch["on"] = True
    with pytest.raises(NonFiniteError) as expected:
        host.run(gen_inputs(), SETTINGS)
    with pytest.raises(NonFiniteError) as got:
        scene.run(gen_inputs(), SETTINGS)
    assert got.value.what == expected.value.what and branch in got.value.what
    switch["on"] = False
    np.testing.assert_allclose(
        scene.run(gen_inputs(), SETTINGS).action, host.run(gen_inputs(), SETTINGS).action, atol=2e-6
    )


def test_nan_in_a_prompt_is_not_blamed_on_the_generator(device_loop: Any, gen_inputs: Any, model: Any) -> None:
    scene = device_loop({"und_prefill": lambda x: [model.functions["und_prefill"](x)[0] * np.nan]})
    with pytest.raises(NonFiniteError, match=r"und_prefill.*conditional"):
        scene.run(gen_inputs(), SETTINGS)


# Tick buffers, activations, K and V of two prompts, solver, rotary tables of two branches
@pytest.mark.parametrize("after", range(7))
def test_out_of_memory_at_every_allocation(device_loop: Any, host_loop: Any, gen_inputs: Any, after: int) -> None:
    scene = device_loop(engine={"workspace_bytes": lambda dims: 8192})
    scene.cuda.inject("allocate", OutOfDeviceMemoryError("the GPU has no room"), after=after)
    with pytest.raises(OutOfDeviceMemoryError):
        scene.run(gen_inputs(), SETTINGS)
    assert not scene.gen.live and not scene.und.live and not scene.solver.live
    result = scene.run(gen_inputs(), SETTINGS)
    np.testing.assert_allclose(result.action, host_loop().run(gen_inputs(), SETTINGS).action, atol=2e-6)
    with scene.cuda.current():
        scene.loop.close()
        scene.workspace.free()
    assert set(scene.cuda.ledger) == {PINNED}


def test_a_small_gpu(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop(cuda=HostCuda(total_bytes=20_000))
    with pytest.raises(OutOfDeviceMemoryError, match="no room for"):
        scene.run(gen_inputs(), SETTINGS)
    assert not scene.gen.live


def test_an_engine_that_fails_in_the_middle(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    scene.cuda.inject("gen_step", EngineError("TensorRT failed in graph 'gen_step'"), after=3)
    with pytest.raises(EngineError, match="gen_step"):
        scene.run(gen_inputs(), SETTINGS)
    assert scene.run(gen_inputs(), SETTINGS).counters.launch.startswith("piece by piece")
    assert scene.run(gen_inputs(), SETTINGS).counters.launch == "one CUDA graph"


@pytest.mark.parametrize("call", ["gen_step", "capture"])
@pytest.mark.parametrize("error", [EngineError("it can't be captured"), OutOfDeviceMemoryError("no room for a graph")])
def test_a_library_that_fails_while_captured(
    device_loop: Any, host_loop: Any, gen_inputs: Any, call: str, error: Exception
) -> None:
    """Libraries have no error of their own for it: every tick is answered, piece by piece from then on."""
    scene, host = device_loop(), host_loop()
    scene.run(gen_inputs(), SETTINGS)
    scene.cuda.inject(call, error, after=3 if call == "gen_step" else 0)
    for seed in range(4):
        result = scene.run(gen_inputs(seed=seed), SETTINGS)
        np.testing.assert_allclose(result.action, host.run(gen_inputs(seed=seed), SETTINGS).action, atol=2e-6)
        assert result.counters.launch == f"piece by piece: {error}"


def test_a_solver_that_refuses_capture(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    scene.solver.capture_refusal = "it allocates while it runs"
    for _ in range(2):
        assert scene.run(gen_inputs(), SETTINGS).counters.launch == "piece by piece: it allocates while it runs"


def test_a_workspace_that_cant_grow_is_not_used_any_more(device_loop: Any, host_loop: Any, gen_inputs: Any) -> None:
    grows = {"workspace_bytes": lambda dims: 4096 * (dims.get("U", 0) + dims.get("S", 0))}
    scene, host = device_loop(engine=grows), host_loop()
    for _ in range(3):
        scene.run(gen_inputs(), SETTINGS)
    longer = gen_inputs(cond_tokens=np.arange(9, dtype=np.int64))
    scene.cuda.inject("allocate", OutOfDeviceMemoryError("the GPU has no room"))
    # The prompts that could be dropped are: then it works
    scene.run(longer, SETTINGS)
    before = scene.workspace.generation
    with scene.cuda.current():
        scene.cuda.inject("allocate", OutOfDeviceMemoryError("the GPU has no room"))
        with pytest.raises(OutOfDeviceMemoryError):
            scene.workspace.cover(1 << 20)
    assert scene.workspace.generation > before and scene.workspace.nbytes == 0
    result = scene.run(gen_inputs(), SETTINGS)
    np.testing.assert_allclose(result.action, host.run(gen_inputs(), SETTINGS).action, atol=2e-6)


def test_kept_prompts_make_room_for_a_new_one(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    for first in range(3):
        scene.run(gen_inputs(cond_tokens=np.array([first, 1, 2, 3], np.int64)), SETTINGS)
    assert len(scene.loop.prompts) == 4
    scene.cuda.inject("allocate", OutOfDeviceMemoryError("the GPU has no room"))
    scene.run(gen_inputs(cond_tokens=np.array([9, 1, 2, 3], np.int64)), SETTINGS)
    assert len(scene.loop.prompts) == 4
    # Four are dropped one after the other, and there is still no room
    for number in range(5):
        scene.cuda.inject("allocate", OutOfDeviceMemoryError("the GPU has no room"), after=number)
    with pytest.raises(OutOfDeviceMemoryError):
        scene.run(gen_inputs(cond_tokens=np.array([8, 1, 2, 3], np.int64)), SETTINGS)


def test_page_locked_memory_that_is_refused(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    for _ in range(3):
        scene.cuda.inject("pinned", OutOfDeviceMemoryError("no page-locked memory"))
        with pytest.raises(OutOfDeviceMemoryError):
            scene.run(gen_inputs(), SETTINGS)
        assert "tick buffers" not in scene.cuda.ledger
    scene.run(gen_inputs(), SETTINGS)


def test_a_lost_context_stays_lost(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    scene.run(gen_inputs(), SETTINGS)
    scene.cuda.inject("synchronize", StickyCudaError("an illegal address"))
    for _ in range(2):
        with pytest.raises(StickyCudaError, match="illegal"):
            scene.run(gen_inputs(), SETTINGS)
    scene.cuda.closed = True


def test_outside_the_context(device_loop: Any, gen_inputs: Any) -> None:
    scene = device_loop()
    with pytest.raises(CudaError, match="current"):
        scene.loop.run(gen_inputs(), SETTINGS)
