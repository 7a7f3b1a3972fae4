"""Ticks as bytes: everything comes back as it was, and nothing that is read is trusted."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from droid_vectors import make_image
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_fakes import make_policy

from motedge.errors import DataError
from motedge.runtime.policy.observation import Observation
from motedge.runtime.recorder.tick_record import SESSION, TICK, decode, encode, tick_document
from motedge.runtime.request import SamplerSettings


def _tick(observation: Observation, **options: Any) -> Any:
    policy, _ = make_policy()
    with policy:
        chunk = policy.act(observation, seed=7, committed=options.get("committed"))
    return chunk, decode(encode(TICK, *tick_document(observation, chunk, policy.settings, **options)))


def test_views_state_and_words_come_back() -> None:
    views = {"wrist": make_image("noise", 1, [90, 160]), "right": make_image("smooth", 2, [360, 640])}
    seen = Observation(np.linspace(-1, 1, 7), 0.25, "öffne die Schublade", views=views, source="drawn")
    committed = np.full((2, 8), 0.5, np.float32)
    chunk, tick = _tick(seen, committed=committed)
    back = tick.observation()
    assert (back.instruction, back.gripper_position, back.source) == (seen.instruction, 0.25, "drawn")
    np.testing.assert_array_equal(back.joint_position, seen.joint_position)
    assert back.views is not None and set(back.views) == set(views)
    for name, view in views.items():
        np.testing.assert_array_equal(back.views[name], view)
    np.testing.assert_array_equal(tick.arrays["committed"], committed)
    assert tick.arrays["actions"].tobytes() == chunk.actions.tobytes()
    assert tick.document["seed"] == 7 and tick.document["reply"]["kind"] == "fresh"
    assert tick.settings() == SamplerSettings()


def test_the_composed_image_and_the_settings_of_the_tick() -> None:
    policy, _ = make_policy()
    seen = Observation(np.zeros(7), 0.1, "go", image=make_image("smooth", 3, [540, 640]))
    asked = SamplerSettings(steps=2, guidance_interval=(960.0, 1001.0), step_cache="steps:1")  # type: ignore[arg-type]
    with policy:
        chunk = policy.act(seen, settings=asked)
    tick = decode(encode(TICK, *tick_document(seen, chunk, policy.settings)))
    assert tick.settings() == asked
    np.testing.assert_array_equal(tick.observation().image, seen.image)


def test_what_the_caller_changes_later_is_not_recorded() -> None:
    image = make_image("smooth", 3, [540, 640])
    seen = Observation(np.zeros(7), 0.1, "go", image=image)
    policy, _ = make_policy()
    with policy:
        chunk = policy.act(seen)
    document, arrays = tick_document(seen, chunk, policy.settings)
    image[:] = 0
    chunk.actions[:] = 0
    tick = decode(encode(TICK, document, arrays))
    assert tick.arrays["image"].any() and tick.arrays["actions"].any()


def test_an_observation_that_was_not_recorded_whole() -> None:
    tick = decode(encode(TICK, {"observation": {"lacks": "wrist image: its frame is on the GPU"}}))
    with pytest.raises(DataError, match="not whole"):
        tick.observation()
    with pytest.raises(DataError, match="settings are damaged"):
        tick.settings()
    with pytest.raises(DataError, match="damaged"):
        decode(encode(TICK, {"observation": {"instruction": "x", "gripper_position": 0}})).observation()


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes(payload: bytes) -> None:
    with pytest.raises(DataError):
        decode(payload)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=3) | _JSON, st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_list_of_arrays(arrays: Any, rest: bytes) -> None:
    text = json.dumps({"schema": "motedge.recording/v1", "kind": "tick", "arrays": arrays}).encode()
    try:
        decode(struct.pack("<I", len(text)) + text + rest)
    except DataError:
        return
    assert arrays == [] or arrays == {} or arrays == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "object"},
        {"dtype": "float32\x00"},
        {"shape": [-1]},
        {"shape": [1 << 40]},
        {"shape": [1 << 20, 1 << 20, 1 << 20]},
        {"shape": [3]},
        {"bytes": -4},
        {"bytes": 1 << 40},
    ],
)
def test_arrays_that_are_none(wrong: dict[str, Any]) -> None:
    entry = {"name": "a", "dtype": "float32", "shape": [2], "bytes": 8, "deflated": False, **wrong}
    text = json.dumps({"schema": "motedge.recording/v1", "kind": "tick", "arrays": [entry]}).encode()
    with pytest.raises(DataError):
        decode(struct.pack("<I", len(text)) + text + bytes(8))


def test_a_deflated_bomb_takes_no_memory() -> None:
    bomb = zlib.compress(bytes(50 << 20))
    entry = {"name": "a", "dtype": "uint8", "shape": [10], "bytes": len(bomb), "deflated": True}
    text = json.dumps({"schema": "motedge.recording/v1", "kind": "tick", "arrays": [entry]}).encode()
    with pytest.raises(DataError):
        decode(struct.pack("<I", len(text)) + text + bomb)


def test_a_session_and_deep_json() -> None:
    assert decode(encode(SESSION, {"bundle": "b"})).document == {"schema": "motedge.recording/v1", "bundle": "b"}
    deep = b"[" * 100_000
    with pytest.raises(DataError):
        decode(struct.pack("<I", len(deep)) + deep)
