"""What the reasoner wrote, taken as a plan for the generator, or the plain instruction in its place.

Nothing that a model wrote is trusted to be what it was asked for: a reply that is no JSON object, or not of the schema,
gives the fallback, and the reading says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError, closest

# JSON's names of its types. A whole number is a number too, true and false are not
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
# Replies with more text than this are no plan
CHARACTERS_MAX = 100_000


@dataclass(frozen=True)
class PlanSchema:
    """What a plan must look like."""

    # Key -> the JSON types that its value may have
    fields: Mapping[str, tuple[str, ...]]
    # Keys that must be there
    required: tuple[str, ...] = ()
    # Whether other keys may be there too
    open: bool = True

    def __post_init__(self) -> None:
        for kinds in self.fields.values():
            for kind in kinds:
                if kind not in _TYPES:
                    raise UsageError("a plan's field has no such type", got=kind, fix=closest(kind, _TYPES))
        for key in self.required:
            if key not in self.fields:
                raise UsageError("a plan's required field is not declared", got=key, fix=closest(key, self.fields))

    def problem(self, plan: Mapping[str, Any]) -> Optional[str]:
        """What is wrong with a plan; None if nothing is."""
        missing = [key for key in self.required if key not in plan]
        if missing:
            return f"lacks {', '.join(missing)}"
        if not any(key in plan for key in self.fields):
            return f"has none of {', '.join(self.fields)}"
        for key, value in plan.items():
            kinds = self.fields.get(key)
            if kinds is None:
                if not self.open:
                    return f"has the unknown field {key!r}"
            elif not any(_is(value, kind) for kind in kinds):
                return f"field {key!r} is no {' or '.join(kinds)}"
        return None


# The dense caption that the generator was trained with; keys after spec 4.2, which gives no types
DENSE_PROMPT = PlanSchema(
    dict.fromkeys(
        (
            *("subjects", "background_setting", "lighting", "aesthetics", "cinematography", "style_medium"),
            *("actions", "segments", "transitions", "temporal_caption", "audio_description"),
        ),
        ("string", "array", "object"),
    )
)


@dataclass(frozen=True)
class PlanReading:
    """The prompt for the generator, and where it came from."""

    # The plan as JSON (", " and ": ", ASCII), or the fallback
    prompt: str
    # None: the fallback was taken
    plan: Optional[Mapping[str, Any]]
    # Why the fallback was taken
    problem: Optional[str] = None

    @property
    def fell_back(self) -> bool:
        """Whether the plain instruction stands in for a plan."""
        return self.plan is None


def read_plan(answer: str, schema: PlanSchema, fallback: str, *, complete: bool = True) -> PlanReading:
    """Reads the first JSON object of an answer, in a code fence or among text.

    Args:
        answer: without its thoughts.
        schema: of the plan.
        fallback: the prompt if there is no plan.
        complete: False if the reply was cut at its limit or cancelled, which the problem then says.
    """
    cut = "" if complete else "; the reply was cut"
    if len(answer) > CHARACTERS_MAX:
        return PlanReading(fallback, None, f"more than {CHARACTERS_MAX} characters{cut}")
    problem = f"no JSON object in the answer{cut}"
    for number, plan in enumerate(_objects(answer)):
        wrong = schema.problem(plan) or _unwritable(plan)
        if wrong is None:
            return PlanReading(json.dumps(plan), plan)
        # Of several, the first is the one that was meant
        problem = f"the plan {wrong}{cut}" if number == 0 else problem
    return PlanReading(fallback, None, problem)


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """JSON objects of a text that do not lie within one another; none after one that is broken."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        # Too deep a nesting is no plan either
        except (ValueError, RecursionError):
            if text[start + 1 :].lstrip().startswith('"'):
                # A whole object within a broken one is not the plan
                return
            end = start + 1
        else:
            yield found
        start = text.find("{", end)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _unwritable(plan: Mapping[str, Any]) -> Optional[str]:
    """Why a plan can't be written as JSON in UTF-8 again, though it was read; None if it can."""
    try:
        json.dumps(plan, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no character"
    except (ValueError, RecursionError):
        return "holds a number that is too large, or too deep a nesting"
    return None


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
