"""A vehicle's messages: what is taken, what is refused and how it is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.client import camera_observation, protocol
from motedge.errors import MotedgeError, ObservationError
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.serve.observed_keys import DROID_KEYS, EGO_KEYS, observed_keys
from motedge.serve.policy_request import PolicyRequest, request_from_message

PICTURE = np.full((96, 96, 3), 7, np.uint8)
KEYS = observed_keys(find_embodiment("av"))
_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.just(PICTURE), st.just(np.zeros(7))
)


def taken(message: Any, pixels: int = 1 << 20) -> PolicyRequest:
    return request_from_message(message, pixels, "client 1", KEYS)


def test_keys_of_both() -> None:
    assert KEYS == EGO_KEYS and observed_keys(find_embodiment("droid_lerobot")) == DROID_KEYS


def test_what_is_taken() -> None:
    committed = np.ones((2, 9), np.float32)
    extra = {protocol.SEED: 4, protocol.COMMITTED: committed, protocol.DEADLINE_MS: 50, "session_id": "x"}
    request = taken({**camera_observation(PICTURE, "Stop."), **extra})
    assert request.observation.image is not None and not request.observation.has_state
    assert (request.observation.instruction, request.seed, request.deadline_ms) == ("Stop.", 4, 50.0)
    np.testing.assert_array_equal(request.committed, committed)
    # A client that sends a key of another embodiment without a value means none
    assert taken({**camera_observation(PICTURE, "Stop."), protocol.GRIPPER: None}).observation.source == "client 1"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({protocol.PROMPT: "Stop."}, "no 'observation/image'"),
        ({protocol.IMAGE: PICTURE}, "no 'prompt'"),
        (
            {**camera_observation(PICTURE, "Stop."), protocol.IMAGE: None},
            "no 'observation/image'.*\n.*\n  got: +'prompt'",
        ),
        ({**camera_observation(PICTURE, "Stop."), protocol.PROMPT: None}, "no 'prompt'"),
        ({protocol.PROMPT: None}, "no 'prompt'.*\n.*\n  got: +nothing"),
        ({**camera_observation(PICTURE, "Stop."), protocol.JOINTS: np.zeros(7)}, "another embodiment's"),
        ({protocol.WRIST: PICTURE, protocol.PROMPT: "Stop."}, "another embodiment's"),
        (camera_observation(PICTURE[..., 0], "Stop."), "not one colour image"),
        (camera_observation(PICTURE, ""), "instruction is empty"),
        ([], "not an observation"),
    ],
)
def test_what_is_refused(message: Any, said: str) -> None:
    with pytest.raises(ObservationError, match=said) as caught:
        taken(message)
    assert "observation/gripper_position" not in str(caught.value.expected)


def test_a_picture_that_is_too_large() -> None:
    with pytest.raises(ObservationError, match="too large"):
        taken(camera_observation(PICTURE, "Stop."), pixels=95 * 96)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*DROID_KEYS, *protocol.REQUEST_KEYS, "other"]), _values))
def test_any_message_is_read_or_refused(message: dict[str, Any]) -> None:
    try:
        request = taken(message)
    except MotedgeError:
        return
    assert request.observation.image is not None and not request.observation.has_state
