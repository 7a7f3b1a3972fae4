"""The solver as an engine of the graph solver_step: for installations without the compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.step_solver import COND_NOT_FINITE, UNCOND_NOT_FINITE, SolverBuffers
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceContext, DeviceEngine
from motedge.runtime.engine import Array, FloatArray
from motedge.runtime.unipc_coefficients import UniPCCoefficients

GRAPH = "solver_step"
# sigma, guidance scale, five factors of the corrector, three of the predictor: the graph's input `coefficients`
_COEFFICIENTS = 10
# A row of a table starts at an address that engines take
_ROW = 64
# m_{k-1} and m_{k-2}
_HISTORY = 2


class GraphSolver:
    """A `StepSolver`. Outputs are copied back over the inputs, for an engine may not write what it reads."""

    kind = "graph"

    def __init__(
        self,
        cuda: Cuda,
        engine: DeviceEngine,
        workspace: Workspace,
        layout: StateLayout,
        buffers: SolverBuffers,
        coefficients: UniPCCoefficients,
        guidance_scale: float,
        raw_dim: int,
        masks: tuple[FloatArray, FloatArray],
        findings_host: Array,
        staging: Staging,
        stream: Stream,
    ) -> None:
        """Makes the context and uploads its tables.

        Args:
            cuda: where.
            engine: engine of solver_step.
            workspace: shared activations.
            layout: of the state.
            buffers: what it works on.
            coefficients: the schedule, as a table; of order 2.
            guidance_scale: of the guided steps.
            raw_dim: used channels of an action row.
            masks: vision_noisy [T] and action_noisy [A], fp32, 1 noisy: fixed for this solver. Sound
                is generated, all of it.
            findings_host: page-locked uint32, two elements a step or more.
            staging: for the uploads.
            stream: for them too.
        """
        self._cuda, self._layout, self._buffers, self._workspace = cuda, layout, buffers, workspace
        self._steps = coefficients.steps
        self._magnitudes: Array = findings_host[: 2 * self._steps].view(np.float32).reshape(self._steps, 2)
        self._block: Optional[PlannedBlock] = None
        self._context: DeviceContext = engine.context({"M": layout.size})
        try:
            workspace.lend(self._context)
            self._block = PlannedBlock(cuda, _sizes_bytes(layout, self._steps), "solver")
            tables = {
                "noisy": _noisy(layout, raw_dim, masks),
                "coefficients": _coefficient_table(coefficients, guidance_scale),
                "t": _timestep_table(coefficients),
            }
            for name, value in tables.items():
                staging.upload(self._block.pointer(name), value, stream)
            self._bind_fixed()
        except BaseException:
            self.close()
            raise

    @property
    def capture_refusal(self) -> Optional[str]:
        """See `StepSolver.capture_refusal`."""
        return self._context.capture_refusal

    def begin(self, stream: Stream) -> None:
        """See `StepSolver.begin`. The clean positions come in through a step that leaves the rest as it is."""
        layout, at, buffers = self._layout, self._pointer, self._buffers
        self._cuda.zero(buffers.state, layout.nbytes, stream)
        for _, start, count in layout.spans:
            self._cuda.copy(buffers.state + 4 * start, buffers.noise, 4 * count, stream)
        for name, copies in (("corrected", 1), ("history", _HISTORY)):
            self._cuda.zero(at(name), copies * layout.nbytes, stream)
        # The state stands in for the velocities, which may hold anything yet: times 0, it must be finite
        self._run(self._steps, buffers.state, buffers.state, at("next_corrected"), stream)
        self._cuda.copy(buffers.state, at("next_state"), layout.nbytes, stream)
        self._cuda.copy(buffers.t, at("t"), 4, stream)

    def step(self, k: int, guided: bool, stream: Stream) -> None:
        """See `StepSolver.step`."""
        size, at, buffers = self._layout.nbytes, self._pointer, self._buffers
        unconditional = buffers.v_uncond if guided else buffers.v_cond
        self._run(k, buffers.v_cond, unconditional, at("magnitude") + 4 * _ROW * k, stream)
        self._cuda.copy(buffers.state, at("next_state"), size, stream)
        self._cuda.copy(at("corrected"), at("next_corrected"), size, stream)
        self._cuda.copy(at("history"), at("next_history"), _HISTORY * size, stream)
        if k + 1 < self._steps:
            self._cuda.copy(buffers.t, at("t") + 4 * _ROW * (k + 1), 4, stream)

    def fetch_findings(self, stream: Stream) -> None:
        """See `StepSolver.fetch_findings`."""
        host, width = self._magnitudes, 2 * self._magnitudes.itemsize
        self._cuda.copy_rows(host.ctypes.data, width, self._pointer("magnitude"), 4 * _ROW, width, self._steps, stream)

    def findings(self) -> Sequence[int]:
        """See `StepSolver.findings`. The sum of magnitudes is not finite if any velocity is not."""
        wrong = ~np.isfinite(self._magnitudes)
        bits: Any = wrong[:, 0] * COND_NOT_FINITE + (wrong[:, 1] & ~wrong[:, 0]) * UNCOND_NOT_FINITE
        return [int(value) for value in bits]

    def follow_workspace(self) -> None:
        """See `StepSolver.follow_workspace`."""
        self._workspace.lend(self._context)

    def close(self) -> None:
        """See `StepSolver.close`."""
        self._context.close()
        if self._block is not None:
            self._block.free()

    def _run(self, row: int, v_cond: int, v_uncond: int, magnitude: int, stream: Stream) -> None:
        context = self._context
        context.bind("v_cond", v_cond)
        context.bind("v_uncond", v_uncond)
        context.bind("coefficients", self._pointer("coefficients") + 4 * _ROW * row)
        context.bind("magnitude", magnitude)
        context.enqueue(stream)

    def _bind_fixed(self) -> None:
        for name in ("corrected", "history", "noisy", "next_state", "next_corrected", "next_history"):
            self._context.bind(name, self._pointer(name))
        for name in ("state", "clean", "v_cond", "v_uncond"):
            self._context.bind(name, getattr(self._buffers, name))
        # Of the first step; every step binds its own
        for name in ("coefficients", "magnitude"):
            self._context.bind(name, self._pointer(name))

    def _pointer(self, name: str) -> int:
        return 0 if self._block is None else self._block.pointer(name)


def _sizes_bytes(layout: StateLayout, steps: int) -> dict[str, int]:
    """Of what a solver holds; tables have a row a step and one more."""
    vectors = ("noisy", "corrected", "next_state", "next_corrected")
    histories = ("history", "next_history")
    return {
        **dict.fromkeys(vectors, layout.nbytes),
        **dict.fromkeys(histories, _HISTORY * layout.nbytes),
        **dict.fromkeys(("coefficients", "t"), 4 * _ROW * (steps + 1)),
        "magnitude": 4 * _ROW * steps,
    }


def _noisy(layout: StateLayout, raw_dim: int, masks: tuple[FloatArray, FloatArray]) -> FloatArray:
    """1 where the state moves, fp32 [size]; gaps and unused channels are clean, with the value 0."""
    flat = np.zeros(layout.size, np.float32)
    flat[: layout.vision_count].reshape(layout.vision_shape)[...] = masks[0][None, :, None, None]
    action = flat[layout.action_offset :][: layout.action_count].reshape(layout.action_shape)
    action[:, :raw_dim] = masks[1][:, None]
    flat[layout.sound_offset :][: layout.sound_count] = 1
    return flat


def _coefficient_table(coefficients: UniPCCoefficients, scale: float) -> FloatArray:
    """One row a step, and one that changes nothing: sigma 0, both results the state. fp32 [steps + 1, _ROW]."""
    table = np.zeros((coefficients.steps + 1, _ROW), np.float32)
    for k in range(coefficients.steps):
        row = [coefficients.sigmas[k], scale, *coefficients.correct[k], *coefficients.predict[k]]
        table[k, :_COEFFICIENTS] = row
    table[-1, :_COEFFICIENTS] = [0, 1, 1, 0, 0, 0, 0, 1, 0, 0]
    return table


def _timestep_table(coefficients: UniPCCoefficients) -> FloatArray:
    table = np.zeros((coefficients.steps + 1, _ROW), np.float32)
    table[:-1, 0] = coefficients.timesteps
    return table
