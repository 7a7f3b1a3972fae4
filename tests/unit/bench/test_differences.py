"""What two benches differ in: the parts alone, each with both of its values, told apart however long they are."""

from __future__ import annotations

from typing import Any

import pytest

from motedge.bench.differences import Difference, differences, told


def point(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "steps": 4, "guidance": 3.0, **settings}


@pytest.mark.parametrize(
    ("before", "now", "name", "was", "is_now"),
    [
        ({"options": {"repeat": 3, "seed": 0}}, {"options": {"repeat": 4, "seed": 0}}, "options repeat", "3", "4"),
        ({"a": {"b": {"c": None}}}, {"a": {"b": {"c": True}}}, "a b c", "none", "true"),
        ({"versions": {"numpy": "1.26"}}, {"versions": {}}, "versions numpy", '"1.26"', "not there"),
        ({"device": ["arm", None, 8]}, {"device": ["x86", None, 6]}, "device", '"arm", 8', '"x86", 6'),
        ({"observations": ["aa"]}, {"observations": ["aa", "bb"]}, "observations", "1 of them", "2 of them"),
        ({"bundles": ["a" * 64]}, {"bundles": ["b" * 64]}, "bundles", f'"{"a" * 12}"', f'"{"b" * 12}"'),
        ({"points": [point("x")]}, {"points": [point("x", steps=2)]}, "points x steps", "4", "2"),
        ({"points": [point("x")]}, {"points": [point("y")]}, "points", 'also "x"', 'also "y"'),
        ({"points": [point("x")]}, {"points": [point("x"), point("y")]}, "points", "no others", 'also "y"'),
        ({"engine": None}, {"engine": {"name": "x"}}, "engine", "none", '{"name": "x"}'),
        ({"points": []}, {"points": [point("x")]}, "points", "0 of them", "1 of them"),
    ],
)
def test_one_part(before: Any, now: Any, name: str, was: str, is_now: str) -> None:
    assert differences(before, now) == [Difference(name, was, is_now)]
    assert differences(before, before) == differences(now, now) == []


def test_the_order_of_named_entries() -> None:
    [found] = differences({"points": [point("x"), point("y")]}, {"points": [point("y"), point("x")]})
    assert found == Difference("order of points", '"x", "y"', '"y", "x"')


def test_many_names_are_cut() -> None:
    [found] = differences({"p": [point("s")]}, {"p": [point("s"), *(point(str(n)) for n in range(9))]})
    assert found.now == 'also "0", "1", "2", "3" and 5 more'


@pytest.mark.parametrize("alike", [0, 60, 400])
def test_long_values_are_cut_where_they_differ(alike: int) -> None:
    before, now = ({"text": "x" * alike + end + "z" * 300} for end in ("before", "now"))
    [found] = differences(before, now)
    assert "before" in found.before and "now" in found.now
    assert max(len(found.before), len(found.now)) < 90


def test_one_line_of_the_first_few() -> None:
    found = differences({str(n): n for n in range(9)}, {str(n): -n for n in range(9)})
    assert told(found, "now") == "1: -1; 2: -2; 3: -3; 4: -4; 5: -5; 6: -6; and 2 more"
    assert told(found[:1], "before") == "1: 1"
