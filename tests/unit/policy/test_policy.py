"""The policy on fake engines: what reaches the loop, what comes back, what is kept."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from droid_vectors import make_image, vectors
from policy_fakes import FakeVae, make_policy

from motedge.errors import BundleError, ContractError, ObservationError, UsageError
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.embodiments import find_embodiment
from motedge.runtime.policy.loader import load_policy, sampler_settings
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.request import SamplerSettings

VIEWS = {name: make_image("noise", seed, [360, 640]) for seed, name in enumerate(("wrist", "left", "right"))}
STATE = np.array([0.1, -0.4, 0.4, -2.4, 0.0, 2.0, 0.6])


def observation(**changes) -> Observation:
    return Observation(
        **{"joint_position": STATE, "gripper_position": 0.2, "instruction": "go", "views": VIEWS, **changes}
    )


def test_what_reaches_the_loop() -> None:
    policy, fakes = make_policy()
    policy.act(observation())
    inputs, settings = fakes.loop.requests[0]
    assert inputs.vision_clean.shape == (48, 9, 33, 40)
    assert (inputs.vision_clean[:, 0] == 1).all() and not inputs.vision_clean[:, 1:].any()
    assert inputs.vision_noisy.tolist() == [0.0] + [1.0] * 8
    assert inputs.action_noisy.tolist() == [0.0] + [1.0] * 32
    np.testing.assert_array_equal(inputs.action_clean[0, :7], STATE.astype(np.float32))
    assert inputs.action_clean[0, 7] == np.float32(1) - np.float32(0.2)
    assert not inputs.action_clean[1:].any() and not inputs.action_clean[:, 8:].any()
    assert (inputs.domain_id, inputs.raw_dim, inputs.fps, inputs.action_start_offset) == (8, 8, 15.0, 0)
    assert settings == SamplerSettings()
    assert fakes.tokenizer.prompts == [policy.prompt("go"), ""]


def test_the_frozen_sample_reaches_the_encoder() -> None:
    """The same canvas as the server's first frame, and the same prompt."""
    case = vectors()["samples"][0]
    policy, fakes = make_policy()
    policy.act(observation(views=None, image=make_image("noise", case["seed"], [540, 640])))
    image = make_image("noise", case["seed"], [540, 640])
    np.testing.assert_array_equal(fakes.vae.image, normalise(pad_canvas(image, (544, 736))))
    assert policy.prompt("Put the red cube in the bowl") == case["prompt"]


def test_chunk() -> None:
    policy, _ = make_policy()
    chunk = policy.act(observation(views={"right": VIEWS["right"]}, source="test"))
    assert chunk.actions.shape == (32, 8) and chunk.actions.dtype == np.float32
    np.testing.assert_array_equal(chunk.gripper_fraction, np.full(32, 0.75, np.float32))
    np.testing.assert_array_equal(chunk.joint_position_rad[:, 0], np.arange(1, 33))
    assert chunk.missing_views == ("wrist", "left")
    assert chunk.time_s[0] == pytest.approx(1 / 15)
    assert chunk.forwards == 3 and chunk.finite
    assert chunk.timings_ms["gen_ms"] == 5.0 and chunk.timings_ms["total_ms"] > 0
    stored = json.loads(chunk.to_json())
    assert stored["schema"] == "motedge.action_chunk/v1"
    assert stored["fields"][7] == {"name": "gripper_position", "unit": "fraction closed"}
    np.testing.assert_array_equal(np.array(stored["actions"], np.float32), chunk.actions)
    assert stored["missing_views"] == ["wrist", "left"] and stored["source"] == "test"
    assert len(chunk.to_table().splitlines()) == 3 + 32
    short = chunk.to_table(every_row=False).splitlines()
    assert len(short) == 3 + 9 and "24 more" in short[-2] and short[-1].split()[0] == "32"


def test_prompts_are_tokenized_once() -> None:
    policy, fakes = make_policy()
    for _ in range(3):
        policy.act(observation())
    assert len(fakes.tokenizer.prompts) == 2
    for number in range(40):
        policy.act(observation(instruction=f"task {number}"))
    assert fakes.tokenizer.prompts.count("") == 1


def test_seeds_as_the_server_gives_them() -> None:
    policy, fakes = make_policy()
    expected = vectors()["seeds"][0]["requests"]
    assert [policy.act(observation()).seed for _ in range(3)] == expected[:3]
    assert policy.act(observation(), seed=77).seed == 77
    assert policy.act(observation()).seed == expected[3]
    assert [inputs.seed for inputs, _ in fakes.loop.requests] == [*expected[:3], 77, expected[3]]


def test_refused_instruction_keeps_the_seed() -> None:
    policy, fakes = make_policy()
    with pytest.raises(ObservationError, match="too long"):
        policy.act(observation(instruction="word " * 100))
    assert policy.act(observation()).seed == vectors()["seeds"][0]["requests"][0]
    assert len(fakes.loop.requests) == 1


def test_settings_of_one_request() -> None:
    policy, fakes = make_policy()
    chunk = policy.act(observation(), settings=SamplerSettings(steps=2, guidance_interval=(960.0, 1001.0)))
    assert fakes.loop.requests[0][1].steps == 2
    assert chunk.details["guidance_interval"] == [960.0, 1001.0]


def test_non_finite_latent() -> None:
    policy, fakes = make_policy(vae=FakeVae(latent=np.nan))
    with pytest.raises(NonFiniteError, match="vae_encoder"):
        policy.act(observation())
    assert not fakes.loop.requests


def test_close() -> None:
    policy, fakes = make_policy()
    with policy:
        pass
    assert fakes.loop.closed and fakes.vae.closed and fakes.other.closed


def test_embodiment_without_protocol() -> None:
    with pytest.raises(ObservationError, match="no serving protocol"):
        make_policy(embodiment=find_embodiment("umi"))


def test_another_content_size_is_resized() -> None:
    """As the server does when its image size is set to another than the released one."""
    policy, _ = make_policy(shape=PolicyShape((96, 96), (90, 96), 33, (9, 5, 6), 33, 15.0))
    image, _ = policy.see(observation())
    assert image.shape == (90, 96, 3)


def test_shape_from_manifest() -> None:
    shape_set = {"latent": [9, 33, 40], "canvas": [544, 736], "content": [540, 640], "frames": 33}
    shape = PolicyShape.from_manifest(shape_set, {"chunk": 32, "fps": 15.0})
    assert (shape.rows, shape.fps) == (33, 15.0)
    with pytest.raises(BundleError, match="does not fit its clip"):
        PolicyShape.from_manifest(shape_set, {"chunk": 16, "fps": 15.0})
    with pytest.raises(BundleError, match="no usable policy"):
        PolicyShape.from_manifest(shape_set, {"fps": 15.0})


def test_sampler_settings() -> None:
    defaults = {"steps": 4, "shift": 5.0, "guidance": 3.0, "guidance_interval": [960, 1001], "fps": 15.0}
    assert sampler_settings(defaults, {"steps": 2}) == SamplerSettings(2, 5.0, 3.0, (960, 1001))
    assert sampler_settings(defaults, {"guidance_interval": None}).guidance_interval is None
    with pytest.raises(UsageError, match="did you mean 'steps'"):
        sampler_settings(defaults, {"step": 2})


def test_load_policy_of_nothing(tmp_path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        load_policy(tmp_path / "absent")
    with pytest.raises(UsageError, match="did you mean 'full'"):
        load_policy(tmp_path, check="ful")
    with pytest.raises(UsageError, match="seed"):
        load_policy(tmp_path, seed=-1)


def test_peeked_seed_is_the_next_one() -> None:
    seeds = RequestSeeds(7)
    policy, _ = make_policy(seeds=seeds)
    upcoming = seeds.peek()
    assert policy.act(observation()).seed == upcoming


def test_committed_actions_are_given_to_the_model_and_come_back() -> None:
    policy, fakes = make_policy()
    committed = np.full((3, 8), 0.25, np.float32)
    committed[:, 7] = 0.9
    chunk = policy.act(observation(), committed=committed)
    inputs, _ = fakes.loop.requests[0]
    assert inputs.action_noisy.tolist() == [0.0] * 4 + [1.0] * 29
    np.testing.assert_array_equal(inputs.action_clean[1:4, :7], committed[:, :7])
    np.testing.assert_array_equal(inputs.action_clean[1:4, 7], np.float32(1) - committed[:, 7])
    assert chunk.details["committed_rows"] == 3
    assert policy.act(observation()).details["committed_rows"] == 0


@pytest.mark.parametrize("rows", [np.zeros((3, 7)), np.zeros((32, 8)), np.full((1, 8), np.nan), np.zeros(8)])
def test_actions_that_cant_be_committed(rows: np.ndarray) -> None:
    policy, fakes = make_policy()
    with pytest.raises(ContractError, match="can't be committed"):
        policy.act(observation(), committed=rows)
    assert not fakes.loop.requests
    assert policy.act(observation()).seed == vectors()["seeds"][0]["requests"][0]


def test_no_committed_actions_are_none() -> None:
    policy, fakes = make_policy()
    assert policy.act(observation(), committed=np.zeros((0, 0))).details["committed_rows"] == 0
    assert fakes.loop.requests[0][0].action_noisy.tolist() == [0.0] + [1.0] * 32


def test_close_waits_for_a_request() -> None:
    policy, fakes = make_policy()
    inside, go = threading.Event(), threading.Event()
    run = fakes.loop.run

    def slow(*args):
        inside.set()
        assert go.wait(10)
        return run(*args)

    fakes.loop.run = slow
    acting = threading.Thread(target=policy.act, args=(observation(),))
    acting.start()
    assert inside.wait(10)
    closing = threading.Thread(target=policy.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive() and not fakes.loop.closed
    go.set()
    acting.join(10)
    closing.join(10)
    assert fakes.loop.closed
