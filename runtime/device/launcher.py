"""The three ways through a request's steps on a GPU: enqueued whole, one by one to be watched, solved on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from motedge.runtime.cuda import Cuda, Event, Stream
from motedge.runtime.device.buffers import TickBuffers
from motedge.runtime.device.launchable import host_reason
from motedge.runtime.device.postmortem import clean_vision, raise_for
from motedge.runtime.device.program import TickProgram
from motedge.runtime.device.programs import Programs
from motedge.runtime.device.prompts import DevicePrompt
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.step_solver import COND_NOT_FINITE, UNCOND_NOT_FINITE
from motedge.runtime.engine import FloatArray
from motedge.runtime.gen_state import GenState
from motedge.runtime.guidance import combine
from motedge.runtime.host_solvers import HostSolvers
from motedge.runtime.host_steps import HostSteps
from motedge.runtime.request import GenInputs, SamplerSettings, StepTiming
from motedge.runtime.step_view import StepView, StepWatch


@dataclass(frozen=True)
class Launch:
    """One request, with everything in place on the device but the clean frames' copy on the host."""

    inputs: GenInputs
    settings: SamplerSettings
    buffers: TickBuffers
    prompts: Sequence[DevicePrompt]
    # fp32 [noise_count], as it was uploaded too
    noise: FloatArray
    watch: Optional[StepWatch] = None


@dataclass(frozen=True)
class Outcome:
    """What was launched; the state is denoised once the stream has been waited for."""

    # "one CUDA graph", "piece by piece: ..." or "step by step: ..."
    launch: str
    forwards: int
    reused: int
    # Whether contexts were made for it
    made: bool
    # One by one; empty where they ran without the host
    steps: tuple[StepTiming, ...] = ()
    # After the wait: raises NonFiniteError where a velocity was not finite
    check: Callable[[], None] = lambda: None
    # After the wait: all steps by the GPU's clock; None where `steps` has them
    graph_ms: Callable[[], Optional[float]] = lambda: None
    # After the wait: tells the spans of the steps, where they are timed
    tell_times: Callable[[], None] = lambda: None


class Launcher:
    """Holds events and the host's solver, made once. Closes nothing: `programs` belongs to the loop."""

    def __init__(self, cuda: Cuda, programs: Programs, staging: Staging, stream: Stream) -> None:
        """`stream`: on which everything runs."""
        self._programs, self._staging, self._stream = programs, staging, stream
        self._marks: list[Event] = [cuda.event() for _ in range(5)]
        self._solvers = HostSolvers()
        self._state: Optional[GenState] = None

    @property
    def finished(self) -> Event:
        """Recorded behind the last step of each request."""
        return self._marks[1]

    def run(self, launch: Launch) -> Outcome:
        """Enqueues the steps, or runs them.

        Raises:
            NonFiniteError: of steps that run one by one; of the others, `Outcome.check` tells.
        """
        reason = host_reason(launch.settings)
        if reason is not None:
            return self._on_host(launch, reason)
        program, made = self._programs.take(launch.inputs, launch.settings, launch.prompts, launch.buffers)
        if launch.watch is not None:
            return self._watched(launch, program, made, launch.watch)
        self._marks[0].record(self._stream)
        program.launch(self._stream)
        self._marks[1].record(self._stream)
        program.solver.fetch_findings(self._stream)
        how = "one CUDA graph" if program.captured else f"piece by piece: {program.refusal or 'first of its kind'}"
        return Outcome(
            how,
            program.forwards,
            program.reused,
            made,
            check=lambda: self._raise(program.solver.findings(), launch),
            graph_ms=lambda: self._marks[1].elapsed_ms(self._marks[0]),
            tell_times=program.tell_times,
        )

    def _watched(self, launch: Launch, program: TickProgram, made: bool, watch: StepWatch) -> Outcome:
        """Steps one by one, each waited for and shown."""
        schedule, stream, marks = launch.settings.schedule(), self._stream, self._marks
        times, shown = schedule.timesteps.tolist(), _Shown(launch, self._staging, stream)
        steps = []
        program.solver.begin(stream)
        for k, (t, guided, computed) in enumerate(zip(times, program.guided, program.computed)):
            marks[0].record(stream)
            for branch in range(2):
                program.enqueue_forward(k, branch, stream)
                marks[1 + branch].record(stream)
            vision, velocity = shown.look(guided)
            watch(StepView(k, len(times), float(schedule.sigmas[k]), vision, velocity))
            # Which may have moved it, by a preview
            program.follow_workspace()
            marks[3].record(stream)
            program.solver.step(k, guided, stream)
            marks[4].record(stream)
            program.solver.fetch_findings(stream)
            stream.synchronize()
            self._raise([0] * k + [program.solver.findings()[k]], launch)
            cond_ms, uncond_ms, solver_ms = (marks[i + 1].elapsed_ms(marks[i]) for i in (0, 1, 3))
            reused = not computed[0], guided and not computed[1]
            steps.append(StepTiming(t, cond_ms, uncond_ms if guided else None, solver_ms, *reused))
        marks[1].record(stream)
        return Outcome("step by step: each is shown", program.forwards, program.reused, made, tuple(steps))

    def _on_host(self, launch: Launch, reason: str) -> Outcome:
        """Velocities come down, numpy moves the state, the state goes up."""
        buffers, staging, stream = launch.buffers, self._staging, self._stream
        pair, made = self._programs.take_branches(launch.inputs, launch.prompts, buffers)
        # Of a policy, the encoder has put the clean frames in place on the device
        clean = clean_vision(buffers, staging, stream, launch.inputs)
        inputs = dataclasses.replace(launch.inputs, vision_clean=clean)
        layout = buffers.layout
        shapes = layout.vision_shape, layout.action_shape, layout.sound_shape
        if self._state is None or self._state.shapes != shapes:
            self._state = GenState(*shapes)
        state, schedule = self._state, launch.settings.schedule()
        state.reset(inputs, launch.noise)

        def blame(step: int, branch: int) -> None:
            self._raise([0] * step + [(COND_NOT_FINITE, UNCOND_NOT_FINITE)[branch]], launch)

        branches = pair.forwards(state, buffers, staging, stream, blame)
        solver = self._solvers.take(schedule, state, inputs.seed)
        steps = HostSteps(inputs, launch.settings, schedule, state, solver, branches).run(launch.watch)
        for modality, value in (("vision", state.vision), ("action", state.action), ("sound", state.sound)):
            staging.upload(buffers.part("state", modality), value, stream)
        self._marks[1].record(stream)
        forwards, reused = sum(step.forwards for step in steps), sum(step.reused for step in steps)
        return Outcome(f"step by step: {reason}", forwards, reused, made, steps)

    def _raise(self, findings: Sequence[int], launch: Launch) -> None:
        raise_for(findings, launch.buffers, launch.prompts, self._staging, self._stream, launch.inputs)


class _Shown:
    """What a watch is shown of the steps, in arrays that are filled anew."""

    def __init__(self, launch: Launch, staging: Staging, stream: Stream) -> None:
        self._buffers, self._staging, self._stream = launch.buffers, staging, stream
        self._scale = launch.settings.guidance_plan().scale
        shape = launch.buffers.layout.vision_shape
        self._vision, self._cond, self._uncond, self._both = (np.empty(shape, np.float32) for _ in range(4))

    def look(self, guided: bool) -> tuple[FloatArray, FloatArray]:
        """State and velocity of vision, guidance included. Waits for the forwards."""
        self._fetch(self._vision, "state")
        self._fetch(self._cond, "v_cond")
        if not guided:
            return self._vision, self._cond
        self._fetch(self._uncond, "v_uncond")
        return self._vision, combine(self._cond, self._uncond, self._scale, out=self._both)

    def _fetch(self, into: FloatArray, vector: str) -> None:
        self._staging.download(into, self._buffers.pointer(vector), self._stream)
