"""An observation of a policy that reasoned, with the text that its generator was given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from motedge.runtime.policy.observation import Observation


@dataclass(frozen=True, eq=False)
class PromptedObservation(Observation):
    """What was seen, and the prompt that was made of it: not the one that follows from the instruction alone."""

    # The whole text, as `motedge.runtime.policy.policy.Policy.act` takes it
    prompt: str = ""

    @classmethod
    def of(cls, observation: Observation, prompt: str) -> PromptedObservation:
        """The observation with a prompt."""
        fields = {field.name: getattr(observation, field.name) for field in dataclasses.fields(observation)}
        return cls(**fields, prompt=prompt)
