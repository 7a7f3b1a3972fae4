"""Small pieces of inline SVG. Colours are CSS classes of the page: a picture follows its light and dark theme."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

# Pixels to which a picture may shrink where it can scroll
READABLE = 900


@dataclass(frozen=True)
class Frame:
    """A plot area in pixels, y downwards."""

    width: float
    height: float
    left: float = 62
    right: float = 18
    top: float = 14
    bottom: float = 44

    @property
    def inner_right(self) -> float:
        """x of the right edge."""
        return self.width - self.right

    @property
    def inner_bottom(self) -> float:
        """y of the lower edge."""
        return self.height - self.bottom


@dataclass(frozen=True)
class Axis:
    """Values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 3 else (1,)
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            size = _round_step((self.high - self.low) / 6)
            values = [size * number for number in range(math.floor(self.low / size), math.ceil(self.high / size) + 1)]
        slack = 1e-9 * abs(self.high)
        return [value for value in values if self.low - slack <= value <= self.high + slack]


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis around positive values."""
    low, high = min(values), max(values)
    room = max((high / low) ** 0.08, 1.15)
    return low / room, high * room


def text(x: float, y: float, content: str, anchor: str = "middle", css: str = "tick") -> str:
    """A line of text."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rectangle(x: float, y: float, width: float, height: float, css: str, tip: str) -> str:
    """A filled box with a tooltip."""
    return (
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2">'
        f"<title>{html.escape(tip)}</title></rect>"
    )


def circle(x: float, y: float, radius: float, css: str, tip: str) -> str:
    """A filled dot with a tooltip."""
    return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"><title>{html.escape(tip)}</title></circle>'


def path(points: Sequence[tuple[float, float]], css: str) -> str:
    """Points joined by straight lines."""
    moves = " ".join(f"{'ML'[number > 0]}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))
    return f'<path class="{css}" d="{moves}"/>'


def picture(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """The SVG element; as wide as drawn, or as its column if that is narrower. What scrolls does so before its text is
    too small to be read."""
    least = min(width, READABLE)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="width:{width:.0f}px;--least:{least:.0f}px" role="img" '
        f'aria-label="{html.escape(label, quote=True)}">{"".join(parts)}</svg>'
    )


def grid(frame: Frame, x: Axis, y: Axis, x_title: str, y_title: str) -> list[str]:
    """Axes with faint lines and labels; y values as percentages."""
    parts = []
    for value in y.ticks():
        height = y.at(value)
        parts += [line(frame.left, height, frame.inner_right, height, "grid")]
        parts += [text(frame.left - 8, height + 4, percent(value), "end")]
    for value in x.ticks():
        parts.append(text(x.at(value), frame.inner_bottom + 18, f"{value:g}"))
    parts.append(line(frame.left, frame.inner_bottom, frame.inner_right, frame.inner_bottom, "axis"))
    parts.append(text((frame.left + frame.inner_right) / 2, frame.height - 6, x_title, css="label"))
    middle = (frame.top + frame.inner_bottom) / 2
    parts.append(f'<g transform="translate(13 {middle:.1f}) rotate(-90)">{text(0, 0, y_title, css="label")}</g>')
    return parts


def percent(value: float) -> str:
    """A relative error: 0.0312 -> "3.12 %"."""
    return f"{100 * value:.3g} %"


def _round_step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= size)


def upright(x: float, y: float, content: str) -> str:
    """A label that reads upwards, centred on a point."""
    return f'<g transform="translate({x:.1f} {y:.1f}) rotate(-90)">{text(0, 0, content, css="label")}</g>'
