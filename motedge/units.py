"""Units and number formats: how bytes, counts and durations are written for people.

Numeric names carry their unit as a suffix everywhere in motedge: `_ms _s _hz _gb _gbps _w _j _tflops`.
"""

from __future__ import annotations

_DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def format_bytes(count: float) -> str:
    """Bytes in decimal units, as disks and memory bandwidths are sold: 6739314048 -> '6.74 GB'."""
    for scale, prefix in _DECIMAL:
        if count >= scale:
            return f"{count / scale:.2f} {prefix}B"
    return f"{count:.0f} B"


def count_of(number: int, noun: str) -> str:
    """A number of things, one or many: 1, "recipe" -> '1 recipe'; 2, "recipe" -> '2 recipes'."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def format_ms(duration_ms: float) -> str:
    """A duration with three significant digits, in ms below a second and in s above."""
    # What rounds to a thousand is a second: "1 s", not "1e+03 ms"
    if duration_ms >= 999.5:
        return f"{duration_ms / 1000:.3g} s"
    return f"{duration_ms:.3g} ms"
