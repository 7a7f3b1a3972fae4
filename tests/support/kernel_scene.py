"""A solver on some CUDA (simulated or real) beside numpy's reference, on the same random velocities."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np

from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.step_solver import SolverBuffers
from motedge.runtime.gen_state import GenState
from motedge.runtime.guidance import combine
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.kernels.solver import KernelSolver
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc import UniPC
from motedge.runtime.unipc_coefficients import UniPCCoefficients


class SolverScene:
    """Buffers, solver and stream on one CUDA; the reference's state beside them."""

    def __init__(
        self,
        cuda: Any,
        library: KernelLibrary,
        vision_shape: tuple[int, int, int, int],
        action_shape: tuple[int, int],
        *,
        steps: int = 4,
        order: int = 2,
        scale: float = 3.0,
        raw_dim: Optional[int] = None,
        seed: int = 0,
    ) -> None:
        self.cuda, self.stream = cuda, cuda.stream()
        self.layout = StateLayout(vision_shape, action_shape)
        self.random = np.random.RandomState(seed)
        self.raw_dim = action_shape[1] if raw_dim is None else raw_dim
        self.scale = scale
        self.coefficients = UniPCCoefficients.from_schedule(FlowSchedule(steps, 3.0), order=order)
        counts = dict.fromkeys(("state", "v_cond", "v_uncond", "clean"), self.layout.size)
        counts.update(noise=self.layout.noise_count, t=1, findings=steps)
        counts.update(vision_noisy=vision_shape[1], action_noisy=action_shape[0])
        # Without action rows their mask is empty, and has an address all the same
        self.memory = {name: cuda.allocate(4 * max(counts[name], 1), "test") for name in counts}
        self.host = {
            name: cuda.pinned((count,), np.uint32 if name == "findings" else np.float32)
            for name, count in counts.items()
        }
        pointers = {field.name: self.memory[field.name].pointer for field in fields(SolverBuffers)}
        self.solver = KernelSolver(
            cuda, library, self.layout, SolverBuffers(**pointers), self.coefficients, scale, self.raw_dim, self.stream
        )
        self.numpy = GenState(vision_shape, action_shape)
        self.reference = UniPC(self.coefficients, self.numpy.size)
        self.inputs = self._inputs(vision_shape, action_shape)
        for name in ("noise", "clean", "vision_noisy", "action_noisy"):
            self.put(name)

    def put(self, name: str) -> None:
        if not self.host[name].size:
            return
        self.cuda.copy(self.memory[name].pointer, self.host[name].ctypes.data, self.host[name].nbytes, self.stream)
        # The array is written to again
        self.stream.synchronize()

    def get(self, name: str) -> np.ndarray:
        self.cuda.copy(self.host[name].ctypes.data, self.memory[name].pointer, self.host[name].nbytes, self.stream)
        self.stream.synchronize()
        return self.host[name].copy()

    def begin(self) -> None:
        self.solver.begin(self.stream)
        self.reference.reset()
        self.numpy.reset(self.inputs, self.host["noise"])

    def draw_velocities(self, damage: float = 0) -> None:
        """Random velocities, with anything in their gaps; `damage`: share of elements that become infinite or NaN."""
        for name in ("v_cond", "v_uncond"):
            values = self.random.standard_normal(self.layout.size).astype(np.float32)
            wrong = self.random.random_sample(values.shape) < damage
            values[wrong] = self.random.choice([np.nan, np.inf, -np.inf], wrong.sum())
            self.host[name][:] = values
            self.host[name][self._gaps()] = np.nan
            self.put(name)

    def reference_step(self, k: int, guided: bool) -> None:
        state = self.numpy
        cond, uncond = self.compact(self.host["v_cond"]), self.compact(self.host["v_uncond"])
        velocity = cond
        if guided:
            velocity = combine(cond, uncond, self.scale, out=np.empty_like(cond))
        self.reference.step(k, state.flat, velocity)
        state.hold_clean(self.inputs)

    def compact(self, vector: np.ndarray) -> np.ndarray:
        """A vector without its gaps, as the reference has it."""
        return vector[~self._gaps()]

    def check_state(self) -> None:
        """The same bits, and zeros in the gaps."""
        got = self.get("state")
        assert (self.compact(got).view(np.uint32) == self.numpy.flat.view(np.uint32)).all()
        assert (got[self._gaps()].view(np.uint32) == 0).all()

    def close(self) -> None:
        """Frees everything but the pinned arrays."""
        self.solver.close()
        for memory in self.memory.values():
            memory.free()

    def _gaps(self) -> np.ndarray:
        gaps, layout = np.ones(self.layout.size, bool), self.layout
        gaps[: layout.vision_count] = False
        gaps[layout.action_offset :][: layout.action_count] = False
        return gaps

    def _inputs(self, vision_shape: tuple[int, ...], action_shape: tuple[int, ...]) -> Any:
        """Random masks, clean values and noise, in the pinned arrays and as the reference takes them."""
        host, layout, random = self.host, self.layout, self.random
        for name in ("vision_noisy", "action_noisy"):
            host[name][:] = random.randint(0, 2, host[name].shape)
        host["noise"][:] = random.standard_normal(layout.noise_count)
        host["clean"][:] = random.standard_normal(layout.size)
        flat = self.compact(host["clean"])
        return SimpleNamespace(
            vision_noisy=host["vision_noisy"],
            action_noisy=host["action_noisy"],
            vision_clean=flat[: layout.vision_count].reshape(vision_shape),
            action_clean=flat[layout.vision_count :].reshape(action_shape),
            raw_dim=self.raw_dim,
        )
