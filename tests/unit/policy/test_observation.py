"""Observations that the policy can't take, and how it says so."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from droid_vectors import make_image

from motedge.errors import ObservationError
from motedge.runtime.policy.observation import Observation

CAMERA = make_image("noise", 1, [90, 160])
COMPOSED = make_image("noise", 2, [540, 640])
GOOD = {"joint_position": np.zeros(7), "gripper_position": 0.5, "instruction": "go", "views": {"wrist": CAMERA}}


def observe(**changes) -> Observation:
    return Observation(**{**GOOD, **changes})


def test_good_one() -> None:
    observation = observe()
    assert observation.joint_position.dtype == np.float32
    assert observation.gripper_position == 0.5
    assert list(observation.views) == ["wrist"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        observation.instruction = "stop"


def test_state_is_copied() -> None:
    joints = np.zeros(7, np.float32)
    observation = observe(joint_position=joints)
    joints[0] = 1
    assert observation.joint_position[0] == 0


def test_gripper_as_a_vector_of_one() -> None:
    assert observe(gripper_position=np.array([0.25])).gripper_position == 0.25


def test_absent_views_may_be_none() -> None:
    assert list(observe(views={"wrist": CAMERA, "left": None}).views) == ["wrist"]


def test_bgr_is_turned() -> None:
    observation = observe(channel_order="bgr")
    np.testing.assert_array_equal(observation.views["wrist"], CAMERA[..., ::-1])
    assert observation.channel_order == "rgb"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (CAMERA.tolist(), "not an image"),
        (b"\x89PNG", "not an image"),
        (CAMERA.astype(np.float32), "wrong type"),
        (CAMERA[..., 0], "not one colour image"),
        (CAMERA[None], "not one colour image"),
        (CAMERA.transpose(2, 0, 1), r"channels come last: image.transpose\(1, 2, 0\)"),
        (np.zeros((90, 160, 4), np.uint8), "drop the alpha channel"),
        (np.zeros((90, 160, 1), np.uint8), "three channels"),
        (np.zeros((4, 160, 3), np.uint8), "wrong size"),
        (np.zeros((20, 9000, 3), np.uint8), "wrong size"),
    ],
)
def test_images_that_are_refused(image, message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        observe(views={"wrist": image})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": None}, "either views or image"),
        ({"image": COMPOSED}, "either views or image"),
        ({"views": None, "image": COMPOSED[:480]}, "wrong size"),
        ({"views": {}}, "no image"),
        ({"views": {"wrist": None}}, "no image"),
        ({"views": {"rigth": CAMERA}}, "did you mean 'right'"),
        ({"views": [CAMERA]}, "not a mapping"),
        ({"channel_order": "brg"}, "unknown channel order"),
        ({"joint_position": np.zeros(6)}, "wrong length"),
        ({"joint_position": np.zeros(8)}, "gripper is given apart"),
        ({"joint_position": np.zeros((1, 7))}, "wrong length"),
        ({"joint_position": [0, 0, 0, np.nan, 0, 0, 0]}, "NaN or infinity"),
        ({"joint_position": [0, 0, 0, np.inf, 0, 0, 0]}, "NaN or infinity"),
        ({"joint_position": ["a"] * 7}, "not numbers"),
        ({"joint_position": None}, "wrong length|not numbers"),
        ({"joint_position": [0, -45, 0, -135, 0, 120, 0]}, "degrees"),
        ({"gripper_position": np.nan}, "NaN or infinite"),
        ({"gripper_position": "half"}, "not a number"),
        ({"gripper_position": [0.1, 0.2]}, "not a number"),
        ({"gripper_position": 85}, "out of range"),
        ({"instruction": ""}, "instruction is empty"),
        ({"instruction": " \n"}, "instruction is empty"),
        ({"instruction": None}, "not text"),
    ],
)
def test_observations_that_are_refused(changes, message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        observe(**changes)
