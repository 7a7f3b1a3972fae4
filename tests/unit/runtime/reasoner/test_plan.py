"""Plans taken from what a reasoner wrote, and the fallback with its reason."""

from __future__ import annotations

import pytest

from motedge.errors import UsageError
from motedge.runtime.reasoner.plan import CHARACTERS_MAX, DENSE_PROMPT, PlanSchema, read_plan

SCHEMA = PlanSchema({"plan": ("string",), "steps": ("number", "array")}, required=("plan",), open=False)
CUT = '{"plan": "a", "steps": [{"plan": "inner"}'


@pytest.mark.parametrize(
    "answer",
    [
        '{"plan": "go"}',
        'Here {is} it:\n```json\n{"plan":"go"}\n```\nDone.',
        '{"other": 1} {"plan": "go"}',
        '{} {"plan": "go", "steps": 3}',
        '{"plan": "go", "steps": 1e999} {"plan": "go"}',
        '{"plan": "go", "steps": ["\\ud83e\\udd16", 1e308]}',
    ],
)
def test_plans(answer: str) -> None:
    reading = read_plan(answer, SCHEMA, "plain")
    assert reading.plan is not None and reading.plan["plan"] == "go"
    assert reading.prompt.startswith('{"plan": "go"')
    assert not reading.fell_back and reading.problem is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        (CUT, "no JSON object"),
        ('{"plan": NaN}', "no JSON object"),
        ('{"a":' * 20_000, "no JSON object"),
        ("{}", "lacks plan"),
        ('{"plan": 3}', "'plan' is no string"),
        ('{"plan": "a", "steps": true}', "'steps' is no number or array"),
        ('{"plan": "a", "more": 1}', "unknown field 'more'"),
        ('{"plan": "a", "steps": 1e999}', "a number that is too large"),
        ('{"plan": "a", "steps": [{"x": -1e999}]}', "a number that is too large"),
        ('{"plan": "go \\ud800"}', "half a surrogate pair"),
        ('{"plan": "a", "steps": [{"\\udfff": 1}]}', "half a surrogate pair"),
        ("{" * (CHARACTERS_MAX + 1), "more than"),
    ],
)
def test_fallback(answer: str, problem: str) -> None:
    reading = read_plan(answer, SCHEMA, "plain")
    assert (reading.prompt, reading.plan, reading.fell_back) == ("plain", None, True)
    assert reading.problem is not None and problem in reading.problem


def test_a_cut_reply_says_so() -> None:
    assert "the reply was cut" in str(read_plan(CUT, SCHEMA, "plain", complete=False).problem)


def test_the_dense_prompt_needs_one_of_its_fields() -> None:
    assert read_plan('{"lighting": "soft", "x": 1}', DENSE_PROMPT, "p").plan == {"lighting": "soft", "x": 1}
    assert "has none of subjects" in str(read_plan('{"x": 1}', DENSE_PROMPT, "p").problem)


def test_bad_schemas() -> None:
    with pytest.raises(UsageError, match="did you mean 'string'"):
        PlanSchema({"a": ("strin",)})
    with pytest.raises(UsageError, match="not declared"):
        PlanSchema({"a": ("string",)}, required=("b",))
