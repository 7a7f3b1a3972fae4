"""What the reasoner is asked, and of what form its answer must be.

The wording is motedge's own: NVIDIA's upsampler templates are not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from motedge.runtime.reasoned.options import PLAN
from motedge.runtime.reasoner.plan import DENSE_PROMPT, PlanReading, PlanSchema, read_plan

STEPS_MAX = 16
_PLAN_SCHEMA = PlanSchema({"plan": ("array", "string")}, ("plan",))
_SEEN = {
    "robot": "The picture shows what a robot sees now. ",
    "frame": "The picture is the first frame. ",
    "nothing": "",
}
_PLAN = (
    "{seen}The task: {instruction}\n"
    "Say what has to be done now to fulfil the task, as at most four short steps. "
    'Answer with one JSON object and nothing else: {"plan": ["first step", "second step"]}'
)
_DENSE = (
    "{seen}Describe what shall be seen, in detail, from this description: {instruction}\n"
    f"Answer with one JSON object and nothing else. Its keys: {', '.join(DENSE_PROMPT.fields)}."
)


def question_text(mode: str, instruction: str, seen: str) -> str:
    """The question; `seen`: "robot", "frame" or "nothing"."""
    text = _PLAN if mode == PLAN else _DENSE
    # Last, so that nothing in the instruction is taken for a place to fill
    return text.replace("{seen}", _SEEN[seen]).replace("{instruction}", instruction.strip())


def read_answer(mode: str, answer: str, *, complete: bool) -> PlanReading:
    """The plan in an answer; its `prompt` is empty where there is none."""
    reading = read_plan(answer, _PLAN_SCHEMA if mode == PLAN else DENSE_PROMPT, "", complete=complete)
    if mode != PLAN or reading.plan is None:
        return reading
    wrong = _steps_problem(reading.plan["plan"])
    return reading if wrong is None else PlanReading("", None, wrong)


def plan_sentences(plan: Mapping[str, Any]) -> str:
    """The steps of a plan as sentences of one line."""
    steps = plan["plan"]
    texts = [" ".join(step.split()) for step in ([steps] if isinstance(steps, str) else steps)]
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in texts)


def planned_instruction(instruction: str, plan: Mapping[str, Any]) -> str:
    """The instruction with a plan's steps behind it: what the operator said stays, whatever the model wrote."""
    said = instruction.strip()
    return f"{said}{'' if said.endswith(('.', '!', '?')) else '.'} {plan_sentences(plan)}"


def dense_prompt(plain: str, plan: Mapping[str, Any]) -> str:
    """A policy's prompt in JSON with a dense caption put in; what the policy's own prompt says stays as it is."""
    own: dict[str, Any] = json.loads(plain)
    more = {key: value for key, value in plan.items() if key not in own}
    camera, actions = plan.get("cinematography"), plan.get("actions")
    if isinstance(camera, dict):
        own["cinematography"] = {**camera, **own["cinematography"]}
    if actions is not None:
        own["actions"] = [*own["actions"], *(actions if isinstance(actions, list) else [actions])]
    return json.dumps({**own, **more})


def _steps_problem(steps: Any) -> Optional[str]:
    texts = [steps] if isinstance(steps, str) else steps
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        return "the plan has no steps, or some that are no text"
    return None if len(texts) <= STEPS_MAX else f"the plan has more than {STEPS_MAX} steps"
