"""Which solver advances the state: the fused kernel where it was compiled for this GPU, else the bundle's graph.

The kernel knows vision and action; sound is solved by the graph, which takes any flat state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from motedge.errors import ContractError, HostError
from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.buffers import TickBuffers
from motedge.runtime.device.graph_solver import GraphSolver
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.step_solver import StepSolver
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.kernels import KernelLibrary
from motedge.runtime.kernels.solver import KernelSolver
from motedge.runtime.request import GenInputs
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.unipc_coefficients import UniPCCoefficients


@dataclass(frozen=True)
class SolverSource:
    """Makes solvers. Holds the engine of solver_step, if there is one; it belongs to the caller."""

    cuda: Cuda
    workspace: Workspace
    kernels: Optional[KernelLibrary]
    graph: Optional[DeviceEngine]

    def __post_init__(self) -> None:
        if self.kernels is None and self.graph is None:
            raise HostError(
                "nothing here can advance the state on the GPU",
                expected="the compiled kernels, or an engine of the graph solver_step",
                got="neither",
                fix="bash scripts/build_kernels.sh; or export again, which adds solver_step, and build its engine",
            )

    @property
    def kind(self) -> str:
        """ "kernel" or "graph"."""
        return "graph" if self.kernels is None else "kernel"

    def make(
        self,
        buffers: TickBuffers,
        schedule: FlowSchedule,
        guidance_scale: float,
        inputs: GenInputs,
        staging: Staging,
        stream: Stream,
    ) -> StepSolver:
        """A solver for one schedule, scale and set of masks."""
        coefficients = UniPCCoefficients.from_schedule(schedule)
        if self.kernels is not None and not buffers.layout.sound_count:
            return KernelSolver(
                self.cuda,
                self.kernels,
                buffers.layout,
                buffers.solver(),
                coefficients,
                guidance_scale,
                inputs.raw_dim,
                stream,
                buffers.findings,
                staging,
            )
        if self.graph is None:
            raise HostError(
                "the state with sound can't be advanced on the GPU",
                expected="an engine of the graph solver_step",
                why="the compiled kernel knows vision and action alone",
                fix="export again, which adds solver_step, and build its engine",
            )
        most = self.graph.contract.profile["M"][2]
        if buffers.layout.sound_count and buffers.layout.size > most:
            raise ContractError(
                "graph 'solver_step' is too narrow for that much sound",
                expected=f"at most {most:,} elements",
                got=f"{buffers.layout.size:,}",
                why="earlier versions of motedge exported it for vision and action alone",
                fix="export again, with the group sound, and build its engine; or take a shorter video",
            )
        return GraphSolver(
            self.cuda,
            self.graph,
            self.workspace,
            buffers.layout,
            buffers.solver(),
            coefficients,
            guidance_scale,
            inputs.raw_dim,
            (inputs.vision_noisy, inputs.action_noisy),
            buffers.findings,
            staging,
            stream,
        )
