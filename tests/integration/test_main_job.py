"""The main job as a user runs it: checkpoint to actions through the command line, at the true DROID resolution."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import motedge
from motedge.cli.main import main
from motedge.errors import BundleError, ObservationError
from motedge.runtime.policy import Observation

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("MOTEDGE_REAL_DATA", str(ROOT.parent / "shared" / "data")))
EPISODE = REAL_DATA / "droid_lerobot_example"


@pytest.fixture(scope="module")
def bundle(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Edge at the droid shape set, exported by the command."""
    out = tmp_path_factory.mktemp("main-job") / "bundle"
    assert main(["export", str(checkpoints["edge"]), "--out", str(out), "--samples", "none"]) == 0
    return out


def _example(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "examples" / name), *arguments], check=True, capture_output=True)


def _run(bundle: Path, observation: Path, out: Path) -> dict[str, Any]:
    """`motedge run` in a process of its own, which must not load torch."""
    script = (
        "import sys; from motedge.cli.main import main; "
        f"code = main(['run', {str(bundle)!r}, '--observation', {str(observation)!r}, '--repeat', '2', "
        f"'--out', {str(out)!r}, '--plot', {str(out.with_suffix('.png'))!r}]); "
        "sys.exit(code if 'torch' not in sys.modules else 99)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "32 actions at 15 Hz" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 10_000
    chunk: dict[str, Any] = json.loads(out.read_text())
    return chunk


def _check(chunk: dict[str, Any], missing: list[str]) -> np.ndarray:
    actions = np.array(chunk["actions"])
    assert chunk["schema"] == "motedge.action_chunk/v1"
    assert actions.shape == (32, 8) and np.isfinite(actions).all()
    assert sorted(chunk["missing_views"]) == sorted(missing)
    return actions


def test_a_drawn_scene_gives_a_finite_chunk(bundle: Path, tmp_path: Path) -> None:
    _example("draw_scene.py", "--out", str(tmp_path / "scene"), "--seed", "3")
    _check(_run(bundle, tmp_path / "scene", tmp_path / "actions.json"), [])


@pytest.mark.skipif(not EPISODE.is_dir(), reason="no droid_lerobot_example; name its parent with MOTEDGE_REAL_DATA")
def test_real_frames_with_their_own_state_give_finite_chunks(bundle: Path, tmp_path: Path) -> None:
    """Three frames of the recorded episode; two of three cameras are not there, are black and recorded as missing."""
    chunks = []
    for frame in (0, 250, 700):
        folder = tmp_path / str(frame)
        _example(
            "lerobot_frame.py", str(EPISODE), "--frame", str(frame), "--instruction", "tidy up", "--out", str(folder)
        )
        chunks.append(_check(_run(bundle, folder, tmp_path / f"{frame}.json"), ["left", "wrist"]))
    assert not np.allclose(chunks[0], chunks[1]) and not np.allclose(chunks[1], chunks[2])


def _observation(instruction: str = "open the drawer") -> Observation:
    image = np.random.RandomState(0).randint(0, 256, (540, 640, 3), dtype=np.uint8)
    return Observation((0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.0), 0.2, instruction, image=image)


def test_what_does_not_change_is_not_computed_again(bundle: Path) -> None:
    with motedge.load_policy(bundle, deterministic_seed=True) as policy:
        first, second = policy.act(_observation()), policy.act(_observation())
        other = policy.act(_observation("close the drawer"))
    assert (first.forwards, second.forwards) == (5, 5)
    np.testing.assert_array_equal(first.actions, second.actions)
    assert not np.allclose(first.actions, other.actions)  # the instruction reaches the actions through K and V


def test_an_instruction_beyond_the_profile(bundle: Path) -> None:
    with motedge.load_policy(bundle) as policy, pytest.raises(ObservationError, match="instruction"):
        policy.act(_observation("move " * 2000))


def test_a_changed_weight_file_is_found_before_it_is_used(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    file = copy / "graphs/weights/gen_step.fp32.data"
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"gen_step\.fp32\.data differs"):
        motedge.load_policy(copy)
