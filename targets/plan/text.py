"""Plans as text for a terminal: one device in detail, or many side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Optional

from motedge.targets.plan.make import TargetPlan
from motedge.targets.plan.model import HOST, UNKNOWN, GraphPlan, OperatingPoint, Plan
from motedge.units import format_bytes, format_ms

_YES_NO = {True: "yes", False: "no", None: UNKNOWN}


def plan_lines(plan: Plan) -> Iterator[str]:
    """Everything about one plan."""
    yield f"target     {plan.target}: {plan.target_name}, {plan.library}"
    yield f"model      {plan.model}, shapes {plan.shape_set}, recipe {plan.recipe or 'none'}"
    yield f"verdict    {headline(plan)}"
    yield from (f"not legal  {words}" for words in reasons(plan))
    yield from (f"caution    {words}" for words in cautions(plan))
    yield from (f"note       {note}" for note in plan.notes)
    yield ""
    header = ("graph", "variant", "weights", "activations", "GFLOP", "moved", "time (low to high)", "bound by")
    yield from table(header, [_graph(graph) for graph in plan.graphs])
    yield from dict.fromkeys(f"no time    {graph.untimed}" for graph in plan.graphs if graph.untimed is not None)
    yield ""
    yield from table(("memory", "", "where", "how"), _memory(plan))
    yield ""
    yield from _build(plan)
    if plan.tick is not None:
        yield ""
        yield from _tick(plan)
    if plan.advice:
        yield ""
        yield from table(("instead", "gives"), [(entry.change, entry.result) for entry in plan.advice])


def headline(plan: Plan) -> str:
    """The answer in a line: legal, memory, time."""
    if not plan.legal:
        return "not legal"
    said = [_memory_words(plan)]
    if plan.memory.fits is not False and plan.build.fits is False:
        peak, room = format_bytes(plan.build.peak_bytes), format_bytes(plan.build.available_bytes or 0)
        said.append(f"can't be built there: {plan.build.peak_graph} takes {peak} of {room}")
    if plan.tick is not None:
        tick, point = plan.tick, plan.tick.points[0]
        said.append(f"{tick.rate_hz:g} Hz: {point.in_time}, a tick of {span(point)} in {tick.period_s:.3f} s")
    return "; ".join(said)


def fits_word(plan: Plan) -> str:
    """ "yes", "no", "not legal", "not to build" or "unknown"."""
    if not plan.legal:
        return "not legal"
    if plan.memory.fits is not False and plan.build.fits is False:
        return "not to build"
    return _YES_NO[plan.memory.fits]


def reasons(plan: Plan) -> list[str]:
    """Why it is not legal, each once, with the graphs that it holds for."""
    return _said((graph.graph, f"{r.what} ({r.source})") for graph in plan.graphs for r in graph.reasons)


def cautions(plan: Plan) -> list[str]:
    """What to mind, each once."""
    return _said((graph.graph, f"{r.what} ({r.source})") for graph in plan.graphs for r in graph.cautions)


def span(point: OperatingPoint) -> str:
    """ "301 ms (260 ms to 350 ms)"."""
    return f"{_seconds(point.tick_s)} ({_seconds(point.low_s)} to {_seconds(point.high_s)})"


def all_lines(entries: Sequence[TargetPlan]) -> Iterator[str]:
    """A line a device, then why some are not legal, and why there is no plan for others."""
    header = ("target", "recipe", "legal", "needs", "left", "fits", "build peak", "tick", "low to high", "in time")
    plans = [entry.plan for entry in entries if entry.plan is not None]
    yield from table(header, [_line(plan) for plan in plans])
    said: dict[str, list[str]] = {}
    for plan in plans:
        for words in reasons(plan):
            said.setdefault(words, []).append(plan.target)
    for entry in entries:
        if entry.plan is None:
            said.setdefault(f"no plan: {entry.reason}", []).append(entry.target.id)
    if said:
        yield ""
    yield from (f"{', '.join(names)}: {words}" for words, names in said.items())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def _line(plan: Plan) -> tuple[str, ...]:
    times = ("-", "-", UNKNOWN)
    if plan.tick is not None:
        point = plan.tick.points[0]
        times = (_seconds(point.tick_s), f"{_seconds(point.low_s)} to {_seconds(point.high_s)}", point.in_time)
    return (
        plan.target,
        plan.recipe or "none",
        _YES_NO[plan.legal],
        format_bytes(plan.memory.needed_bytes),
        _bytes(plan.memory.available_bytes),
        fits_word(plan),
        format_bytes(plan.build.peak_bytes),
        *times,
    )


def _graph(graph: GraphPlan) -> tuple[str, ...]:
    stage = graph.stage
    time = "-" if stage is None else f"{_seconds(stage.time_s)} ({_seconds(stage.low_s)} to {_seconds(stage.high_s)})"
    return (
        graph.graph,
        graph.variant + ("" if graph.applied_recipe is None else f", {graph.applied_recipe} applied"),
        format_bytes(graph.weight_bytes),
        format_bytes(graph.activation_bytes),
        f"{graph.flops / 1e9:,.0f}",
        format_bytes(graph.moved_bytes),
        time,
        "-" if stage is None else stage.bound,
    )


def _memory(plan: Plan) -> list[tuple[str, ...]]:
    memory = plan.memory
    rows: list[tuple[str, ...]] = [(i.name, format_bytes(i.bytes), i.place, i.note) for i in memory.items]
    if memory.loading_bytes:
        words = "the fullest moment while engines are loaded, in place of the above"
        rows.append(("while loading", format_bytes(memory.loading_bytes), "", words))
    left = f"of {_bytes(memory.available_bytes)} that the system leaves ({memory.available_mark})"
    rows.append(("needed", format_bytes(memory.needed_bytes), "", left))
    if not any(_counts(plan, item.place) for item in memory.items if item.place == HOST):
        rows.append(("of the host", format_bytes(memory.total(HOST)), HOST, "not counted: the GPU has its own memory"))
    return rows


def _counts(plan: Plan, place: str) -> bool:
    """Whether what lies in a place was held against the device's memory."""
    memory = plan.memory
    whole = sum(item.bytes for item in memory.items)
    return place != HOST or memory.needed_bytes >= whole or memory.total(HOST) == whole


def _build(plan: Plan) -> Iterator[str]:
    build = plan.build
    room = "" if build.available_bytes is None else f" of {format_bytes(build.available_bytes)}"
    words = {True: ", fits", False: ", does not fit", None: ""}[build.fits]
    yield f"build      {build.where}: at most {format_bytes(build.peak_bytes)}{room}, for {build.peak_graph}{words}"
    yield f"           {build.note}"
    yield f"disk       {format_bytes(build.engine_bytes)} of engines, {format_bytes(build.disk_bytes)} in all"


def _tick(plan: Plan) -> Iterator[str]:
    tick = plan.tick
    if tick is None:
        return
    header = ("tick", "steps", "forwards", "guidance", "time (low to high)", f"in {tick.period_s:.3f} s", "")
    rows = [(p.name, str(p.steps), str(p.forwards), f"{p.guidance:g}", span(p), p.in_time, p.note) for p in tick.points]
    yield from table(header, rows)
    lasts = f"{tick.chunk} actions at {tick.rate_hz:g} Hz last {tick.period_s:.3f} s"
    yield f"           {lasts}; {_seconds(tick.host_s)} of a tick is host work"
    yield f"           prompts are kept: the first tick of one takes {_seconds(tick.prefill_s)} more"


def _memory_words(plan: Plan) -> str:
    memory = plan.memory
    words = {True: "fits", False: "does not fit", None: "needs"}[memory.fits]
    if memory.available_bytes is None:
        return f"needs {format_bytes(memory.needed_bytes)}, the device's memory is not known"
    return f"{words}: {format_bytes(memory.needed_bytes)} of {format_bytes(memory.available_bytes)}"


def _said(entries: Iterable[tuple[str, str]]) -> list[str]:
    found: dict[str, list[str]] = {}
    for graph, words in entries:
        found.setdefault(words, []).append(graph)
    return [f"{', '.join(dict.fromkeys(graphs))}: {words}" for words, graphs in found.items()]


def _bytes(count: Optional[int]) -> str:
    return "-" if count is None else format_bytes(count)


def _seconds(seconds: float) -> str:
    return format_ms(1000 * seconds)
