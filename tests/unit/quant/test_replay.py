"""Requests read again from observations, by the policy's own code on fakes."""

from __future__ import annotations

import numpy as np
from policy_fakes import CONTRACT, make_policy

from motedge.quant.datasets.prompted import PromptedObservation
from motedge.quant.replay import RequestReader, _Listener
from motedge.runtime.policy.observation import Observation


def test_a_request_is_read_with_the_prompt_that_the_reasoner_wrote() -> None:
    seen = Observation(np.zeros(7), 0.5, "go", image=np.zeros((540, 640, 3), np.uint8))
    reader = RequestReader.__new__(RequestReader)
    reader._loop = _Listener(CONTRACT)
    reader._policy, fakes = make_policy(loop=reader._loop)
    written = "go there, then lift the cup"
    # As many tokens as the fake makes of the words
    assert len(reader.read(PromptedObservation.of(seen, written), 1).cond_tokens) == len(written.split()) + 2
    assert written in fakes.tokenizer.prompts
    reader.read(seen, 1)
    assert fakes.tokenizer.prompts[-1] == reader._policy.prompt("go")
