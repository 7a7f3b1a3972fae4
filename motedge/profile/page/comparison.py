"""The page of a comparison: each stage's change with its interval, and both distributions of the tick."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from motedge.profile.compare import FASTER, NO_TIME, NOISE, SLOWER, SMALL, TOO_FEW, Comparison, StageChange
from motedge.profile.compare_text import answer, figure_words, percent_words
from motedge.profile.stages import is_sum
from motedge.quant.page.document import bullets, document, table, tiles
from motedge.quant.page.svg import Axis, Frame, circle, line, path, picture, text
from motedge.units import format_ms

_COLOURS = {SLOWER: "s5", FASTER: "s2", NOISE: "s-none", SMALL: "s0", TOO_FEW: "s-none", NO_TIME: "s-none"}
_BADGES = {SLOWER: "bad", FASTER: "good"}
_ROW = 26
# Changes beyond are drawn at the edge
_MOST = 2.5
_SHARES = Frame(1140, 280, left=78, right=40, top=18, bottom=46)
_READING = (
    "Before and after are medians of warm ticks. The interval is where the true ratio lies, from resampled blocks of "
    "ticks; all intervals together hold with 95 %.",
    "Noise: no change at all is within the interval. Small: a change, but less than is called one.",
    "Stages that take less than a thousandth of the tick on both sides are left out.",
)


def render_comparison(comparison: Comparison, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The page of two documents of `motedge.profile.report` and what `compare_profiles` says of them."""
    verdict = comparison.tick.verdict if comparison.tick is not None else TOO_FEW
    names = [str(document["bundle"]["name"]) for document in (before, after)]
    title = "Profiles compared: " + (names[0] if names[0] == names[1] else " and ".join(names))
    keys = (
        f'<p class="legend"><span class="key {_COLOURS[SLOWER]}"></span>slower '
        f'<span class="key {_COLOURS[FASTER]}"></span>faster <span class="key {_COLOURS[SMALL]}"></span>too small to '
        f'count <span class="key {_COLOURS[NOISE]}"></span>noise</p>'
    )
    both = (
        '<p class="legend"><span class="key s0"></span>before <span class="key s1"></span>after; the share of warm '
        "ticks that took at most so long</p>"
    )
    sections = [
        f'<p class="lead">{html.escape(_lead(comparison, before, after))}</p>'
        f'<p class="verdict {_BADGES.get(verdict, "open")}">{html.escape(verdict)}</p>',
        tiles(_tiles(comparison)),
        _warnings(comparison),
        f"<h2>Each stage</h2>{keys}<div class=scroll>{change_bars(comparison.stages)}</div>{_table(comparison)}",
        f"<h2>The tick</h2>{both}<div class=scroll>{two_courses(before, after)}</div>",
        _figures(comparison),
        f"<h2>How to read this</h2>{bullets(_READING)}",
    ]
    return document(title, [section for section in sections if section])


def change_bars(stages: Sequence[StageChange]) -> str:
    """A row a stage on a logarithmic axis: the ratio and its interval, against no change."""
    judged = [change for change in stages if change.interval is not None]
    if not judged:
        return ""
    frame = Frame(1140, 26 + _ROW * len(judged) + 46, left=190, right=150, top=20, bottom=46)
    reach = max(max(change.interval.high, 1 / change.interval.low) for change in judged if change.interval is not None)
    widest = min(max(1.06 * reach, 1.05), _MOST)
    x = Axis(1 / widest, widest, frame.left, frame.inner_right, log=True)
    parts = []
    for share in (-0.5, -0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
        if x.low <= 1 + share <= x.high and (abs(share) != 0.05 or widest < 1.3):
            place = x.at(1 + share)
            parts.append(line(place, frame.top, place, frame.inner_bottom, "axis" if share == 0 else "grid"))
            parts.append(text(place, frame.inner_bottom + 18, f"{100 * share:+.0f} %" if share else "0"))
    for number, change in enumerate(reversed(judged)):
        if change.interval is None:
            continue
        y = frame.top + _ROW * (number + 0.5)
        interval, css = change.interval, _COLOURS[change.verdict]
        ends = [x.at(min(max(value, x.low), x.high)) for value in (interval.low, interval.high)]
        tip = f"{change.stage}: {percent_words(interval.low)} to {percent_words(interval.high)}"
        stroke = {"s5": "l5", "s2": "l2", "s0": "l0"}.get(css, "axis")
        parts.append(text(frame.left - 10, y + 4, change.stage, "end", "note"))
        parts.append(line(ends[0], y, ends[1], y, stroke))
        parts += [line(end, y - 4, end, y + 4, stroke) for end in ends]
        radius = 6 if is_sum(change.stage) else 4
        parts.append(circle(x.at(min(max(interval.ratio, x.low), x.high)), y, radius, css, tip))
        words = f"{percent_words(interval.ratio)}  {change.verdict}"
        parts.append(text(frame.inner_right + 10, y + 4, words, "start", "note"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, "change of the median", css="label"))
    return picture(frame.width, frame.height, "change of each stage", parts)


def two_courses(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The share of warm ticks by time, of both."""
    both = [sorted(_ticks(profile)) for profile in (before, after)]
    frame = _SHARES
    low, high = min(ticks[0] for ticks in both), max(ticks[-1] for ticks in both)
    # The slowest few of a noisy machine must not press the rest together
    high = min(high, 2.5 * max(ticks[len(ticks) // 2] for ticks in both))
    room = max(0.03 * (high - low), 0.002 * high)
    x = Axis(low - room, high + room, frame.left, frame.inner_right)
    y = Axis(0.0, 1.0, frame.inner_bottom, frame.top)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0):
        parts.append(line(frame.left, y.at(share), frame.inner_right, y.at(share), "grid"))
        parts.append(text(frame.left - 8, y.at(share) + 4, f"{100 * share:.0f} %", "end"))
    for value in x.ticks():
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    for number, ticks in enumerate(both):
        points = [(x.low, 0.0)]
        for place, ms in enumerate(ticks):
            if ms <= x.high:
                points += [(ms, place / len(ticks)), (ms, (place + 1) / len(ticks))]
        points.append((x.high, points[-1][1]))
        parts.append(path([(x.at(ms), y.at(share)) for ms, share in points], f"l{number}"))
    parts.append(line(frame.left, frame.inner_bottom, frame.inner_right, frame.inner_bottom, "axis"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, "ms, at most", css="label"))
    return picture(frame.width, frame.height, "share of ticks by time, before and after", parts)


def _ticks(profile: Mapping[str, Any]) -> list[float]:
    samples = profile["samples"]
    return [ms for ms, phase in zip(samples["stages_ms"]["tick"], samples["phase"]) if phase == "warm"]


def _lead(comparison: Comparison, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    kind = "ticks in turn" if comparison.interleaved else "separate runs"
    moments = [str(profile["time"])[:19].replace("T", " ") for profile in (before, after)]
    return f"Tick: {answer(comparison)}. {kind.capitalize()}; before: {moments[0]} UTC, after: {moments[1]} UTC."


def _tiles(comparison: Comparison) -> list[tuple[str, str, str]]:
    tick, found = comparison.tick, []
    if tick is not None:
        found.append(("tick, before", format_ms(tick.before_ms), f"median of {tick.before_count}"))
        found.append(("tick, after", format_ms(tick.after_ms), f"median of {tick.after_count}"))
        if tick.interval is not None:
            low, high = percent_words(tick.interval.low), percent_words(tick.interval.high)
            found.append(("change", percent_words(tick.interval.ratio), f"{low} to {high}"))
    return found


def _warnings(comparison: Comparison) -> str:
    rows = [(what, before, after) for what, before, after in comparison.differences]
    differs = f"<h2>What differs</h2>{table(('condition', 'before', 'after'), rows)}" if rows else ""
    cautions = f'<div class="caveats">{bullets(comparison.cautions)}</div>' if comparison.cautions else ""
    return differs + cautions


def _table(comparison: Comparison) -> str:
    head = ("stage", "before", "after", "change", "interval", "verdict", "ticks")
    rows = []
    for change in comparison.stages:
        interval = change.interval
        words = ("-", "-")
        if interval is not None:
            words = (
                percent_words(interval.ratio),
                f"{percent_words(interval.low)} to {percent_words(interval.high)}",
            )
        counts = f"{change.before_count}, {change.after_count}"
        times = format_ms(change.before_ms), format_ms(change.after_ms)
        rows.append((change.stage, *times, *words, change.verdict, counts))
    return table(head, rows, [is_sum(change.stage) for change in comparison.stages])


def _figures(comparison: Comparison) -> str:
    if not comparison.figures:
        return ""
    rows = [
        (what, figure_words(before, unit), figure_words(after, unit))
        for what, unit, before, after in comparison.figures
    ]
    return f"<h2>Single figures, without an interval</h2>{table(('figure', 'before', 'after'), rows)}"
