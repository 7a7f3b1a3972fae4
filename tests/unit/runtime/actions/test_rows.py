"""Rows of requests: masks and offsets as the framework makes them, rates, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from droid_vectors import arrays, vectors

from motedge.errors import ContractError, UsageError
from motedge.runtime.actions.rows import ActionRows, arrange_rows
from motedge.runtime.policy.droid import pack_state
from motedge.runtime.rope import GenLayout, RotaryTable

PLANS = json.loads((Path(__file__).resolve().parents[3] / "data" / "action_vectors.json").read_text())["plans"]


def arrange(mode: str, **changes) -> ActionRows:
    settings = {"frames": 17, "raw_dim": 3, "width": 5, "fps_action": 10.0, **changes}
    if mode == "forward_dynamics":
        settings.setdefault("actions", np.ones((settings["frames"] - 1, 3)))
    return arrange_rows(mode, **settings)


# A state row in mode "policy" is refused: the framework would have it generated
@pytest.mark.parametrize(
    "plan",
    [plan for plan in PLANS["rows"] if (plan[0], plan[3]) != ("policy", 1)],
    ids=lambda plan: "-".join(map(str, plan[:5])),
)
def test_masks_and_offsets_are_those_of_the_framework(plan) -> None:
    mode, frames, per_step, state, history, clean_frames, clean_rows, offset = plan
    rows = arrange(
        mode,
        frames=frames,
        actions=np.full((per_step * (frames - 1), 3), 0.5) if mode == "forward_dynamics" else None,
        count=per_step * (frames - 1),
        state=np.ones(3) if state else None,
        history=np.full((history, 3), 2.0) if history else None,
    )
    assert rows.vision_noisy.tolist() == [0] * clean_frames + [1] * (len(rows.vision_noisy) - clean_frames)
    assert len(rows.vision_noisy) == (frames + 3) // 4
    assert rows.action_noisy.tolist() == [0] * clean_rows + [1] * (len(rows.action_noisy) - clean_rows)
    assert len(rows.action_clean) == history + state + per_step * (frames - 1)
    assert rows.action_start_offset == offset
    assert rows.fps == pytest.approx(10 / per_step) and rows.fps_action == 10


def test_what_stands_in_the_rows() -> None:
    rows = arrange("wam", state=[7, 8, 9], history=[[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(rows.action_clean[:3, :3], [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert not rows.action_clean[3:].any() and not rows.action_clean[:, 3:].any()
    assert rows.actions == slice(3, 19)
    denoised = np.random.default_rng(1).standard_normal(rows.action_clean.shape).astype(np.float32)
    np.testing.assert_array_equal(rows.take_actions(denoised), denoised[3:, :3])
    with pytest.raises(ContractError, match="another request's"):
        rows.take_actions(denoised[1:])


def test_the_state_row_is_the_one_of_the_policy() -> None:
    case = vectors()["samples"][0]
    expected = arrays()[case["action"]]
    joints = arrays()[case["joint_position"]].astype(np.float32)
    packed = pack_state(joints, case["gripper_position"], rows=33, width=64)
    rows = arrange_rows("wam", frames=33, raw_dim=8, width=64, fps_action=15.0, state=packed[0, :8])
    np.testing.assert_array_equal(rows.action_clean, expected)
    assert rows.action_start_offset == 0 and rows.action_noisy.sum() == 32


@pytest.mark.parametrize("per_step", [1, 2, 4])
@pytest.mark.parametrize(("history", "state"), [(0, False), (2, False), (0, True), (3, True)])
def test_actions_and_frames_meet_in_time(per_step: int, history: int, state: bool) -> None:
    """The action that leads to frame 4k has the position of latent frame k, whatever stands before it."""
    rows = arrange(
        "wam", fps_action=24.0, count=16 * per_step,
        state=np.zeros(3) if state else None, history=np.zeros((history, 3)) if history else None,
    )  # fmt: skip
    layout = GenLayout(
        und_len=9, frames=5, rows=2, columns=2, actions=len(rows.action_clean), fps=rows.fps,
        fps_action=rows.fps_action, action_start_offset=rows.action_start_offset,
    )  # fmt: skip
    time = RotaryTable(np.ones(64, np.float32), {}).generator_positions(layout)[0]
    vision, action = time[:5], time[5:]
    leads_to = action[rows.actions][4 * per_step - 1 :: 4 * per_step]
    np.testing.assert_allclose(leads_to, vision[1:], atol=2e-3)
    if state:
        np.testing.assert_allclose(action[history], vision[0], atol=2e-3)


def test_a_request_to_the_generator() -> None:
    rows = arrange("inverse_dynamics", fps_action=20.0, count=32)
    inputs = rows.gen_inputs(
        np.zeros((4, 5, 2, 2), np.float32), np.arange(3), np.arange(2), domain_id=1, seed=5,
    )  # fmt: skip
    assert (inputs.fps, inputs.fps_action, inputs.action_start_offset) == (10.0, 20.0, 1)
    assert inputs.vision_noisy.sum() == 0 and inputs.action_noisy.sum() == 32
    with pytest.raises(ContractError, match="vision_noisy has the wrong length"):
        rows.gen_inputs(np.zeros((4, 6, 2, 2), np.float32), np.arange(3), domain_id=1, seed=5)


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("wamm", {}, "did you mean 'wam'"),
        ("wam", {"frames": 16}, "a multiple of 4 and one"),
        ("wam", {"frames": 1}, "a multiple of 4 and one"),
        ("wam", {"raw_dim": 6}, "1 to 5 channels"),
        ("wam", {"fps_action": 0}, "fps_action"),
        ("wam", {"fps_action": float("nan")}, "fps_action"),
        ("wam", {"count": 15}, "number of actions does not go"),
        ("wam", {"count": 17}, "number of actions does not go"),
        ("wam", {"count": 0}, "number of actions does not go"),
        ("wam", {"count": 32, "fps": 10.0}, "expected: 5 frames a second"),
        ("inverse_dynamics", {"actions": np.zeros((16, 3))}, "generates the actions"),
        ("forward_dynamics", {"actions": None}, "needs actions"),
        ("forward_dynamics", {"count": 32}, "count is not the number"),
        ("forward_dynamics", {"actions": np.zeros((12, 3))}, "cut the actions off or repeat"),
        ("policy", {"state": np.zeros(3)}, "no state row"),
    ],
)
def test_what_does_not_go_together(mode: str, changes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arrange(mode, **changes)


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("forward_dynamics", {"actions": np.zeros((16, 4))}, r"\[n, 3\]"),
        ("forward_dynamics", {"actions": np.full((16, 3), np.nan)}, "NaN or infinity"),
        ("wam", {"state": np.zeros(4)}, r"expected: \[3\]\n  got:      \[4\]"),
        ("wam", {"history": np.zeros(3)}, "history of the wrong shape"),
        ("wam", {"history": np.full((1, 3), np.inf)}, "NaN or infinity"),
    ],
)
def test_arrays_that_do_not_fit(mode: str, changes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        arrange(mode, **changes)
