"""A vehicle's bundle quantized: on its LeRobot data set in every recipe, and on what a server recorded of the loop."""

from __future__ import annotations

import json
from pathlib import Path

import examples_package  # noqa: F401
import numpy as np
import pytest
from quant_scene import observation
from road_scene import road
from serve_scene import served

from examples.train_small.data.lerobot_writer import LeRobotWriter
from motedge.cli.main import main
from motedge.client import RemotePolicy, camera_observation
from motedge.quant.datasets.open import open_dataset
from motedge.runtime.policy import Observation, load_policy
from motedge.runtime.policy.observation_folder import write_observation
from motedge.serve.bundle_choice import BundleChoice
from motedge.serve.bundle_resident import load_resident
from motedge.serve.recording import RecordingChoice

for package in ("modelopt", "PIL", "pyarrow", "av"):
    pytest.importorskip(package)
pytestmark = pytest.mark.slow

TASKS = ("Keep to the left side of the road.", "Keep to the right side of the road.", "Stop the car.")
FEW = ("--observations", "3", "--held-out", "2", "--awq-forwards", "3")
RECIPES = ("fp8", "int8-sq", "int4-awq", "nvfp4", "mixed")


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of drawn roads, a task each."""
    root = tmp_path_factory.mktemp("drives")
    writer = LeRobotWriter(root, "observation.images.ego", 10, TASKS, {})
    for episode in range(4):
        frames = np.stack([road(10 * episode + number) for number in range(6)])
        writer.add(frames, np.full(6, episode % 3), {"action": np.zeros((6, 9), np.float32)})
    writer.close()
    return root


@pytest.fixture(scope="module")
def quantized(road_bundle: Path, drives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle with every recipe; what the first found out serves the others."""
    out = tmp_path_factory.mktemp("quantized") / "bundle"
    for recipe in RECIPES:
        reuse = [] if recipe == RECIPES[0] else ["--reuse", str(out / "calibration" / RECIPES[0])]
        command = ["quantize", str(road_bundle), "--recipe", recipe, "--out", str(out), "--calibration", str(drives)]
        # 1: it is written, though the video's latent moves more than the gate allows
        assert main([*command, *FEW, *reuse]) in (0, 1)
    return out


def plan(bundle: Path, text: str, recipe: str | None = None) -> np.ndarray:
    with load_policy(bundle, recipe=recipe, check="size", threads=1) as policy:
        return policy.act(Observation.of_camera(road(77), text), seed=3).actions


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_still_does_as_told(road_bundle: Path, quantized: Path, recipe: str) -> None:
    """Where the car is after 1.6 s, x to the right and z ahead: near the original's, and the words still decide."""
    ends = {}
    for text in TASKS:
        original, made = (plan(bundle, text, chosen) for bundle, chosen in ((road_bundle, None), (quantized, recipe)))
        assert made.shape == (16, 9) and np.isfinite(made).all() and not np.array_equal(made, original)
        assert np.abs(made[:, [0, 2]].sum(0) - original[:, [0, 2]].sum(0)).max() < 1.5, "m"
        ends[text] = made[:, 2].sum()
    assert ends[TASKS[2]] < 1.5 < 6.0 < min(ends[TASKS[0]], ends[TASKS[1]])


def test_its_report_is_of_poses(quantized: Path) -> None:
    report = json.loads((quantized / "fidelity/fp8/report.json").read_text(encoding="utf-8"))
    fields = [joint["field"] for joint in report["chunk"]["joints"]]
    assert fields[:3] == ["x", "y", "z"] and len(fields) == 9
    assert np.shape(report["chunk"]["rows"]) == (16, 9)
    assert (quantized / "fidelity/fp8/report.html").stat().st_size > 10_000


def test_on_what_a_server_recorded(road_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring, out = tmp_path / "ring", tmp_path / "out"
    recording = RecordingChoice(ring, 64 << 20)
    chosen = BundleChoice(road_bundle, {"check": "size", "threads": 1}, recording=recording)
    with served(lambda generation: load_resident(chosen, generation)) as running, RemotePolicy(running.url) as remote:
        for number in range(6):
            remote.act(camera_observation(road(number), TASKS[number % 3]))
    dataset = open_dataset(ring)
    assert len(dataset.moments()) == 6, "warm-up ticks are no observations of the loop"
    command = ["quantize", str(road_bundle), "--recipe", "int8-sq", "--out", str(out), "--calibration", str(ring)]
    assert main([*command, *FEW]) in (0, 1)
    assert "action chunk" in capsys.readouterr().out
    assert np.isfinite(plan(out, TASKS[0], "int8-sq")).all()


def test_observations_of_a_robot_are_refused(road_bundle: Path, tmp_path: Path) -> None:
    for number in range(4):
        write_observation(tmp_path / "requests" / f"request-{number:06d}", observation(number))
    command = ["quantize", str(road_bundle), "--recipe", "fp8", "--out", str(tmp_path / "out")]
    assert main([*command, "--calibration", str(tmp_path / "requests"), *FEW[:2], "--held-out", "1"]) == 2
    assert not (tmp_path / "out" / "manifest.json").exists()
