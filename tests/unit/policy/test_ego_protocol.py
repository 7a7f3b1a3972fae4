"""A vehicle's policy on fake engines: what reaches the loop, what comes back, and observations that are not its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from policy_fakes import make_policy

from motedge.errors import BundleError, ContractError, ObservationError, UsageError
from motedge.quant.datasets.prompted import PromptedObservation
from motedge.runtime.generate.caption import Take, action_caption
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.embodiments import find_embodiment, load_embodiments
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.observation_folder import read_observation, write_observation
from motedge.runtime.policy.protocols import PROTOCOLS, find_protocol
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.recorder.tick_record import TICK, decode, encode, tick_document
from motedge.serve.observed_keys import KEYS

AV = find_embodiment("av")
# 17 frames at 10 Hz; the fake encoder's latent is 33 x 40
SHAPE = PolicyShape((528, 640), (528, 640), 17, (5, 33, 40), 16, 10.0, state_rows=0)
PICTURE = np.random.RandomState(3).randint(0, 256, (528, 640, 3)).astype(np.uint8)


def seen(**changes) -> Observation:
    return dataclasses.replace(Observation.of_camera(PICTURE, "Keep left", source="test"), **changes)


def policy():
    return make_policy(embodiment=AV, shape=SHAPE)


def robot(**changes) -> Observation:
    return Observation(**{"joint_position": np.zeros(7), "gripper_position": 0.5, "instruction": "go", **changes})


def test_what_reaches_the_loop() -> None:
    acting, fakes = policy()
    acting.act(seen(), seed=4)
    inputs, _ = fakes.loop.requests[0]
    assert inputs.vision_noisy.tolist() == [0.0] + [1.0] * 4
    assert inputs.action_noisy.tolist() == [1.0] * 16 and not inputs.action_clean.any()
    assert (inputs.domain_id, inputs.raw_dim, inputs.fps, inputs.action_start_offset) == (1, 9, 10.0, 1)
    assert inputs.seed == 4
    np.testing.assert_array_equal(fakes.vae.image, normalise(pad_canvas(PICTURE, SHAPE.canvas)))
    assert fakes.tokenizer.prompts == [action_caption("Keep left", Take(17, 10.0, SHAPE.canvas), AV.framing()), ""]


def test_what_comes_back() -> None:
    acting, _ = policy()
    chunk = acting.act(seen())
    assert chunk.actions.shape == (16, 9) and chunk.actions.dtype == np.float32
    # The fake loop's rows, as they are: no state row is dropped and no channel is counted from another end
    np.testing.assert_array_equal(chunk.actions[1], [*[1.0] * 7, 0.25, 0.0])
    assert chunk.field_names[:3] == ("x", "y", "z") and chunk.units[:3] == ("m", "m", "m")
    assert chunk.rate_hz == 10.0 and chunk.embodiment == "av" and chunk.missing_views == ()
    head = chunk.to_table().splitlines()[0].split()
    assert head == ["step", "time", "x", "y", "z", *(f"rot6d_{i}" for i in range(6))]
    with pytest.raises(UsageError, match="no joint positions"):
        _ = chunk.joint_position_rad


def test_committed_poses_are_rows_as_they_are_returned() -> None:
    acting, fakes = policy()
    given = np.random.RandomState(1).randn(3, 9).astype(np.float32)
    acting.act(seen(), committed=given)
    inputs, _ = fakes.loop.requests[0]
    assert inputs.action_noisy.tolist() == [0.0] * 3 + [1.0] * 13
    np.testing.assert_array_equal(inputs.action_clean[:3, :9], given)
    assert not inputs.action_clean[3:].any() and not inputs.action_clean[:, 9:].any()


@pytest.mark.parametrize("given", [np.zeros((16, 9)), np.zeros((2, 8)), np.zeros(9), np.full((1, 9), np.nan)])
def test_what_can_not_be_committed(given: np.ndarray) -> None:
    with pytest.raises(ContractError, match="at most 15 rows of 9"):
        policy()[0].act(seen(), committed=given)


def test_a_larger_picture_of_the_same_shape_is_shrunk() -> None:
    acting, fakes = policy()
    acting.act(seen(image=np.full((1056, 1280, 3), 90, np.uint8)))
    np.testing.assert_array_equal(fakes.vae.image, normalise(np.full((528, 640, 3), 90, np.uint8)))


def test_a_picture_of_another_shape() -> None:
    acting, fakes = policy()
    with pytest.raises(ObservationError, match=r"(?s)shape is not the one.*640x528.*got: +480x640"):
        acting.act(seen(image=np.zeros((640, 480, 3), np.uint8)))
    assert not fakes.loop.requests


def test_observations_of_the_other_kind() -> None:
    acting, _ = policy()
    for other in (robot(image=np.zeros((540, 640, 3), np.uint8)), robot(views={"wrist": PICTURE})):
        for ask in (acting.act, acting.see):
            with pytest.raises(ObservationError, match=r"(?s)a robot's.*expected: +one picture"):
                ask(other)
    for ask in (make_policy()[0].act, make_policy()[0].see):
        with pytest.raises(ObservationError, match=r"(?s)no robot state.*expected: +joint_position"):
            ask(seen())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": PICTURE[..., 0]}, "not one colour image"),
        ({"image": PICTURE.astype(np.float32)}, "wrong type"),
        ({"image": PICTURE[:8]}, "wrong size"),
        ({"instruction": " "}, "instruction is empty"),
        ({"gripper_position": 0.5}, "wrong size|wrong length|not numbers"),
        ({"views": {"wrist": PICTURE}, "image": None}, "wrong length"),
    ],
)
def test_observations_that_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        seen(**changes)


def test_a_vehicle_has_no_plain_prompt() -> None:
    with pytest.raises(UsageError, match="no prompt in this form"):
        make_policy(embodiment=AV, shape=SHAPE, prompt_format="plain")[0].prompt("go")


def test_the_shape_of_a_bundle_without_a_state() -> None:
    shape_set = {"latent": [5, 6, 6], "canvas": [96, 96], "content": [96, 96], "frames": 17}
    shape = PolicyShape.from_manifest(shape_set, {"chunk": 16, "fps": 10.0}, find_protocol(AV).state_rows)
    assert (shape.rows, shape.actions, shape.state_rows) == (16, 16, 0)
    with pytest.raises(BundleError, match="chunk 16"):
        PolicyShape.from_manifest(shape_set, {"chunk": 15, "fps": 10.0}, 0)


def test_every_served_embodiment_has_its_protocol_and_keys() -> None:
    served = [robot for robot in load_embodiments().values() if robot.protocol is not None]
    assert {robot.name for robot in served} >= {"av", "droid_lerobot"}
    assert {robot.protocol for robot in served} == set(PROTOCOLS) == set(KEYS)
    for robot in served:
        protocol, shape = find_protocol(robot), dataclasses.replace(SHAPE, state_rows=find_protocol(robot).state_rows)
        blank = protocol.blank("wait", shape)
        image, missing = protocol.image(blank, shape)
        assert image.shape == (*shape.content, 3) and not image.any() and missing == ()
        assert protocol.rows(blank, None, rows=17, width=64).shape == (17, 64)
        assert protocol.actions(np.zeros((17, 64), np.float32)).shape == (17 - protocol.state_rows, robot.raw_dim)


def test_folder_and_recording_give_it_back(tmp_path) -> None:
    pytest.importorskip("PIL")
    acting, _ = policy()
    read = read_observation(write_observation(tmp_path, seen()).parent)
    document, arrays = tick_document(seen(), acting.act(seen()), acting.settings)
    back = decode(encode(TICK, document, arrays)).observation()
    for again in (read, back, PromptedObservation.of(seen(), "whole text")):
        assert not again.has_state and again.instruction == "Keep left" and again.source == "test"
        np.testing.assert_array_equal(again.image, PICTURE)
    assert "joint_position" not in (tmp_path / "observation.json").read_text(encoding="utf-8")
    assert read_observation(tmp_path, instruction="Stop.").instruction == "Stop."
