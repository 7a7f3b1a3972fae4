"""The committed small checkpoint, a vehicle's: the tick is the generator's, run, replayed, profiled and served."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from road_scene import road
from serve_scene import DescribedClient, served
from serve_scene import observation as droid_message

from motedge.cli.main import main
from motedge.client import RemotePolicy, camera_observation
from motedge.client.remote_errors import MetadataError, RemoteError
from motedge.errors import ObservationError
from motedge.profile.report import load_profile
from motedge.runtime.deadline import with_deadlines
from motedge.runtime.generate import GenerateRequest, load_generator
from motedge.runtime.policy import Observation, load_policy
from motedge.runtime.policy.observation_folder import write_observation
from motedge.serve.bundle_choice import BundleChoice
from motedge.serve.bundle_resident import load_resident

pytest.importorskip("PIL")
LEFT, STOP = "Keep to the left side of the road.", "Stop the car."
ENGINES = {"check": "size", "threads": 1}


@pytest.fixture(scope="module")
def bundle(road_bundle: Path) -> Path:
    return road_bundle


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_observation(tmp_path_factory.mktemp("scene") / "scene", Observation.of_camera(road(), LEFT)).parent


def generated(bundle: Path, picture: np.ndarray, seed: int, text: str = LEFT, **sampler: Any) -> np.ndarray:
    with load_generator(bundle, check="size", threads=1) as generator:
        given = {"steps": 4, "shift": 5.0, **sampler}
        request = GenerateRequest("policy", text, image=picture, embodiment="av", seed=seed, sampler=given)
        made = generator.generate(request).actions
    assert made is not None
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 2},
        {"guidance": 3.0},
        {"guidance": 3.0, "guidance_interval": (960.0, 1001.0)},
        {"step_cache": "every:2"},
    ],
    ids=["plain", "two-steps", "guided", "interval", "step-cache"],
)
def test_the_tick_is_the_generators_bit_for_bit(bundle: Path, settings: dict[str, Any]) -> None:
    """Which is held against diffusers in test_generate.py."""
    with load_policy(bundle, **ENGINES, **settings) as policy:
        first, later = (policy.act(Observation.of_camera(road(n), LEFT), seed=n) for n in (5, 6))
    assert (first.actions.shape, first.rate_hz, first.embodiment) == ((16, 9), 10.0, "av")
    for chunk, number in ((first, 5), (later, 6)):
        np.testing.assert_array_equal(chunk.actions, generated(bundle, road(number), number, **settings))
    # The prompt's K and V, and the rotary table, are kept from tick to tick
    assert first.details["prefills"] > 0 and later.details["prefills"] == 0
    assert later.details["prompt_hits"] > 0 and later.details["rope_hits"] > 0


def test_the_bundles_own_tick_is_a_vehicles(bundle: Path) -> None:
    with np.load(bundle / "samples" / "tick.npz") as sample:
        settings = json.loads(str(sample["settings"]))
        assert sample["in.action_noisy"].tolist() == [1.0] * 16 and not sample["in.action_clean"].any()
    assert (settings["domain_id"], settings["raw_dim"], settings["action_start_offset"]) == (1, 9, 1)
    assert (settings["guidance"], settings["fps"]) == (1.0, 10.0)
    assert main(["verify", str(bundle)]) == 0


def test_a_larger_picture_is_the_generators_too(bundle: Path) -> None:
    picture = road(3, 250)
    with load_policy(bundle, **ENGINES) as policy:
        chunk = policy.act(Observation.of_camera(picture, STOP), seed=1)
    np.testing.assert_array_equal(chunk.actions, generated(bundle, picture, 1, STOP))


def test_words_decide(bundle: Path) -> None:
    with load_policy(bundle, **ENGINES) as policy:
        assert policy.settings.guidance == 1.0, "guidance is the DROID server's alone"
        ahead = [float(policy.act(Observation.of_camera(road(), t), seed=2).actions[:, 2].sum()) for t in (LEFT, STOP)]
    assert ahead[0] > 5.0 > 1.0 > abs(ahead[1])


def test_committed_poses_begin_the_chunk(bundle: Path) -> None:
    with load_policy(bundle, **ENGINES) as policy:
        seen = Observation.of_camera(road(), LEFT)
        before = policy.act(seen, seed=1).actions
        after = policy.act(seen, seed=2, committed=before[4:7]).actions
    np.testing.assert_array_equal(after[:3], before[4:7])
    assert np.isfinite(after).all() and not np.array_equal(after[3:], before[7:])


def test_the_ladder_holds_what_is_left(bundle: Path) -> None:
    seen = Observation.of_camera(road(), LEFT)
    with with_deadlines(load_policy(bundle, **ENGINES), deadline_ms=10_000) as acting:
        acting.warm_up(seen, rounds=1)
        fresh = acting.act(seen)
        held = acting.act(seen, deadline_ms=0.01)
    assert fresh.kind == "fresh" and fresh.actions.shape == (16, 9)
    assert held.kind == "held" and held.actions.shape[1] == 9


def test_run_and_replay(bundle: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring, out = tmp_path / "ring", tmp_path / "chunk.json"
    command = ["run", str(bundle), "--observation", str(scene), "--threads", "1", "--recorder", str(ring)]
    assert main([*command, "--repeat", "2", "--record", str(tmp_path / "requests"), "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert "16 actions at 10 Hz; each pose seen from the one before it" in printed and "rot6d_0" in printed
    assert main([*command, "--instruction", STOP, "--out", str(out)]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["fields"][2] == {"name": "z", "unit": "m"}
    capsys.readouterr()
    assert main(["replay", str(ring), str(bundle)]) == 0
    assert "3 same, 0 different, 0 skipped" in capsys.readouterr().out
    recorded = json.loads((tmp_path / "requests/request-000000/observation.json").read_text(encoding="utf-8"))
    assert sorted(recorded) == ["image", "instruction", "schema", "source"]


def test_run_on_a_picture_alone(bundle: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture, plot = str(scene / "image.png"), tmp_path / "way.png"
    command = ["run", str(bundle), "--image", picture, "--instruction", LEFT, "--seed", "5", "--json"]
    assert main([*command, "--plot", str(plot)]) == 0
    document = json.loads(capsys.readouterr().out)
    np.testing.assert_array_equal(np.array(document["actions"], np.float32), generated(bundle, road(), 5))
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert main([*command, "--state", "0 0 0 -2 0 2 0 0.5"]) == 2, "a robot's composed picture has another size"


def test_profile(bundle: Path, scene: Path, tmp_path: Path) -> None:
    command = ["profile", str(bundle), "--observation", str(scene), "--out", str(tmp_path), "--ticks", "6"]
    assert main([*command, "--threads", "1", "--warmup", "1", "--new-prompts", "1"]) == 0
    document = load_profile(tmp_path)
    assert document["complete"] and document["chunk"]["steps"] == 4 and document["chunk"]["forwards"] == 4


@contextlib.contextmanager
def serving(bundle: Path, **choice: Any) -> Iterator[Any]:
    chosen = BundleChoice(bundle, **{"engines": ENGINES, **choice})
    with served(lambda generation: load_resident(chosen, generation), deadline_ms=chosen.deadline_ms) as running:
        yield running


def test_over_the_wire(bundle: Path) -> None:
    want = {"embodiment": "av", "rate_hz": 10, "action_rows": 16, "image_size": [96, 96]}
    with serving(bundle) as running, RemotePolicy(running.url, expect=want) as remote:
        got = remote.act(camera_observation(road(5), LEFT), seed=5)
        said = remote.metadata
    np.testing.assert_array_equal(got.actions, generated(bundle, road(5), 5))
    assert got.actions.dtype == np.float32 and got.actions.shape == (16, 9)
    assert said["observation_keys"] == ["observation/image", "prompt"] and len(said["action_fields"]) == 9
    with serving(bundle) as running, DescribedClient(running.url) as client:
        answer = client.infer({"observation/image": road(5), "prompt": LEFT})
    assert answer["actions"].shape == (16, 9) and answer["server_timing"]["infer_ms"] > 0


def test_with_a_deadline(bundle: Path) -> None:
    with serving(bundle, deadline_ms=10_000) as running, RemotePolicy(running.url) as remote:
        first = remote.act(camera_observation(road(), LEFT), seed=1)
    np.testing.assert_array_equal(first.actions, generated(bundle, road(), 1))
    assert first.kind == "fresh" and first.first_row == 0


def test_other_robots_clients_are_refused(bundle: Path) -> None:
    with serving(bundle) as running:
        with pytest.raises(MetadataError, match="embodiment 'av', not 'droid_lerobot'"):
            RemotePolicy(running.url, expect={"embodiment": "droid_lerobot"})
        with DescribedClient(running.url) as client:
            answer = client.infer(droid_message())
            assert answer.startswith("[observation]") and "another embodiment's" in answer
            assert "expected: observation/image, prompt" in answer and "observation/joint_position" in answer
            assert client.infer({"observation/image": road(), "prompt": LEFT})["actions"].shape == (16, 9)
        with RemotePolicy(running.url) as remote, pytest.raises(RemoteError, match="shape is not the one"):
            remote.act(camera_observation(np.zeros((96, 200, 3), np.uint8), LEFT))


def test_a_vehicle_at_a_robots_server_is_refused() -> None:
    """`serve_scene`'s made server says that it is a DROID robot's."""
    with served() as running, DescribedClient(running.url) as client:
        answer = client.infer({"observation/image": road(), "prompt": LEFT})
        assert answer.startswith("[observation]") and "no 'observation/joint_position'" in answer


def test_a_robots_observation_on_the_bundle(bundle: Path) -> None:
    robot = Observation(np.zeros(7), 0.5, "go", views={"wrist": np.zeros((90, 160, 3), np.uint8)})
    with load_policy(bundle, **ENGINES) as policy, pytest.raises(ObservationError, match="is a robot's"):
        policy.act(robot)
