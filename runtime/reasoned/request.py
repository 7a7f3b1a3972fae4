"""A request to the generator whose prompt the reasoner writes first: the prompt upsampler of spec 4.3, and plans."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, Optional, Protocol

from motedge.errors import UsageError
from motedge.runtime.generate.caption import is_json_prompt
from motedge.runtime.generate.mode import ACTION_MODES
from motedge.runtime.generate.request import GenerateRequest
from motedge.runtime.policy.resize import Image
from motedge.runtime.reasoned.options import JSON_PROMPT, PLAN, ReasonOptions
from motedge.runtime.reasoned.question import planned_instruction
from motedge.runtime.reasoned.reasoning import Reasoning
from motedge.runtime.reasoned.thought import AskedReasoner, run_through, think_about

_ALREADY = "the prompt is a JSON object already, so nothing was asked"


class PromptCheck(Protocol):
    """What is needed of `motedge.runtime.generate.Generator`."""

    def check_prompt(self, request: GenerateRequest) -> int:
        """Tokens of its prompt. Raises UsageError where they are too many."""
        ...


def default_mode(generator_mode: str) -> str:
    """A plan for requests with actions, which the generator knows with a plain description; else a dense caption."""
    return PLAN if generator_mode in ACTION_MODES else JSON_PROMPT


def reasoned_request(
    generator: PromptCheck, reasoner: AskedReasoner, request: GenerateRequest, options: Optional[ReasonOptions] = None
) -> tuple[GenerateRequest, Reasoning]:
    """The request with the prompt that the reasoner wrote, and what it wrote.

    The reasoner sees the first frame, where one is given. A prompt that is a JSON object already stays as it is.

    Args:
        generator: says whether a prompt fits.
        reasoner: writes.
        request: whose prompt is rewritten.
        options: None takes `default_mode`. What they say of ticks counts for nothing here.

    Raises:
        UsageError: the request has no prompt, or one that is too long by itself; a dense caption for actions.
    """
    options = ReasonOptions(mode=default_mode(request.mode)) if options is None else options
    if options.mode == JSON_PROMPT and request.acts:
        raise UsageError(
            f"mode {request.mode!r} has no use for a dense caption",
            why="requests with actions have a JSON form of their own around a plain description",
            fix='take mode "plan" of the reasoner',
        )
    if not request.prompt.strip():
        raise UsageError("the reasoner has no prompt to start from", fix="say in words what is wanted")
    if is_json_prompt(request.prompt):
        return request, Reasoning(options.mode, request.prompt, request.prompt, problem=_ALREADY)
    whole = dataclasses.replace(options, slice_tokens=None, slice_ms=None, background=False)
    writer = _RequestWriter(generator, request, options.mode)
    reasoning = run_through(think_about(reasoner, request.prompt, lambda: _first_frame(request), whole, writer))
    return dataclasses.replace(request, prompt=reasoning.prompt), reasoning


class _RequestWriter:
    """A `Writer` for the generator."""

    def __init__(self, generator: PromptCheck, request: GenerateRequest, mode: str) -> None:
        self._generator, self._request, self._mode = generator, request, mode

    def plain(self, instruction: str) -> str:
        return instruction

    def planned(self, instruction: str, plan: Mapping[str, Any]) -> str:
        return json.dumps(dict(plan)) if self._mode == JSON_PROMPT else planned_instruction(instruction, plan)

    def prepare(self, prompt: str) -> Iterator[None]:
        self._generator.check_prompt(dataclasses.replace(self._request, prompt=prompt))
        yield from ()


def _first_frame(request: GenerateRequest) -> Optional[Image]:
    if request.image is not None:
        return request.image
    return request.video[0] if request.video is not None and len(request.video) else None
