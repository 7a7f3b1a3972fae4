"""Numbers of a report in words, with a fixed count of digits so that columns line up."""

from __future__ import annotations

from motedge.quant.fidelity.figures import Figures

NOT_FINITE = "not finite"


def number(value: float | None, form: str) -> str:
    """A number in a Python format."""
    return NOT_FINITE if value is None else format(value, form)


def relative(value: float | None) -> str:
    """A relative error: 0.0312 -> "3.12 %"."""
    if value is None:
        return NOT_FINITE
    if value == 0:
        return "0 %"
    return f"{100 * value:#.3g}".rstrip(".") + " %"


def decibels(figures: Figures | None) -> str:
    """Signal to noise; empty where nothing was measured."""
    if figures is None:
        return ""
    if figures.relative_l2 == 0:
        return "no error"
    return number(figures.sqnr_db, ".1f") + (" dB" if figures.sqnr_db is not None else "")
