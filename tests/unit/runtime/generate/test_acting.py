"""Actions of a request: the gripper of the DROID policies, states that are missing, statistics."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from motedge.errors import ContractError, UsageError
from motedge.runtime.actions.stats import parse_stats
from motedge.runtime.generate import GenerateRequest
from motedge.runtime.generate.acting import Acting
from motedge.runtime.generate.shape import GenerateShape
from motedge.runtime.policy.droid import pack_state, unpack_actions

PICTURE = np.zeros((16, 16, 3), np.uint8)
SHAPE = GenerateShape((16, 16), (16, 16), 48, (1, 1), 64, (1, 9), (0, 33), (2, 64))
STATE = np.float32([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, 0.8])


def _request(mode: str, **values: Any) -> GenerateRequest:
    given = {"video": [PICTURE]} if mode == "inverse_dynamics" else {"image": PICTURE}
    return GenerateRequest(mode, **{"embodiment": "droid_lerobot", **given, **values})


def test_the_gripper_of_the_droid_policies_is_flipped() -> None:
    """In and out, as `motedge run` does it."""
    request = _request("policy", state=STATE.tolist())
    acting = Acting.of(request, "policy-droid")
    rows = acting.arrange(request, 5, 15.0, SHAPE)
    packed = pack_state(STATE[:7], 0.8, rows=5, width=64)
    np.testing.assert_array_equal(rows.action_clean, packed)
    made = np.random.default_rng(1).standard_normal(packed.shape).astype(np.float32)
    np.testing.assert_array_equal(acting.restore(rows.take_actions(made)), unpack_actions(made))
    assert acting.raw
    # Actions that are given to it, and those that it gives back
    actions = np.tile(STATE, (4, 1))
    request = _request("forward_dynamics", actions=actions)
    acting = Acting.of(request, "policy-droid")
    clean = acting.arrange(request, 5, 15.0, SHAPE).action_clean[:, :8]
    np.testing.assert_array_equal(clean[:, :7], actions[:, :7])
    np.testing.assert_array_equal(clean[:, 7], np.float32(1) - np.float32(0.8))
    np.testing.assert_allclose(acting.restore(clean), actions, rtol=1e-6)


def test_states_and_actions_of_another_width() -> None:
    for request in (_request("policy", state=[1, 2]), _request("forward_dynamics", actions=np.zeros((4, 2)))):
        with pytest.raises(ContractError, match="8"):
            Acting.of(request, "policy-droid").arrange(request, 5, 15.0, SHAPE)


@pytest.mark.parametrize(("variant", "embodiment", "width"), [("base", "droid_lerobot", 10), ("policy-droid", "av", 9)])
def test_others_are_not_flipped(variant: str, embodiment: str, width: int) -> None:
    acting = Acting.of(_request("policy", embodiment=embodiment), variant)
    made = np.full((4, width), 0.25, np.float32)
    np.testing.assert_array_equal(acting.restore(made), made)


def test_a_state_that_is_missing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for mode, values, said in (
        ("policy", {}, True),
        ("policy", {"state": STATE}, False),
        ("policy", {"embodiment": "av"}, False),
        ("inverse_dynamics", {}, False),
    ):
        request = _request(mode, **values)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Acting.of(request, "policy-droid").arrange(request, 5, 15.0, SHAPE)
        assert ("no state is given" in caplog.text) == said


def _stats(width: int) -> Any:
    return parse_stats({"q01": [-2.0] * width, "q99": [2.0] * width})


@pytest.mark.parametrize(("variant", "most"), [("base", 1.0), ("4step", 1.0), ("policy-av", 2.0)])
def test_base_models_were_trained_on_actions_cut_off(variant: str, most: float) -> None:
    actions = np.linspace(-4, 4, 4)[:, None].repeat(10, axis=1)
    request = _request("forward_dynamics", embodiment="bridge_orig_lerobot", actions=actions, stats=_stats(10))
    acting = Acting.of(request, variant)
    clean = acting.arrange(request, 5, 5.0, SHAPE).action_clean[:, :10]
    np.testing.assert_allclose(clean, np.clip(actions / 2, -most, most), rtol=1e-6)
    assert acting.raw


@pytest.mark.parametrize(("variant", "embodiment"), [("base", "av"), ("policy-droid", "droid_lerobot")])
def test_statistics_of_actions_that_are_not_normalised(variant: str, embodiment: str) -> None:
    with pytest.raises(UsageError, match="leave stats out"):
        Acting.of(_request("policy", embodiment=embodiment, stats=_stats(9)), variant)


@pytest.mark.parametrize(("embodiment", "said"), [("camera_pose", True), ("umi", False)])
def test_a_normalisation_that_is_not_published(embodiment: str, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    acting = Acting.of(_request("inverse_dynamics", embodiment=embodiment, stats=_stats(10)), "base")
    assert acting.normaliser.method == "quantile"
    assert ("is not published" in caplog.text) == said
