"""The verdict in both directions, and when there is nothing to judge."""

from __future__ import annotations

import pytest

from motedge.errors import UsageError
from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.options import FidelityOptions
from motedge.quant.fidelity.verdict import FAILED, NOT_JUDGED, PASSED, judge
from motedge.runtime.comparison import Gate

GATE = Gate(0.999, 0.03)
GOOD, BAD = Figures(0.01, 0.9999, 40.0, 1.0, 9), Figures(0.05, 0.9985, 26.0, 1.0, 9)


def test_all_that_decides_must_pass(not_finite: Figures) -> None:
    assert judge(GATE, [("a", GOOD), ("b", GOOD)]).status == PASSED
    verdict = judge(GATE, [("a", GOOD), ("b", BAD)])
    assert verdict.status == FAILED and [entry.passed for entry in verdict.deciding] == [True, False]
    assert judge(GATE, [("a", GOOD), ("b", not_finite)]).status == FAILED


def test_the_gate_that_was_asked_for_is_the_one_that_judges() -> None:
    assert judge(Gate(0.998, 0.06), [("a", BAD)]).status == PASSED
    assert judge(Gate(0.99999, 0.03), [("a", GOOD)]).status == FAILED


def test_with_nothing_held_out_nothing_is_judged() -> None:
    verdict = judge(GATE, [])
    assert verdict.status == NOT_JUDGED and "no held-out observations" in (verdict.reason or "")


def test_the_lines_for_a_terminal_name_the_numbers(not_finite: Figures) -> None:
    lines = judge(GATE, [("action chunk", GOOD), ("final latent", BAD), ("worst", not_finite)]).lines()
    assert lines[0] == "fidelity failed" and "at most 3 %" in lines[-1]
    assert "0.999900" in lines[1] and lines[1].endswith("passed")
    assert "5.000%" in lines[2] and lines[2].endswith("FAILED") and "not finite" in lines[3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "tensorrt"},
        {"compute": "fp8"},
        {"gate": Gate(1.5, 0.03)},
        {"gate": Gate(0.999, -0.1)},
        {"gate": Gate(float("nan"), 0.03)},
    ],
)
def test_options_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(UsageError):
        FidelityOptions(**wrong)
