"""Requests to the generator whose prompt a scripted reasoner writes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scripted_reasoner import ScriptedReasoner

from motedge.errors import UsageError
from motedge.runtime.generate.request import GenerateRequest
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.request import reasoned_request
from motedge.runtime.reasoner.sampling import UPSAMPLER

CAPTION = {"subjects": ["a cup"], "lighting": "dim"}
IMAGE = np.zeros((80, 96, 3), np.uint8)


class Room:
    """Takes prompts of so many characters."""

    def __init__(self, most: int = 200) -> None:
        self.most, self.checked = most, 0

    def check_prompt(self, request: GenerateRequest) -> int:
        self.checked += 1
        if len(request.prompt) > self.most:
            raise UsageError("the prompt is too long", got=f"{len(request.prompt)} tokens")
        return len(request.prompt)


@pytest.mark.parametrize(("given", "seen"), [({"mode": "text2video"}, 0), ({"mode": "image2video", "image": IMAGE}, 1)])
def test_a_dense_caption_of_images_and_videos(given: dict[str, Any], seen: int) -> None:
    reasoner = ScriptedReasoner(f"```json\n{json.dumps(CAPTION)}\n```")
    request, said = reasoned_request(Room(), reasoner, GenerateRequest(prompt="a cup", **given))
    assert json.loads(request.prompt) == CAPTION == said.plan and said.mode == "json-prompt"
    assert reasoner.options == [UPSAMPLER] and reasoner.asked[0][1] == seen
    assert ("The picture is the first frame." in reasoner.asked[0][0]) == bool(seen)


def test_a_plan_for_actions() -> None:
    clip = [IMAGE + 3, IMAGE]
    wanted = GenerateRequest("inverse_dynamics", "drive on", video=clip, embodiment="av")
    reasoner = ScriptedReasoner(json.dumps({"plan": ["Turn left"]}))
    request, said = reasoned_request(Room(), reasoner, wanted)
    assert request.prompt == "drive on. Turn left." and said.mode == "plan"
    assert reasoner.images[0].max() == 3
    with pytest.raises(UsageError, match="no use for a dense caption"):
        reasoned_request(Room(), reasoner, wanted, ReasonOptions(mode="json-prompt"))


def test_the_prompt_stays() -> None:
    wanted = GenerateRequest("text2image", "a cup")
    for answer, room, problem in (
        ("no", Room(), "no JSON object"),
        (json.dumps({"lens": "50 mm"}), Room(), "has none of subjects"),
        (json.dumps({"lighting": "dim " * 90}), Room(), "the prompt is too long (376 tokens)"),
    ):
        request, said = reasoned_request(room, ScriptedReasoner(answer), wanted, ReasonOptions(mode="json-prompt"))
        assert request == wanted and said.fell_back and problem in said.problem
    already = GenerateRequest("text2image", json.dumps(CAPTION))
    asked = ScriptedReasoner("no")
    request, said = reasoned_request(Room(), asked, already)
    assert request is already and not asked.asked and "already" in said.problem


def test_refused() -> None:
    with pytest.raises(UsageError, match="no prompt to start from"):
        reasoned_request(Room(), ScriptedReasoner(), GenerateRequest("text2image", " "))
    with pytest.raises(UsageError, match="the prompt is too long"):
        reasoned_request(Room(3), ScriptedReasoner("no"), GenerateRequest("text2image", "a cup"))
