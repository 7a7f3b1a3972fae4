"""The kinds of requests that were made ready: contexts and captured graphs, a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Optional, TypeVar, Union

from motedge.errors import UsageError
from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.branch import DeviceBranch
from motedge.runtime.device.branch_pair import BranchPair
from motedge.runtime.device.buffers import BRANCHES, TickBuffers
from motedge.runtime.device.launchable import fixed_cache, launchable_schedule
from motedge.runtime.device.program import TickProgram
from motedge.runtime.device.prompts import DevicePrompt
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.guidance import GuidancePlan
from motedge.runtime.request import GenInputs, SamplerSettings
from motedge.runtime.request_plan import gen_dims, gen_layout
from motedge.runtime.rope import GenLayout, RotaryTable
from motedge.runtime.schedule import FlowSchedule
from motedge.runtime.spans import device_steps_wanted
from motedge.runtime.step_cache.options import FixedCache

_Made = TypeVar("_Made", TickProgram, BranchPair)


class Programs:
    """Makes a `TickProgram` for each kind of request and keeps the last used ones.

    A kind is: prompt lengths, shapes and rates, schedule, guidance, forwards left out, which positions are clean, used
    channels, and whether each step is timed. Of a request that is solved on the host a `BranchPair`: prompt lengths,
    shapes and rates.
    """

    def __init__(
        self,
        cuda: Cuda,
        gen: DeviceEngine,
        solvers: SolverSource,
        rotary: RotaryTable,
        workspace: Workspace,
        staging: Staging,
        stream: Stream,
        *,
        patch: int,
        capture: bool,
        max_programs: int,
    ) -> None:
        """`patch`: latent pixels of a token's side; `capture`: whether loops are captured in CUDA graphs."""
        if max_programs < 1:
            raise UsageError("no room for a single captured loop", expected="max_programs of at least 1")
        self._cuda, self._gen, self._solvers, self._rotary = cuda, gen, solvers, rotary
        self._workspace, self._staging, self._stream = workspace, staging, stream
        self._patch, self._capture, self._max = patch, capture, max_programs
        self._generation = workspace.generation
        self._kept: OrderedDict[object, Union[TickProgram, BranchPair]] = OrderedDict()

    def kept(self) -> tuple[Union[TickProgram, BranchPair], ...]:
        """What is kept, the oldest first."""
        return tuple(self._kept.values())

    def take(
        self, inputs: GenInputs, settings: SamplerSettings, prompts: Sequence[DevicePrompt], buffers: TickBuffers
    ) -> tuple[TickProgram, bool]:
        """The program of this kind of request, and whether it was made just now.

        Raises:
            ContractError: sizes outside a graph's profile.
            OutOfDeviceMemoryError: no room for its contexts.
        """
        schedule, plan, cache = launchable_schedule(settings), settings.guidance_plan(), fixed_cache(settings)
        layouts = tuple(gen_layout(inputs, prompt.und_len) for prompt in prompts)
        masks = inputs.vision_noisy.tobytes(), inputs.action_noisy.tobytes()
        key = (layouts, schedule, plan, cache, masks, inputs.raw_dim, device_steps_wanted())
        return self._keep(key, lambda: self._make(inputs, schedule, plan, cache, layouts, buffers))

    def take_branches(
        self, inputs: GenInputs, prompts: Sequence[DevicePrompt], buffers: TickBuffers
    ) -> tuple[BranchPair, bool]:
        """The forwards of a kind of request that is solved on the host; see `take`."""
        layouts = tuple(gen_layout(inputs, prompt.und_len) for prompt in prompts)
        return self._keep(("host", layouts), lambda: BranchPair(self._branches(inputs, layouts, buffers)))

    def _keep(self, key: object, make: Callable[[], _Made]) -> tuple[_Made, bool]:
        self._follow_workspace()
        if key in self._kept:
            self._kept.move_to_end(key)
            # What lies under a key was made for it
            return self._kept[key], False  # type: ignore[return-value]
        while len(self._kept) >= self._max:
            self._kept.popitem(last=False)[1].close()
        made = make()
        if self._follow_workspace():
            # It grew while this was made, whose first parts hold the old address
            made.close()
            made = make()
        self._kept[key] = made
        return made, True

    def drop(self) -> None:
        """Frees all contexts and graphs; nothing of them may be running."""
        while self._kept:
            self._kept.popitem()[1].close()

    def _make(
        self,
        inputs: GenInputs,
        schedule: FlowSchedule,
        plan: GuidancePlan,
        cache: Optional[FixedCache],
        layouts: Sequence[GenLayout],
        buffers: TickBuffers,
    ) -> TickProgram:
        solver = self._solvers.make(buffers, schedule, plan.scale, inputs, self._staging, self._stream)
        try:
            branches = self._branches(inputs, layouts, buffers)
        except BaseException:
            solver.close()
            raise
        guided = [plan.active(int(t)) for t in schedule.timesteps]
        refusal: Optional[str] = None if self._capture else "switched off"
        computed = None if cache is None else cache.computed(guided)
        return TickProgram(
            self._cuda, solver, branches, guided, computed=computed, refusal=refusal, timed=device_steps_wanted()
        )

    def _branches(
        self, inputs: GenInputs, layouts: Sequence[GenLayout], buffers: TickBuffers
    ) -> tuple[DeviceBranch, ...]:
        made: list[DeviceBranch] = []
        try:
            for name, layout in zip(BRANCHES, layouts):
                made.append(self._branch(name, gen_dims(inputs, layout.und_len, self._patch), layout, buffers))
        except BaseException:
            BranchPair(made).close()
            raise
        return tuple(made)

    def _branch(self, name: str, dims: dict[str, int], layout: GenLayout, buffers: TickBuffers) -> DeviceBranch:
        rotary = self._rotary.generator(layout)
        return DeviceBranch(
            self._cuda, self._gen, dims, buffers, self._workspace, rotary, self._staging, name, self._stream
        )

    def _follow_workspace(self) -> bool:
        """Drops what holds the workspace's old address, if it moved; says whether it did."""
        moved = self._workspace.generation != self._generation
        self._generation = self._workspace.generation
        if moved:
            self.drop()
        return moved
