"""The forwards of one kind of request, for steps that are solved on the host: state up, velocities down."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from motedge.runtime.cuda import Stream
from motedge.runtime.device.branch import DeviceBranch
from motedge.runtime.device.buffers import BRANCHES, TickBuffers
from motedge.runtime.device.staging import Staging
from motedge.runtime.engine import FloatArray
from motedge.runtime.finite import is_finite
from motedge.runtime.gen_state import GenState

_MODALITIES = ("vision", "action", "sound")
# Told the step and the branch's number; raises
Blame = Callable[[int, int], None]


class BranchPair:
    """Takes over the branches, the conditional one and, if any step is guided, the unconditional one."""

    def __init__(self, branches: Sequence[DeviceBranch]) -> None:
        self._branches = tuple(branches)

    def forwards(
        self, state: GenState, buffers: TickBuffers, staging: Staging, stream: Stream, blame: Blame
    ) -> tuple[HostForward, HostForward]:
        """Both, over a state on the host; without guidance the second one is never asked for anything.

        Args:
            state: sent to the device at each step.
            buffers: that the branches are bound to.
            staging: through which everything goes.
            stream: on which everything runs.
            blame: called where a velocity is not finite.
        """
        sender = _Sender(state, buffers, staging, stream)
        pair = [HostForward(sender, self._branches[min(n, len(self._branches) - 1)], n, blame) for n in range(2)]
        return pair[0], pair[1]

    def close(self) -> None:
        """Frees them; harmless when repeated."""
        for branch in self._branches:
            branch.close()


class HostForward:
    """A `Forward` of the step caches: one branch over one run."""

    def __init__(self, sender: _Sender, branch: DeviceBranch, number: int, blame: Blame) -> None:
        self._sender, self._branch, self._number, self._blame = sender, branch, number, blame
        self._velocities: tuple[FloatArray, ...] = ()

    def forward(self, step: int) -> tuple[FloatArray, ...]:
        """Velocities of vision, action and sound, valid until the next forward. Waits for them.

        Raises:
            NonFiniteError: NaN or infinity; names the graph, the step and the branch.
        """
        sender = self._sender
        sender.send(step)
        # A watch may have moved it, by a preview
        self._branch.follow_workspace()
        self._branch.enqueue(sender.stream)
        if not self._velocities:
            self._velocities = tuple(np.empty(shape, np.float32) for shape in sender.state.shapes)
        for modality, velocity in zip(_MODALITIES, self._velocities):
            pointer = sender.buffers.part(f"v_{BRANCHES[self._number]}", modality)
            sender.staging.download(velocity, pointer, sender.stream)
        if not all(map(is_finite, self._velocities)):
            self._blame(step, self._number)
        return self._velocities


class _Sender:
    """Uploads the state and the timestep, once a step."""

    def __init__(self, state: GenState, buffers: TickBuffers, staging: Staging, stream: Stream) -> None:
        self.state, self.buffers, self.staging, self.stream = state, buffers, staging, stream
        self._sent = -1

    def send(self, step: int) -> None:
        if step == self._sent:
            return
        state, buffers = self.state, self.buffers
        for modality, value in zip(_MODALITIES, (state.vision, state.action, state.sound)):
            self.staging.upload(buffers.part("state", modality), value, self.stream)
        self.staging.upload(buffers.pointer("t"), state.t, self.stream)
        self._sent = step
