"""KernelSolver through numpy twins of its kernels: bit for bit the reference, whatever the shapes and the schedule."""

from __future__ import annotations

import numpy as np
import pytest
from host_cuda import HostCuda
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_scene import SolverScene
from kernel_twins import KERNELS

from motedge.errors import ContractError, UsageError
from motedge.runtime.cuda.errors import CudaError, OutOfDeviceMemoryError
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.step_solver import SolverBuffers
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.record import KernelRecord
from motedge.runtime.kernels.solver import KernelSolver
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc_coefficients import UniPCCoefficients

RECORD = KernelRecord("", "", 1, "13.0", (90,), 120)


def host(**options: object) -> tuple[HostCuda, KernelLibrary]:
    cuda = HostCuda(kernels=KERNELS, **options)  # type: ignore[arg-type]
    return cuda, KernelLibrary(cuda, b"fatbin", RECORD)


small = st.integers(1, 5)


@settings(max_examples=60, deadline=None)
@given(
    vision=st.tuples(small, small, small, st.integers(1, 9)),
    action=st.tuples(st.integers(0, 5), st.integers(1, 40)),
    steps=st.integers(1, 8),
    order=st.integers(1, 3),
    guided=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_every_step_is_the_reference_bit_for_bit(
    vision: tuple[int, int, int, int], action: tuple[int, int], steps: int, order: int, guided: int, seed: int
) -> None:
    cuda, library = host()
    with cuda.current():
        raw_dim = 1 + seed % action[1]
        scene = SolverScene(cuda, library, vision, action, steps=steps, order=order, raw_dim=raw_dim, seed=seed)
        for _ in range(2):
            scene.begin()
            scene.check_state()
            for k in range(steps):
                assert scene.get("t") == scene.coefficients.timesteps[k]
                scene.draw_velocities()
                scene.solver.step(k, bool(guided >> k & 1), scene.stream)
                scene.reference_step(k, bool(guided >> k & 1))
                scene.check_state()
        scene.solver.fetch_findings(scene.stream)
        scene.stream.synchronize()
        assert scene.solver.findings() == [0] * steps
    cuda.close()


@pytest.mark.parametrize("wrong", ["v_cond", "v_uncond"])
@pytest.mark.parametrize("guided", [False, True])
def test_what_is_not_finite_is_found_and_named_by_step_and_branch(wrong: str, guided: bool) -> None:
    cuda, library = host()
    with cuda.current():
        scene = SolverScene(cuda, library, (2, 3, 2, 3), (3, 5), steps=3, raw_dim=2)
        scene.begin()
        for k in range(3):
            scene.draw_velocities()
            if k == 1:
                # The last channel of the last row, which is not used: engines are checked as a whole
                scene.host[wrong][scene.layout.action_offset + scene.layout.action_count - 1] = np.inf
                scene.put(wrong)
            scene.solver.step(k, guided, scene.stream)
        scene.solver.fetch_findings(scene.stream)
        scene.stream.synchronize()
        bit = {"v_cond": 1, "v_uncond": 2 if guided else 0}[wrong]
        assert scene.solver.findings() == [0, bit, 0]
        scene.begin()
        assert not scene.get("findings").any()
    cuda.close()


def test_a_captured_loop_replays_on_new_contents() -> None:
    cuda, library = host()
    with cuda.current():
        scene = SolverScene(cuda, library, (2, 3, 4, 5), (3, 8), steps=4)
        guided = [True, True, False, False]
        scene.draw_velocities()

        def loop() -> None:
            scene.solver.begin(scene.stream)
            for k in range(4):
                scene.solver.step(k, guided[k], scene.stream)

        graph = cuda.capture(scene.stream, loop)
        for _ in range(2):
            scene.host["noise"][:] = scene.random.standard_normal(scene.layout.noise_count)
            scene.put("noise")
            scene.draw_velocities()
            graph.launch(scene.stream)
            scene.numpy.reset(scene.inputs, scene.host["noise"])
            scene.reference.reset()
            for k in range(4):
                scene.reference_step(k, guided[k])
            scene.check_state()
    cuda.close()


def test_nothing_is_moved_that_no_later_step_reads() -> None:
    """Of four steps: x, v, u; c and m kept by the first two alone; the last takes its own value and nothing else."""
    cuda, library = host()
    with cuda.current():
        scene = SolverScene(cuda, library, (1, 1, 1, 1), (1, 1), steps=4)
        vectors = [scene.solver.moved_bytes(k, True) // scene.layout.nbytes for k in range(4)]
        # in x v u, out x c m; in x v u c m1, out x c m; in x v u c m1 m2, out x; in x v u, out x
        assert vectors == [6, 8, 7, 4]
        assert scene.solver.moved_bytes(1, False) == 7 * scene.layout.nbytes
    cuda.close()


def pointers(**changed: int) -> SolverBuffers:
    names = ("noise", "state", "v_cond", "v_uncond", "clean", "vision_noisy", "action_noisy", "t", "findings")
    return SolverBuffers(**{**dict.fromkeys(names, 256), **changed})


def solver(cuda: HostCuda, library: KernelLibrary, **changed: object) -> KernelSolver:
    arguments = {
        "layout": StateLayout((2, 3, 4, 5), (3, 8)),
        "buffers": pointers(),
        "coefficients": UniPCCoefficients.from_schedule(FlowSchedule(4, 3.0)),
        "guidance_scale": 3.0,
        "raw_dim": 8,
        "stream": cuda.stream(),
        **changed,
    }
    return KernelSolver(cuda, library, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"raw_dim": 9}, "raw_dim"),
        ({"raw_dim": 0}, "raw_dim"),
        ({"buffers": pointers(v_uncond=260)}, "v_uncond"),
        ({"layout": StateLayout((1 << 10, 1 << 7, 1 << 7, 1 << 7), (3, 8))}, "32 bits"),
    ],
)
def test_what_the_kernel_does_not_take_is_refused(changed: dict[str, object], words: str) -> None:
    cuda, library = host()
    with cuda.current():
        with pytest.raises(ContractError, match=words):
            solver(cuda, library, **changed)
        assert cuda.ledger.get("solver", 0) == 0
    cuda.close()


def test_after_a_failure_nothing_stays_allocated() -> None:
    cuda, library = host(total_bytes=1000)
    with cuda.current():
        with pytest.raises(OutOfDeviceMemoryError, match="solver"):
            solver(cuda, library)
        assert cuda.ledger.get("solver", 0) == 0
    cuda.close()
    cuda, library = host()
    with cuda.current():
        cuda.inject("copy", CudaError("a copy failed"))
        with pytest.raises(CudaError, match="a copy failed"):
            solver(cuda, library)
        assert cuda.ledger.get("solver", 0) == 0
    cuda.close()


def test_closing_gives_everything_back_and_ends_it() -> None:
    cuda, library = host()
    with cuda.current():
        made = solver(cuda, library)
        with pytest.raises(UsageError, match="no such step"):
            made.step(4, False, cuda.stream())
        made.close()
        made.close()
        assert cuda.ledger.get("solver", 0) == 0
        with pytest.raises(UsageError, match="closed"):
            made.step(0, False, cuda.stream())
    cuda.close()
