"""The solver's step as one CUDA kernel: guidance, UniPC, clean positions and the next timestep in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from motedge.errors import ContractError, UsageError
from motedge.runtime.cuda import Cuda, DeviceMemory, Kernel, Stream
from motedge.runtime.cuda.interface import KernelArgument
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.step_solver import SolverBuffers
from motedge.runtime.engine import FloatArray
from motedge.runtime.kernels.library import KernelLibrary
from motedge.runtime.unipc_coefficients import UniPCCoefficients

# struct StepRow of kernels/solver.cu: sigma, scale, t, -, six factors of the corrector, four of the predictor, -, -
_ROW = 16
_CORRECT_AT, _PREDICT_AT = 4, 10
_MAX_ORDER = 3
# Bits of `terms` in kernels/solver.cu: factor i of the corrector, of the predictor; what later steps read
_CORRECT_BIT, _PREDICT_BIT, KEEP_CORRECTED, KEEP_VALUE = 0, 6, 1 << 10, 1 << 11
_THREADS = 256
_ELEMENTS_A_THREAD = 4


class KernelSolver:
    """A `StepSolver`; equal to numpy's solver bit for bit."""

    kind = "kernel"

    def __init__(
        self,
        cuda: Cuda,
        library: KernelLibrary,
        layout: StateLayout,
        buffers: SolverBuffers,
        coefficients: UniPCCoefficients,
        guidance_scale: float,
        raw_dim: int,
        stream: Stream,
        findings_host: Optional[NDArray[np.uint32]] = None,
        staging: Optional[Staging] = None,
    ) -> None:
        """Allocates the history and the table of steps, and uploads the table.

        Args:
            cuda: where.
            library: the compiled kernels.
            layout: of the state.
            buffers: what it works on.
            coefficients: the schedule as a table.
            guidance_scale: of the guided steps.
            raw_dim: used channels of an action row.
            stream: for the upload, which is waited for.
            findings_host: page-locked, an element a step or more; None: its own, which lives as long as `cuda`.
            staging: for the upload; None: the library's.

        Raises:
            ContractError: sizes that the kernel does not take.
            OutOfDeviceMemoryError: no room for the history; nothing stays allocated.
        """
        _check(layout, buffers, coefficients, raw_dim)
        self._cuda, self._layout, self._buffers, self._raw_dim = cuda, layout, buffers, raw_dim
        self._steps, self._kept = coefficients.steps, coefficients.order + 1
        self._terms = tuple(_terms(coefficients, k) for k in range(self._steps))
        self._begin = library.kernel("motedge_solver_begin")
        self._step = library.kernel("motedge_solver_step")
        host = cuda.pinned((self._steps,), np.uint32) if findings_host is None else findings_host
        self._findings: NDArray[np.uint32] = host[: self._steps]
        table = step_table(coefficients, guidance_scale)
        upload = library.staging if staging is None else staging
        # [corrected | history [kept] | table], each part at a multiple of 256 bytes
        held_bytes = (1 + self._kept) * layout.nbytes
        self._memory: Optional[DeviceMemory] = cuda.allocate(held_bytes + table.nbytes, "solver")
        self._corrected = self._memory.pointer
        self._history = self._corrected + layout.nbytes
        self._table = self._corrected + held_bytes
        try:
            upload.upload(self._table, table, stream)
        except BaseException:
            self.close()
            raise

    @property
    def capture_refusal(self) -> Optional[str]:
        """See `StepSolver.capture_refusal`."""
        return None

    def begin(self, stream: Stream) -> None:
        """See `StepSolver.begin`. The history is not cleared: steps without one don't read it."""
        at = self._buffers
        arguments = [
            *_pointers(at.state, at.noise, at.clean, at.vision_noisy, at.action_noisy, at.t, at.findings, self._table),
            np.int32(self._steps),
            *self._shape(),
        ]
        self._launch(self._begin, arguments, stream)

    def step(self, k: int, guided: bool, stream: Stream) -> None:
        """See `StepSolver.step`."""
        if not 0 <= k < self._steps:
            raise UsageError("the schedule has no such step", expected=f"0 to {self._steps - 1}", got=k)
        at = self._buffers
        arguments = [
            *_pointers(at.state, at.v_cond, at.v_uncond, at.clean, at.vision_noisy, at.action_noisy, at.t, at.findings),
            *_pointers(self._corrected, self._history, self._table),
            np.int32(k),
            np.int32(self._steps),
            np.int32(guided),
            np.uint32(self._terms[k]),
            np.int32(self._kept),
            *self._shape(),
        ]
        self._launch(self._step, arguments, stream)

    def fetch_findings(self, stream: Stream) -> None:
        """See `StepSolver.fetch_findings`."""
        self._cuda.copy(self._findings.ctypes.data, self._buffers.findings, self._findings.nbytes, stream)

    def findings(self) -> Sequence[int]:
        """See `StepSolver.findings`."""
        return [int(bits) for bits in self._findings]

    def follow_workspace(self) -> None:
        """See `StepSolver.follow_workspace`. It needs none."""

    def moved_bytes(self, k: int, guided: bool) -> int:
        """Bytes that step k reads and writes in whole vectors; values of clean positions come on top."""
        terms, order = self._terms[k], self._kept - 1
        # State in and out, velocities
        vectors = 2 + 1 + guided
        vectors += terms >> (_CORRECT_BIT + 1) & 1
        for back in range(1, order + 1):
            # m_{k-back}, which corrector and predictor share
            predicted = back < order and terms >> (_PREDICT_BIT + 1 + back) & 1
            vectors += bool(terms >> (_CORRECT_BIT + 2 + back) & 1 or predicted)
        vectors += bool(terms & KEEP_CORRECTED) + bool(terms & KEEP_VALUE)
        return vectors * self._layout.nbytes

    def close(self) -> None:
        """See `StepSolver.close`."""
        if self._memory is not None:
            self._memory.free()
            self._memory = None

    def _launch(self, kernel: Kernel, arguments: Sequence[KernelArgument], stream: Stream) -> None:
        if self._memory is None:
            raise UsageError("the solver was closed", fix="make another one")
        blocks = -(-self._layout.size // (_THREADS * _ELEMENTS_A_THREAD))
        self._cuda.launch(kernel, blocks, _THREADS, arguments, stream)

    def _shape(self) -> list[KernelArgument]:
        """struct StateShape of kernels/solver.cu."""
        layout = self._layout
        _, frames, rows, columns = layout.vision_shape
        sizes = (
            layout.vision_count,
            rows * columns,
            frames,
            layout.action_offset,
            layout.action_count,
            layout.action_shape[1],
            self._raw_dim,
            layout.size,
        )
        return [np.int32(size) for size in sizes]


def step_table(coefficients: UniPCCoefficients, guidance_scale: float) -> FloatArray:
    """The table that the kernel reads, fp32 [steps, 16]: struct StepRow of kernels/solver.cu, a row a step."""
    table = np.zeros((coefficients.steps, _ROW), np.float32)
    table[:, 0] = coefficients.sigmas[:-1]
    table[:, 1] = guidance_scale
    table[:, 2] = coefficients.timesteps
    table[:, _CORRECT_AT : _CORRECT_AT + coefficients.correct.shape[1]] = coefficients.correct
    table[:, _PREDICT_AT : _PREDICT_AT + coefficients.predict.shape[1]] = coefficients.predict
    return table


def _terms(coefficients: UniPCCoefficients, k: int) -> int:
    """Which factors of step k are not 0, and whether a later step reads c_k and m_k: what else is moved is wasted."""
    correct, predict = coefficients.correct, coefficients.predict
    bits = sum(1 << (_CORRECT_BIT + i) for i in np.flatnonzero(correct[k]).tolist())
    bits += sum(1 << (_PREDICT_BIT + i) for i in np.flatnonzero(predict[k]).tolist())
    later = range(k + 1, min(k + 1 + coefficients.order, coefficients.steps))
    if k + 1 < coefficients.steps and correct[k + 1, 1] != 0:
        bits |= KEEP_CORRECTED
    # m_k is the value `back` = step - k steps ago
    if any(correct[step, 2 + step - k] != 0 for step in later) or any(
        predict[step, 1 + step - k] != 0 for step in later if step - k < coefficients.order
    ):
        bits |= KEEP_VALUE
    return bits


def _pointers(*addresses: int) -> list[KernelArgument]:
    return [np.uint64(address) for address in addresses]


def _check(layout: StateLayout, buffers: SolverBuffers, coefficients: UniPCCoefficients, raw_dim: int) -> None:
    if coefficients.order > _MAX_ORDER:
        raise ContractError(
            "the solver's kernel has no such order", expected=f"1 to {_MAX_ORDER}", got=coefficients.order
        )
    if layout.size >= 1 << 31:
        raise ContractError("the solver's kernel counts in 32 bits", expected="below 2**31 elements", got=layout.size)
    if not 0 < raw_dim <= layout.action_shape[1]:
        raise ContractError("raw_dim is wrong", expected=f"1 to {layout.action_shape[1]} channels", got=raw_dim)
    for name in ("state", "v_cond", "v_uncond", "clean"):
        if getattr(buffers, name) % 16:
            raise ContractError(
                f"the solver's kernel can't take {name} where it lies",
                expected="an address that is a multiple of 16",
                got=hex(getattr(buffers, name)),
                why="it reads four values at a time",
            )
