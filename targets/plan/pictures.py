"""Pictures of plans as inline SVG: memory against what a device has, ticks against the control period, rooflines."""

from __future__ import annotations

from collections.abc import Sequence

from motedge.quant.page.svg import Axis, Frame, line, log_range, picture, rectangle, text
from motedge.targets.plan.model import DEVICE, HOST, NO, WITHIN_ERROR, YES, MemoryPlan, Plan
from motedge.units import format_bytes, format_ms

_ROW, _BAR = 30, 16
_LEFT, _RIGHT, _TOP, _BOTTOM = 190, 170, 22, 46
# Uses of memory as they are drawn, and the class of their colour
SEGMENTS = (
    ("gen_step engine", "s0"),
    ("und_prefill engine", "s1"),
    ("other engines", "s2"),
    ("activations", "s3"),
    ("K and V of the prompts", "s4"),
    ("buffers and host", "s6"),
    ("context and libraries", "s-none"),
    ("file of the engine that is loaded", "h2"),
)
_COLOURS = {YES: "s2", NO: "s5", WITHIN_ERROR: "s1"}
# Beyond this share of a device's memory a bar is cut off
_MOST_SHARE = 1.6


def memory_bars(plans: Sequence[Plan]) -> str:
    """A bar a plan: its uses of memory as shares of what the system leaves, which is the line at 100 %."""
    known = [plan for plan in plans if plan.memory.available_bytes]
    frame = _frame(len(known), 1000)
    x = Axis(0.0, _MOST_SHARE, frame.left, frame.inner_right)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        parts.append(line(x.at(share), frame.top, x.at(share), frame.inner_bottom, "grid"))
        parts.append(text(x.at(share), frame.inner_bottom + 18, f"{100 * share:.0f} %"))
    for number, plan in enumerate(known):
        memory, y = plan.memory, frame.top + _ROW * number + (_ROW - _BAR) / 2
        available = memory.available_bytes or 1
        parts.append(text(frame.left - 8, y + 12, plan.target, "end", "note"))
        left = 0.0
        for name, css, size in segments(plan):
            right = min(left + size / available, _MOST_SHARE)
            if right > left:
                tip = f"{plan.target}: {name} {format_bytes(size)}"
                parts.append(rectangle(x.at(left), y, x.at(right) - x.at(left), _BAR, css, tip))
            left = right
        words = f"{memory.needed_bytes / 1e9:.2f} of {available / 1e9:.1f} GB"
        mark = "" if memory.fits else ", too much"
        parts.append(text(frame.inner_right + 8, y + 12, words + mark, "start", "note"))
    parts.append(line(x.at(1.0), frame.top - 6, x.at(1.0), frame.inner_bottom, "bound"))
    parts.append(text(x.at(1.0), frame.top - 10, "all that the system leaves", css="label"))
    middle = (frame.left + frame.inner_right) / 2
    parts.append(text(middle, frame.height - 6, "share of the memory that the system leaves", css="label"))
    return picture(frame.width, frame.height, "memory needed on each device", parts)


def memory_bar(plan: Plan) -> str:
    """One plan's uses of memory in GB, against what the device has."""
    memory, parts = plan.memory, []
    available = memory.available_bytes
    frame = _frame(1, 1000)
    most = max(memory.needed_bytes, available or 0) / 1e9
    # A large device would make the bar a line
    shown = most if available is None or available < 4 * memory.needed_bytes else 2 * memory.needed_bytes / 1e9
    x = Axis(0.0, 1.08 * shown, frame.left, frame.inner_right)
    for value in x.ticks():
        parts.append(line(x.at(value), frame.top, x.at(value), frame.inner_bottom, "grid"))
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    left, y = 0.0, frame.top + (_ROW - _BAR) / 2
    for name, css, size in segments(plan):
        right = left + size / 1e9
        parts.append(rectangle(x.at(left), y, x.at(right) - x.at(left), _BAR, css, f"{name} {format_bytes(size)}"))
        left = right
    parts.append(text(frame.left - 8, y + 12, "needed", "end", "note"))
    if available is not None and available / 1e9 <= 1.08 * shown:
        place = x.at(available / 1e9)
        parts.append(line(place, frame.top - 6, place, frame.inner_bottom, "bound"))
        parts.append(text(place, frame.top - 10, f"the system leaves {format_bytes(available)}", css="label"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, "GB", css="label"))
    return picture(frame.width, frame.height, "memory needed", parts)


def segments(plan: Plan) -> list[tuple[str, str, int]]:
    """(Name, colour, bytes) of what counts, in SEGMENTS' order: all of it where memory is one, else the device's."""
    memory, sizes = plan.memory, dict.fromkeys((name for name, _ in SEGMENTS), 0)
    both = _is_one(memory)
    for item in memory.items:
        if both or item.place == DEVICE:
            sizes[_segment(item.name)] += item.bytes
    if memory.loading_bytes == memory.needed_bytes:
        # Nothing runs while engines are loaded
        for name in ("activations", "K and V of the prompts"):
            sizes[name] = 0
        rest = sum(size for size in sizes.values())
        sizes["file of the engine that is loaded"] = max(0, memory.needed_bytes - rest)
    return [(name, css, sizes[name]) for name, css in SEGMENTS]


def tick_bars(plans: Sequence[Plan]) -> str:
    """The tick of each plan with its interval, on a logarithmic axis, against the control period."""
    known = [(plan, plan.tick) for plan in plans if plan.tick is not None]
    frame = _frame(len(known), 1000)
    if not known:
        return ""
    period = known[0][1].period_s
    times = [time for _, tick in known for time in (tick.points[0].low_s, tick.points[0].high_s)]
    x = Axis(*log_range([*times, period]), frame.left, frame.inner_right, log=True)
    parts = []
    for value in x.ticks():
        parts.append(line(x.at(value), frame.top, x.at(value), frame.inner_bottom, "grid"))
        parts.append(text(x.at(value), frame.inner_bottom + 18, format_ms(1000 * value)))
    for number, (plan, tick) in enumerate(known):
        point, y = tick.points[0], frame.top + _ROW * number + (_ROW - _BAR) / 2
        tip = f"{plan.target}: {format_ms(1000 * point.low_s)} to {format_ms(1000 * point.high_s)}"
        parts.append(text(frame.left - 8, y + 12, plan.target, "end", "note"))
        low, high = x.at(point.low_s), x.at(point.high_s)
        parts.append(rectangle(low, y, high - low, _BAR, _COLOURS[point.in_time], tip))
        parts.append(line(x.at(point.tick_s), y - 3, x.at(point.tick_s), y + _BAR + 3, "axis"))
        words = f"{format_ms(1000 * point.tick_s)}, {point.in_time}"
        parts.append(text(frame.inner_right + 8, y + 12, words, "start", "note"))
    parts.append(line(x.at(period), frame.top - 6, x.at(period), frame.inner_bottom, "bound"))
    parts.append(text(x.at(period), frame.top - 10, f"control period {format_ms(1000 * period)}", css="label"))
    middle = (frame.left + frame.inner_right) / 2
    parts.append(text(middle, frame.height - 6, "time of a tick, logarithmic; bar: interval of the error", css="label"))
    return picture(frame.width, frame.height, "time of a tick on each device", parts)


def roofline_bars(plan: Plan) -> str:
    """Each graph's time on both sides of the roofline: arithmetic and memory."""
    timed = [(graph, graph.stage) for graph in plan.graphs if graph.stage is not None]
    if not timed:
        return ""
    frame = _frame(2 * len(timed), 1000)
    most = max(max(stage.compute_s, stage.memory_s, stage.time_s) for _, stage in timed)
    x = Axis(0.0, 1000 * most * 1.05, frame.left, frame.inner_right)
    parts = []
    for value in x.ticks():
        parts.append(line(x.at(value), frame.top, x.at(value), frame.inner_bottom, "grid"))
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    for number, (graph, stage) in enumerate(timed):
        for row, (name, time_s, css) in enumerate(
            (("compute", stage.compute_s, "s0"), ("memory", stage.memory_s, "s1"))
        ):
            y = frame.top + _ROW * (2 * number + row) + (_ROW - _BAR) / 2
            parts.append(text(frame.left - 8, y + 12, f"{graph.graph}, {name}", "end", "note"))
            width = x.at(1000 * time_s) - x.at(0.0)
            parts.append(rectangle(x.at(0.0), y, width, _BAR, css, f"{graph.graph}: {format_ms(1000 * time_s)}"))
            parts.append(text(x.at(0.0) + width + 6, y + 12, format_ms(1000 * time_s), "start", "note"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, "ms of one run", css="label"))
    return picture(frame.width, frame.height, "both sides of the roofline", parts)


def _frame(rows: int, width: float) -> Frame:
    return Frame(width, _TOP + _ROW * rows + _BOTTOM, _LEFT, _RIGHT, _TOP, _BOTTOM)


def _is_one(memory: MemoryPlan) -> bool:
    """Whether device and host share memory: then a plan counts both, or loading."""
    device, host = memory.total(DEVICE), memory.total(HOST)
    return memory.needed_bytes >= device + host


def _segment(name: str) -> str:
    if name in ("gen_step engine", "und_prefill engine", "K and V of the prompts"):
        return name
    if name.endswith(" engine"):
        return "other engines"
    if name.startswith("activations"):
        return "activations"
    return "context and libraries" if "librar" in name else "buffers and host"
