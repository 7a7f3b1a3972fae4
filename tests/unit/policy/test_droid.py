"""State, actions, seeds, embodiments, positions and noise against the frozen vectors."""

from __future__ import annotations

import numpy as np
import pytest
from droid_vectors import arrays, checksum, make_image, vectors

from motedge.errors import ContractError, ObservationError, UsageError
from motedge.runtime.noise import standard_normal
from motedge.runtime.policy.droid import pack_state, unpack_actions
from motedge.runtime.policy.embodiments import find_embodiment, load_embodiments
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.rope import GenLayout, RotaryTable


@pytest.mark.parametrize("case", vectors()["samples"], ids=lambda case: str(case["seed"]))
def test_state_row(case) -> None:
    observation = Observation(
        arrays()[case["joint_position"]], [case["gripper_position"]], "go", image=make_image("noise", 1, [540, 640])
    )
    expected = arrays()[case["action"]]
    rows, width = expected.shape
    packed = pack_state(observation.joint_position, observation.gripper_position, rows=rows, width=width)
    np.testing.assert_array_equal(packed, expected)
    assert packed.dtype == np.float32


@pytest.mark.parametrize("case", vectors()["replies"], ids=lambda case: str(case["seed"]))
def test_reply(case) -> None:
    rows = np.random.RandomState(case["seed"]).standard_normal((33, 64)).astype(np.float32)
    kept = rows.copy()
    actions = unpack_actions(rows)
    np.testing.assert_array_equal(actions, arrays()[case["reply"]])
    np.testing.assert_array_equal(rows, kept)


def test_state_that_does_not_fit() -> None:
    with pytest.raises(ContractError, match="does not fit"):
        pack_state(np.zeros(6, np.float32), 0.0, rows=33, width=64)


@pytest.mark.parametrize("case", vectors()["seeds"], ids=lambda case: str(case["seed"]))
def test_request_seeds(case) -> None:
    seeds = RequestSeeds(case["seed"])
    for expected in case["requests"]:
        assert seeds.peek() == expected
        assert seeds.take() == expected


def test_fixed_seed() -> None:
    case = vectors()["seeds_deterministic"]
    seeds = RequestSeeds(case["seed"], fixed=True)
    assert [seeds.take() for _ in case["requests"]] == case["requests"]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_seed_out_of_range(seed) -> None:
    with pytest.raises(UsageError, match="seed"):
        RequestSeeds(seed)


def test_domains() -> None:
    known = load_embodiments()
    assert {name: robot.domain_id for name, robot in known.items()} == vectors()["domains"]
    stored = {name: robot.base_raw_dim or robot.raw_dim for name, robot in known.items()}
    assert {name: dim for name, dim in stored.items() if dim is not None} == vectors()["raw_action_dims"]


def test_droid_embodiment() -> None:
    robot = find_embodiment(" DROID_LeRobot ")
    sample = vectors()["samples"][0]
    assert (robot.domain_id, robot.raw_dim) == (sample["domain_id"], sample["raw_action_dim"])
    assert robot.fields[-1] == "gripper_position" and robot.units[0] == "rad"


def test_unknown_embodiment_names_the_closest() -> None:
    with pytest.raises(ObservationError, match="did you mean 'droid_lerobot'"):
        find_embodiment("droid_lerobt")


@pytest.mark.parametrize("case", vectors()["positions"], ids=lambda case: f"{case['und_len']}@{case['fps']}")
def test_positions(case) -> None:
    """The packer's positions of prompt, vision and action tokens, in that order."""
    frames, rows, columns = case["latent"]
    layout = GenLayout(
        und_len=case["und_len"], frames=frames, rows=rows, columns=columns, actions=case["rows"],
        fps=case["fps"], fps_action=case["fps"], action_start_offset=case["offset"],
    )  # fmt: skip
    rotary = RotaryTable(np.ones(64, np.float32), {})
    expected = arrays()[case["array"]]
    np.testing.assert_array_equal(rotary.generator_positions(layout), expected[:, case["und_len"] :])
    np.testing.assert_array_equal(expected[:, : case["und_len"]], np.tile(np.arange(case["und_len"]), (3, 1)))


@pytest.mark.parametrize("case", vectors()["noise"], ids=lambda case: str(case["seed"]))
def test_noise(case) -> None:
    vision = standard_normal(case["seed"], (48, 9, 33, 40))
    assert checksum(vision) == case["vision_sha256"]
    assert checksum(standard_normal(case["seed"], (33, 64))) == case["action_sha256"]
    np.testing.assert_array_equal(vision.ravel()[:64], arrays()[case["head"]])
