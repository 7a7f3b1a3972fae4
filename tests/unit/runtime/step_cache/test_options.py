"""Rules of the step cache: as text, in settings, and what they say of each step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motedge.errors import UsageError
from motedge.runtime.request import SamplerSettings
from motedge.runtime.step_cache.options import FixedCache, SeaCache, parse_step_cache


@pytest.mark.parametrize(
    ("text", "cache"),
    [
        ("every:2", FixedCache(every=2)),
        ("steps:3,2,2", FixedCache((2, 3), (2, 3))),
        ("cond:1,3", FixedCache((1, 3))),
        ("uncond:1", FixedCache((), (1,))),
        ("cond:2/uncond:1,2,3", FixedCache((2,), (1, 2, 3))),
        ("sea", SeaCache(0.35)),
        (" sea:0.2 ", SeaCache(0.2)),
    ],
)
def test_text_there_and_back(text: str, cache: Any) -> None:
    assert parse_step_cache(text) == cache == parse_step_cache(str(cache))
    assert SamplerSettings(step_cache=text) == SamplerSettings(step_cache=cache)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["", "every", "every:x", "every:0", "steps:", "steps:0", "steps:-1", "cond:1/cond:2", "sea:-1", "sea:nan", "tea:1"],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"step cache|SeaCache"):
        parse_step_cache(text)


def test_steps_that_the_schedule_lacks() -> None:
    with pytest.raises(UsageError, match=r"names step 4"):
        SamplerSettings(steps=4, step_cache=FixedCache((4,)))
    with pytest.raises(UsageError, match="both a period"):
        FixedCache((1,), every=2)


def test_what_runs() -> None:
    guided = [False, True, True, True]
    assert FixedCache(every=2).computed(guided) == ((True, False), (False, True), (True, True), (True, True))
    # The first unconditional forward has none before it
    assert FixedCache((2,), (1, 3)).computed(guided) == ((True, False), (True, True), (False, True), (True, False))


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_forwards_are_counted_and_never_more_than_without(guided: list[bool], data: st.DataObject) -> None:
    later = st.lists(st.integers(1, len(guided) - 1), max_size=8) if len(guided) > 1 else st.just([])
    cache = FixedCache(tuple(data.draw(later)), tuple(data.draw(later)))
    plan = cache.computed(guided)
    assert plan[0][0] and all(active or not uncond for active, (_, uncond) in zip(guided, plan))
    if any(guided):
        assert plan[guided.index(True)][1]
    left_out = len(cache.cond) + sum(guided[k] and k != guided.index(True) for k in cache.uncond)
    assert sum(map(sum, plan)) == len(guided) + sum(guided) - left_out


@pytest.mark.parametrize(
    ("settings", "forwards"),
    [
        ({}, 8),
        ({"step_cache": "every:2"}, 6),
        ({"step_cache": "uncond:1,2,3"}, 5),
        ({"step_cache": "sea"}, 8),
        ({"guidance_interval": (960, 1001), "step_cache": "steps:1"}, 4),
    ],
)
def test_forwards_of_settings(settings: dict[str, Any], forwards: int) -> None:
    assert SamplerSettings(**settings).forwards() == forwards
