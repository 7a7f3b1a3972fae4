"""A comparison of two profiles as lines for the terminal."""

from __future__ import annotations

from typing import Optional

from motedge.profile.compare import FASTER, NO_TIME, NOISE, SLOWER, SMALL, TOO_FEW, Comparison, StageChange
from motedge.profile.stages import is_sum
from motedge.units import format_bytes, format_ms

_WORDS = {SLOWER: "SLOWER", FASTER: "FASTER", NOISE: "noise", SMALL: "small", TOO_FEW: TOO_FEW, NO_TIME: NO_TIME}


def comparison_lines(comparison: Comparison) -> list[str]:
    """What differed, the stages with their verdicts, and the answer."""
    lines = [f"differs      {what}: {before} -> {after}" for what, before, after in comparison.differences]
    lines += [f"caution      {words}" for words in comparison.cautions]
    lines += ["", f"{'median':<24}{'before':>12}{'after':>12}{'change':>10}{'interval':>22}   verdict"]
    lines += [_line(change) for change in comparison.stages]
    for what, names in (("before", comparison.only_before), ("after", comparison.only_after)):
        if names:
            lines.append(f"only {what}: {', '.join(names)}")
    lines.append("")
    lines += [_figure(*figure) for figure in comparison.figures]
    kind = "ticks in turn" if comparison.interleaved else "separate runs"
    lines.append(
        f"intervals    {100 * comparison.confidence:.2f} % each, 95 % for all of them together; {kind}; changes below "
        f"{100 * comparison.least_change:g} % are not called changes"
    )
    lines.append(f"tick         {answer(comparison)}")
    return lines


def answer(comparison: Comparison) -> str:
    """The answer in a sentence."""
    tick = comparison.tick
    if tick is None or tick.interval is None:
        return f"not judged: {TOO_FEW if tick is None else tick.verdict}"
    interval = tick.interval
    reach = f"{percent_words(interval.low)} to {percent_words(interval.high)}"
    if tick.verdict in (SLOWER, FASTER):
        return f"{tick.verdict} by {abs(100 * (interval.ratio - 1)):.3g} % ({reach})"
    if tick.verdict == SMALL:
        return f"a change of {percent_words(interval.ratio)} ({reach}), too small to count"
    return f"no change beyond noise ({reach})"


def _line(change: StageChange) -> str:
    label = f"= {change.stage}" if is_sum(change.stage) else f"  {change.stage}"
    head = f"{label:<24}{format_ms(change.before_ms):>12}{format_ms(change.after_ms):>12}"
    if change.interval is None:
        return f"{head}{'-':>10}{'-':>22}   {_WORDS[change.verdict]}"
    interval = change.interval
    reach = f"{percent_words(interval.low)} to {percent_words(interval.high)}"
    return f"{head}{percent_words(interval.ratio):>10}{reach:>22}   {_WORDS[change.verdict]}"


def percent_words(ratio: float) -> str:
    """A ratio as a change: 1.2 -> "+20.0 %"."""
    return f"{100 * (ratio - 1):+.1f} %"


def _figure(what: str, unit: str, before: Optional[float], after: Optional[float]) -> str:
    return f"{what:<24}{figure_words(before, unit):>12}{figure_words(after, unit):>12}"


def figure_words(value: Optional[float], unit: str) -> str:
    """A figure in its unit: ms, B, J or s; "-" where there is none."""
    if value is None:
        return "-"
    if unit == "ms":
        return format_ms(value)
    return format_bytes(value) if unit == "B" else f"{value:.3g} {unit}"
