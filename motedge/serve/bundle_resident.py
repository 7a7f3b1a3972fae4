"""A bundle loaded to be served: opened, put under a deadline if asked for, warmed up."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Mapping
from typing import Any, Optional, Union

from motedge.bundle import Bundle
from motedge.errors import InternalError
from motedge.runtime.deadline import DeadlineMissedError, DeadlinePolicy, Ladder, with_deadlines
from motedge.runtime.policy import ActionChunk, Observation, Policy, load_policy
from motedge.runtime.reasoned.policy import ReasonedPolicy
from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner
from motedge.serve.bundle_choice import BundleChoice
from motedge.serve.metadata import policy_metadata
from motedge.serve.policy_request import PolicyRequest
from motedge.serve.recording import Recording, recording_of

LOG = logging.getLogger(__name__)
# On a GPU the first tick runs piece by piece, the second is captured as a graph, the third replays it
_WARM_UP_TICKS = 3
# Ticks of each operating point before the first request, beside two cold ones
_WARM_UP_ROUNDS = 3
# Given, so that the policy's own sequence of seeds stays where it is
_WARM_UP_SEED = 0
Acting = Union[Policy, ReasonedPolicy]


class BundleResident:
    """See `motedge.serve.resident.Resident`."""

    def __init__(
        self,
        model: str,
        metadata: Mapping[str, Any],
        generation: int,
        acting: Union[Acting, DeadlinePolicy, None],
        thinking: Optional[ReasonedPolicy],
        reasoner: Optional[BundleReasoner],
        recording: Optional[Recording],
        opened: contextlib.ExitStack,
    ) -> None:
        """Takes over what was opened; `opened` closes it."""
        self.model, self.metadata, self.generation, self.reasoner = model, metadata, generation, reasoner
        self._acting, self._thinking, self._recording, self._opened = acting, thinking, recording, opened

    def act(self, request: PolicyRequest, arrived_s: float, due_s: Optional[float]) -> ActionChunk:
        """See `Resident.act`. Without a deadline of the server's, one of the request's changes nothing about the tick:
        it can't be met by a cheaper point, and is only counted."""
        given: dict[str, Any] = {"seed": request.seed, "committed": request.committed}
        if isinstance(self._acting, DeadlinePolicy):
            left_ms = None if due_s is None else max(1e3 * (due_s - time.monotonic()), 1e-3)
            chunk = self._acting.act(request.observation, deadline_ms=left_ms, observed_at_s=arrived_s, **given)
            _require_own(chunk, request)
            return chunk
        if self._acting is None:
            raise InternalError("an observation came where no policy is served")
        chunk = self._acting.act(request.observation, **given)
        return dataclasses.replace(chunk, age_s=time.monotonic() - arrived_s)

    def keep(self, request: PolicyRequest, chunk: ActionChunk) -> None:
        """See `Resident.keep`."""
        if self._recording is not None:
            self._recording.keep(request, chunk)

    def leave(self) -> None:
        """See `Resident.leave`."""
        if self._recording is not None:
            self._recording.close()

    def think(self) -> bool:
        """See `Resident.think`."""
        return self._thinking is not None and self._thinking.think()

    def close(self) -> None:
        """See `Resident.close`."""
        self.leave()
        self._opened.close()


def _require_own(chunk: ActionChunk, request: PolicyRequest) -> None:
    """What is left of another robot's chunk is no answer: its actions are that robot's."""
    if chunk.source != request.observation.source:
        raise DeadlineMissedError(
            "the deadline was missed",
            why="what is left of the last chunk is another client's, and not given to this one",
        )


def load_resident(choice: BundleChoice, generation: int) -> BundleResident:
    """Opens a bundle, and runs what is slow the first time.

    Raises:
        BundleError, UsageError, ObservationError, HostError: as of `load_policy`, `load_reasoner` and `with_deadlines`.
    """
    # Of the folder that a link shows to now: all files are one bundle's, whatever becomes of the link
    root = choice.bundle.resolve()
    bundle = Bundle.open(root)
    model = bundle.manifest.model
    name = str((model.get("checkpoint") or {}).get("name") or f"cosmos3-{model.get('family')}")
    with contextlib.ExitStack() as opened:
        acting: Union[Acting, DeadlinePolicy, None] = None
        thinking: Optional[ReasonedPolicy] = None
        metadata: dict[str, Any] = {}
        recording: Optional[Recording] = None
        blank: Optional[Observation] = None
        if choice.serve_policy:
            loaded = _load_acting(choice, str(root))
            acting = _closed_by(opened, loaded, choice)
            thinking = loaded if isinstance(loaded, ReasonedPolicy) else None
            policy = loaded.policy if isinstance(loaded, ReasonedPolicy) else loaded
            metadata = policy_metadata(bundle, policy)
            blank = policy.protocol.blank(choice.warm_up_instruction, policy.shape)
            if choice.recording is not None:
                recording = recording_of(choice.recording, root, choice.engines, loaded.settings)
        reasoner = opened.enter_context(_load_reasoner(choice, str(root))) if choice.chat else None
        if acting is not None and blank is not None:
            _warm_up(acting, blank)
        if recording is not None and generation == 1:
            # At once, so that a wrong folder is told; a later bundle takes the ring when the one before has left it
            recording.open()
        return BundleResident(name, metadata, generation, acting, thinking, reasoner, recording, opened.pop_all())


def _load_acting(choice: BundleChoice, root: str) -> Acting:
    options = {**choice.engines, **choice.policy}
    if choice.reason is None:
        return load_policy(root, **options)
    from motedge.runtime.reasoned.loader import load_reasoned_policy

    return load_reasoned_policy(root, choice.reason, **options)


def _load_reasoner(choice: BundleChoice, root: str) -> BundleReasoner:
    from motedge.runtime.reasoner.loader import load_reasoner

    return load_reasoner(root, capacity=choice.capacity, **choice.engines)


def _closed_by(opened: contextlib.ExitStack, loaded: Acting, choice: BundleChoice) -> Union[Acting, DeadlinePolicy]:
    """The policy, under a deadline if there is one. It is closed once: not every policy may be twice."""
    if choice.deadline_ms is None:
        opened.callback(loaded.close)
        return loaded
    with contextlib.ExitStack() as guard:
        guard.callback(loaded.close)
        ladder = None if choice.ladder is None else Ladder.from_toml(choice.ladder, loaded.settings)
        acting = with_deadlines(loaded, ladder, deadline_ms=choice.deadline_ms)
        # From here on it closes the policy, after its thread
        guard.pop_all()
    opened.callback(acting.close)
    return acting


def _warm_up(acting: Union[Acting, DeadlinePolicy], observation: Observation) -> None:
    began_s = time.monotonic()
    if isinstance(acting, DeadlinePolicy):
        acting.warm_up(observation, rounds=_WARM_UP_ROUNDS)
    else:
        for _ in range(_WARM_UP_TICKS):
            acting.act(observation, seed=_WARM_UP_SEED)
    LOG.info("warmed up in %.1f s", time.monotonic() - began_s)
