"""Stand-ins for engines, loop and tokenizer: they note what they are given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from motedge.bundle import Contract
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.policy import Policy
from motedge.runtime.policy.protocols import find_protocol
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.tick import HostTick
from motedge.runtime.request import GenInputs, GenResult, LoopCounters, LoopTimings, SamplerSettings, StepTiming

MAX_TOKENS = 64
CONTRACT = Contract("gen_step", (), (), {"Z": 64, "C": 48, "h": 33, "w": 40}, {"U": (2, 16, MAX_TOKENS)})
SHAPE = PolicyShape((544, 736), (540, 640), 33, (9, 33, 40), 33, 15.0)


class FakeVae:
    """Engine and context at once: a latent of ones."""

    dtype = "fp32"
    contract = CONTRACT

    def __init__(self, latent: float = 1.0) -> None:
        self.latent, self.closed, self.runs = np.full((48, 1, 33, 40), latent, np.float32), False, 0

    def context(self, dims):
        return self

    def set_input(self, name: str, value: np.ndarray) -> None:
        assert name == "image"
        self.image = value

    def output(self, name: str) -> np.ndarray:
        return self.latent

    def run(self) -> None:
        self.runs += 1

    def close(self) -> None:
        self.closed = True


class FakeLoop:
    """Answers with rows that count up, gripper 0.25 open."""

    def __init__(self) -> None:
        self.requests: list[tuple[GenInputs, SamplerSettings]] = []
        self.prepared: list[int] = []
        self.closed = False

    def prepare(self, token_ids: np.ndarray) -> None:
        self.prepared.append(len(token_ids))

    def run(self, inputs: GenInputs, settings: SamplerSettings) -> GenResult:
        self.requests.append((inputs, settings))
        action = inputs.action_clean.copy()
        action[1:, :7] = np.arange(1, len(action))[:, None]
        action[1:, 7] = 0.25
        steps = (StepTiming(999, 2.0, 1.0, 0.5), StepTiming(937, 2.0, None, 0.5))
        timings = LoopTimings(3.0, 0.1, 0.2, steps, 10.0)
        return GenResult(inputs.vision_clean, action, timings, LoopCounters(3, 2, 0, 0, False))

    def close(self) -> None:
        self.closed = True


class FakeTokenizer:
    """One token a word."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def encode(self, prompt: str) -> np.ndarray:
        self.prompts.append(prompt)
        return np.arange(len(prompt.split()) + 2, dtype=np.int64)


def make_policy(**changes) -> tuple[Policy, SimpleNamespace]:
    """A policy on fakes, and the fakes."""
    fakes = SimpleNamespace(vae=FakeVae(), loop=FakeLoop(), tokenizer=FakeTokenizer(), other=FakeVae())
    vae, loop = changes.pop("vae", fakes.vae), changes.pop("loop", fakes.loop)
    shape = changes.get("shape", SHAPE)
    robot = changes.get("embodiment", find_embodiment("droid_lerobot"))
    options = {
        "tick": HostTick(vae, loop, shape, find_protocol(robot), (fakes.other,)),
        "tokenizer": fakes.tokenizer,
        "gen_contract": CONTRACT,
        "shape": shape,
        "embodiment": robot,
        "settings": SamplerSettings(),
        "prompt_format": "json",
        "seeds": RequestSeeds(0),
    }
    return Policy(**{**options, **changes}), fakes
