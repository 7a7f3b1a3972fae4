"""Lines through dots: whole within the frame, or cut with an arrow that says so."""

from __future__ import annotations

import re
from typing import Any, Optional

import pytest

from motedge.bench.page.scatter import time_scatter
from motedge.bench.page.whiskers import error_ends, range_with, whiskers
from motedge.quant.page.svg import Axis

_LINE = re.compile(r'class="axis" x1="([\d.-]+)" y1="([\d.-]+)" x2="([\d.-]+)" y2="([\d.-]+)"')


def cell(p50: float, interval: Optional[tuple[float, float]], *errors: float) -> dict[str, Any]:
    return {
        "id": f"a / {p50}",
        "candidate": "a",
        "status": "measured",
        "latency_ms": {"p50": p50, "count": 9},
        "median_interval": None if interval is None else {"low": interval[0], "high": interval[1]},
        "from_shipped": {"relative_l2": sum(errors) / len(errors), "by_observation": list(errors), "groups": []},
        "energy": None,
        "front": {"time": True, "time_share": 1.0},
    }


def lines(picture: str) -> list[tuple[float, ...]]:
    """Without that of the frame, which is the longest."""
    found = [tuple(map(float, ends)) for ends in _LINE.findall(picture)]
    longest = max(found, key=lambda ends: ends[2] - ends[0])
    return [ends for ends in found if ends != longest]


@pytest.mark.parametrize("interval", [(90.0, 101.0), (40.0, 105.0), (99.0, 350.0)])
def test_an_interval_is_whole_and_within_the_frame(interval: tuple[float, float]) -> None:
    """The fastest dot's interval reached beyond the axis, and was drawn as if it ended at the frame."""
    found = lines(time_scatter({"candidates": [{"name": "a"}], "cells": [cell(100.0, interval, 0.1)]}))
    [(left, _, right, _)] = found
    assert 86 < left < right < 1110


@pytest.mark.parametrize(("interval", "arrows"), [((1.0, 101.0), 1), ((99.0, 9e4), 1), ((1.0, 9e4), 2)])
def test_what_goes_on_has_an_arrow(interval: tuple[float, float], arrows: int) -> None:
    found = lines(time_scatter({"candidates": [{"name": "a"}], "cells": [cell(100.0, interval, 0.1)]}))
    assert len(found) == 1 + 2 * arrows
    assert all(86 <= x <= 1110 for ends in found for x in (ends[0], ends[2]))


def test_errors_of_observations() -> None:
    y = Axis(0.01, 1.0, 400.0, 0.0, log=True)
    for errors, expected in (
        ((0.1, 0.5), 1),
        ((0.001, 0.5), 3),
        ((0.1, 5.0), 3),
        ((0.1,), 0),
        ((0.0, 0.0), 0),
    ):
        place = (50.0, 200.0, cell(1.0, None, *errors))
        assert len(whiskers([place], y, y, 440.0, time=True)) == expected
    # Down to where those without an error are
    [line] = whiskers([(50.0, 200.0, cell(1.0, None, 0.0, 0.5))], y, y, 440.0, time=True)
    assert 'y1="440.0"' in line
    assert error_ends(cell(1.0, None, 0.3, 0.1)) == [0.1, 0.3]
    assert whiskers([(50.0, 200.0, cell(1.0, (0.5, 2), 0.1))], y, None, 440.0, time=False) == []


def test_an_axis_goes_on_only_so_far() -> None:
    assert range_with([10.0], []) == pytest.approx((10 / 1.15, 11.5))
    low, high = range_with([10.0], [8.0, 12.0])
    assert low < 8 and high > 12
    assert range_with([10.0], [1e-9, 0.0, 1e9]) == range_with([10.0], [2.5, 40.0])
