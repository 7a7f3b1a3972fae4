"""A plan as one self-contained HTML page: pictures inside, no script, no network, light and dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

from motedge.quant.page.document import bullets, document, table, tiles
from motedge.targets.plan.make import TargetPlan
from motedge.targets.plan.model import NO, WITHIN_ERROR, YES, Plan
from motedge.targets.plan.pictures import SEGMENTS, memory_bar, memory_bars, roofline_bars, tick_bars
from motedge.targets.plan.text import cautions, fits_word, headline, reasons, span
from motedge.units import format_bytes, format_ms

_READING = (
    "Nothing was built or run for this page: sizes come from the graphs, times from a roofline whose efficiency is "
    "fitted to published and measured figures. An interval is the error of sources left out of the fit.",
    "Memory: engines with their weights as stored; activations by liveness, fused as TensorRT does; K and V of both "
    "guidance branches at the longest prompt; buffers; CUDA context and libraries. On devices with one memory for CPU "
    "and GPU, the file of an engine counts while it is loaded.",
    "In time: a chunk of actions is ready before the one before it is used up. The prompts' K and V are kept from tick "
    "to tick.",
)


def render_page(entries: Sequence[TargetPlan]) -> str:
    """The page of one target, or of all side by side.

    Args:
        entries: plans; one with advice is shown in full.
    """
    plans = [entry.plan for entry in entries if entry.plan is not None]
    if len(entries) == 1 and plans:
        return _one(plans[0])
    first = plans[0]
    recipe = "unquantized" if first.recipe is None else first.recipe
    lead = f"{first.model}, shape set {first.shape_set}, {recipe}; every device of the catalogue."
    sections = [
        f'<p class="lead">{html.escape(lead)}</p>',
        _counts(entries),
        f"<h2>Memory</h2>{_memory_legend()}<div class=scroll>{memory_bars(plans)}</div>{_unknown(plans)}",
        f"<h2>Tick</h2>{_tick_legend()}<div class=scroll>{tick_bars(plans)}</div>",
        f"<h2>Side by side</h2>{_all_table(entries)}",
        f"<h2>How to read this</h2>{bullets(_READING)}",
    ]
    return document(f"Plan of {first.model} on all devices", sections)


def _one(plan: Plan) -> str:
    state, css = ("passes", "good") if plan.passed else ("refused", "bad")
    memory = plan.memory
    entries = [("memory", format_bytes(memory.needed_bytes), f"of {_available(memory.available_bytes)}")]
    entries.append(("build", format_bytes(plan.build.peak_bytes), f"{plan.build.where}, {plan.build.peak_graph}"))
    entries.append(("disk", format_bytes(plan.build.disk_bytes), f"engines {format_bytes(plan.build.engine_bytes)}"))
    if plan.tick is not None:
        point = plan.tick.points[0]
        entries.append(
            ("tick", format_ms(1000 * point.tick_s), f"of {format_ms(1000 * plan.tick.period_s)}: {point.in_time}")
        )
    recipe = "unquantized" if plan.recipe is None else plan.recipe
    lead = f"{plan.model}, shape set {plan.shape_set}, {recipe}; {plan.library}. {_sentence(headline(plan))}"
    sections = [
        f'<p class="lead">{html.escape(lead)}</p><p class="verdict {css}">{state}</p>{tiles(entries)}',
        f"<h2>Memory</h2>{_memory_legend()}<div class=scroll>{memory_bar(plan)}</div>{_memory_table(plan)}",
        f"<h2>Graphs</h2>{_graph_table(plan)}{_remarks(plan)}",
    ]
    rooflines = roofline_bars(plan)
    if rooflines:
        sections.append(f"<h3>Both sides of the roofline, one run</h3><div class=scroll>{rooflines}</div>")
    if plan.tick is not None:
        sections.append(f"<h2>Tick</h2>{_tick_legend()}<div class=scroll>{tick_bars([plan])}</div>{_points(plan)}")
    if plan.advice:
        rows = [(entry.change, entry.result) for entry in plan.advice]
        sections.append(f"<h2>What helps</h2>{table(('change, each planned', 'gives'), rows)}")
    sections.append(f"<h2>How to read this</h2>{bullets((*_READING, *plan.notes, plan.build.note))}")
    return document(f"Plan of {plan.model} on {plan.target_name}", sections)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _counts(entries: Sequence[TargetPlan]) -> str:
    plans = [entry.plan for entry in entries if entry.plan is not None]
    legal = [plan for plan in plans if plan.legal]
    fitting = [plan for plan in legal if plan.passed]
    ticks = [plan.tick.points[0].in_time for plan in fitting if plan.tick is not None]
    return tiles(
        [
            ("devices", str(len(entries)), f"{len(entries) - len(plans)} without a plan"),
            ("legal", str(len(legal)), "number formats, dialect, opset"),
            ("fit", str(len(fitting)), "of the legal ones; unknown memory counted in"),
            (
                "in time",
                str(ticks.count(YES)),
                f"{ticks.count(WITHIN_ERROR)} within the error, {ticks.count(NO)} too slow",
            ),
        ]
    )


def _memory_legend() -> str:
    keys = "".join(f'<span class="key {css}"></span>{html.escape(name)}' for name, css in SEGMENTS)
    return f'<p class="legend">{keys}</p>'


def _unknown(plans: Sequence[Plan]) -> str:
    """Devices that have no bar."""
    names = [plan.target for plan in plans if not plan.memory.available_bytes]
    return f'<p class="legend">memory not known: {html.escape(", ".join(names))}</p>' if names else ""


def _tick_legend() -> str:
    return (
        '<p class="legend"><span class="key s2"></span>in time<span class="key s1"></span>within the error'
        '<span class="key s5"></span>too slow</p>'
    )


def _all_table(entries: Sequence[TargetPlan]) -> str:
    head = ("device", "library", "needs", "of", "build peak", "tick", "in time", "fits")
    rows, said = [], dict[str, list[str]]()
    for entry in entries:
        plan = entry.plan
        if plan is None:
            said.setdefault(f"no plan: {entry.reason}", []).append(entry.target.id)
            continue
        for words in reasons(plan):
            said.setdefault(words, []).append(plan.target)
        point = plan.tick.points[0] if plan.tick is not None else None
        rows.append(
            (
                plan.target,
                plan.library,
                format_bytes(plan.memory.needed_bytes),
                _available(plan.memory.available_bytes),
                format_bytes(plan.build.peak_bytes),
                "-" if point is None else span(point),
                "-" if point is None else point.in_time,
                fits_word(plan),
            )
        )
    return table(head, rows) + bullets([f"{', '.join(names)}: {words}" for words, names in said.items()])


def _memory_table(plan: Plan) -> str:
    rows = [(item.name, format_bytes(item.bytes), item.place) for item in plan.memory.items]
    if plan.memory.loading_bytes:
        rows.append(("while the last engine is loaded, its file included", format_bytes(plan.memory.loading_bytes), ""))
    notes = bullets([f"{item.name}: {item.note}" for item in plan.memory.items])
    return f'{table(("use", "bytes", "where"), rows)}<div class="caveats">{notes}</div>'


def _graph_table(plan: Plan) -> str:
    head = ("graph", "variant", "schemes", "weights", "activations", "GFLOP", "moved", "time", "bound by")
    rows = []
    for graph in plan.graphs:
        applied = "" if graph.applied_recipe is None else f" + {graph.applied_recipe}"
        stage = graph.stage
        rows.append(
            (
                graph.graph,
                graph.variant + applied,
                ", ".join(graph.schemes) or "-",
                format_bytes(graph.weight_bytes),
                format_bytes(graph.activation_bytes),
                f"{graph.flops / 1e9:,.0f}",
                format_bytes(graph.moved_bytes),
                "-" if stage is None else format_ms(1000 * stage.time_s),
                "-" if stage is None else stage.bound,
            )
        )
    return table(head, rows)


def _remarks(plan: Plan) -> str:
    found = [f"not legal: {words}" for words in reasons(plan)] + cautions(plan)
    found += [f"{g.graph} has no predicted time: {g.untimed}" for g in plan.graphs if g.untimed is not None]
    return bullets(found) if found else ""


def _points(plan: Plan) -> str:
    if plan.tick is None:
        return ""
    head = ("operating point", "steps", "guidance", "frames", "forwards", "tick", "in time", "note")
    rows = [
        (p.name, str(p.steps), f"{p.guidance:g}", str(p.frames), str(p.forwards), span(p), p.in_time, p.note)
        for p in plan.tick.points
    ]
    return table(head, rows)


def _available(size: object) -> str:
    return format_bytes(size) if isinstance(size, int) else "unknown"
