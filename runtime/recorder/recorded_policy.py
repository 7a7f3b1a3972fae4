"""A policy whose ticks are recorded as they are answered."""

from __future__ import annotations

from typing import Any, Optional, Protocol

from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.recorder.recorder import TickRecorder
from motedge.runtime.request import SamplerSettings


class Acting(Protocol):
    """What is recorded: a policy, alone or with deadlines."""

    def act(self, observation: Observation, **options: Any) -> ActionChunk:
        """The next chunk of actions."""
        ...

    def close(self) -> None:
        """Frees it."""
        ...


class RecordedPolicy:
    """Acts as the policy does, and records each answer. Errors are the policy's own, and are not recorded."""

    def __init__(self, policy: Acting, recorder: TickRecorder, settings: SamplerSettings) -> None:
        """Takes over policy and recorder, and closes both; `settings` are the policy's own."""
        self.policy, self.recorder, self.settings = policy, recorder, settings

    def act(
        self,
        observation: Observation,
        *,
        committed: Optional[FloatArray] = None,
        prompt: Optional[str] = None,
        settings: Optional[SamplerSettings] = None,
        **options: Any,
    ) -> ActionChunk:
        """As the policy's own; what is None is not passed on, for not every policy takes all of it."""
        given = {"committed": committed, "prompt": prompt, "settings": settings}
        passed = {name: value for name, value in given.items() if value is not None}
        chunk = self.policy.act(observation, **passed, **options)
        self.recorder.record(observation, chunk, settings or self.settings, committed=committed, prompt=prompt)
        return chunk

    def close(self) -> None:
        """Closes the policy, then the recording."""
        try:
            self.policy.close()
        finally:
            self.recorder.close()

    def __enter__(self) -> RecordedPolicy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
