"""Spans: what a listener hears of a tick, and that nobody need listen."""

from __future__ import annotations

import numpy as np
import pytest
from droid_vectors import make_image
from policy_fakes import make_policy

from motedge.errors import InternalError
from motedge.runtime.guidance import combine, guide
from motedge.runtime.policy.observation import Observation
from motedge.runtime.spans import device_span, listening, span


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def begin(self, name: str) -> None:
        self.told.append(("begin", name))

    def end(self, name: str) -> None:
        self.told.append(("end", name))

    def device(self, name: str, start_ms: float, end_ms: float) -> None:
        self.told.append(("device", name, f"{start_ms} {end_ms}"))


def test_without_a_listener_nothing_happens() -> None:
    with span("a"):
        device_span("b", -1.0, 0.0)


def test_spans_end_when_the_work_fails() -> None:
    heard = Heard()
    with listening(heard), pytest.raises(ValueError), span("outer"), span("inner"):
        raise ValueError
    assert heard.told == [("begin", "outer"), ("begin", "inner"), ("end", "inner"), ("end", "outer")]
    with span("later"):
        pass
    assert len(heard.told) == 4


def test_one_listener_at_a_time() -> None:
    with listening(Heard()), pytest.raises(InternalError), listening(Heard()):
        pass
    with listening(Heard()):
        device_span("gpu", -2.0, 0.0)


def test_a_tick_tells_its_stages() -> None:
    policy, _ = make_policy()
    heard = Heard()
    seen = Observation(np.zeros(7), 0.25, "open the drawer", image=make_image("smooth", 2, [540, 640]))
    with policy, listening(heard):
        policy.act(seen)
    began = [name for what, name in heard.told if what == "begin"]
    assert began == ["tick", "tokenize", "ingest", "vae_encoder", "decode"]
    assert heard.told[-1] == ("end", "tick")


def test_guide_combines_or_copies() -> None:
    cond, other, out = (np.float32([1, 2]),), (np.float32([0, 4]),), (np.zeros(2, np.float32),)
    guide(cond, None, 3.0, out)
    np.testing.assert_array_equal(out[0], cond[0])
    guide(cond, other, 3.0, out)
    np.testing.assert_array_equal(out[0], combine(cond[0], other[0], 3.0, np.empty(2, np.float32)))
