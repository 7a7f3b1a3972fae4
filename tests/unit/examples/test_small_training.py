"""Training of examples/train_small: interrupted and resumed, what it refuses, and the checkpoint that it made."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import examples_package  # noqa: F401
import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("gymnasium", reason="the instructions come with the road, which needs motedge[drive]")

from examples.train_small.data.dataset import SIDE, RoadData
from examples.train_small.model.checkpoint import load_module
from examples.train_small.model.preset import small_preset
from examples.train_small.model.towers import Towers
from examples.train_small.road.expert import ROWS
from examples.train_small.road.instructions import BEHAVIOURS, TASKS
from examples.train_small.train.curves import write_curves
from examples.train_small.train.drives import Drives
from examples.train_small.train.evaluate import places
from examples.train_small.train.loop import LoopSettings, TrainingLoop
from examples.train_small.train.made import made_with
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import DataError, UsageError
from motedge.runtime.actions.poses import trajectory_from_rows

COMMITTED = Path(__file__).resolve().parents[3] / "examples" / "small_road"
SETTINGS = LoopSettings(steps=40, rate=0.1, log_every=10)


def _draw(lot: np.random.Generator) -> dict[str, Tensor]:
    return {"x": torch.from_numpy(lot.standard_normal((8, 3)).astype(np.float32))}


def _loop(folder: Path, settings: LoopSettings = SETTINGS) -> tuple[TrainingLoop, nn.Module]:
    torch.manual_seed(1)
    module = nn.Linear(3, 1)
    return TrainingLoop("part", module, folder, settings), module


def _train(loop: TrainingLoop, module: nn.Module, until: int | None = None) -> None:
    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        # Noise beside the batch's, as in the real losses
        wanted = batch["x"].sum(1, keepdim=True) + 0.1 * torch.randn(8, 1)
        return {"loss": (module(batch["x"]) - wanted).square().mean()}

    loop.run(_draw, losses, until)


def _plan(turn_rad: float, forward_m: float) -> np.ndarray:
    cosine, sine = np.cos(turn_rad), np.sin(turn_rad)
    return np.tile(np.array([0.1, 0, forward_m, cosine, 0, -sine, 0, 1, 0], np.float32), (ROWS, 1))


def _data() -> RoadData:
    count = 18
    plans_all = np.stack([np.stack([_plan(0.05 * (i - 1), 0.5 + i) for i in range(4)])] * count)
    return RoadData(
        frames=np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8),
        episode=np.zeros(count, np.int32),
        plans=plans_all[:, 0],
        plans_all=plans_all,
        behaviour=np.zeros(count, np.int32),
        task_index=np.zeros(count, np.int32),
        tasks=TASKS,
        poses=np.zeros((count, 3), np.float32),
        speed=np.ones(count, np.float32),
        seeds=np.array([1], np.int64),
    )


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, module = _loop(tmp_path / "whole")
    _train(whole, module)
    first, broken = _loop(tmp_path / "broken")
    _train(first, broken, until=17)
    assert first.step == 17
    again, resumed = _loop(tmp_path / "broken")
    assert again.step == 17
    _train(again, resumed)
    assert again.done
    for key, value in whole.parameters.items():
        torch.testing.assert_close(again.parameters[key], value, rtol=0, atol=0)
        torch.testing.assert_close(again.average[key], whole.average[key], rtol=0, atol=0)
    assert again.curve == whole.curve
    assert whole.curve[-1]["loss"] < 0.5 * whole.curve[0]["loss"]


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    _train(*_loop(tmp_path), until=3)
    with pytest.raises(DataError, match="another training"):
        _loop(tmp_path, LoopSettings(steps=50, rate=0.1))


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    _train(*_loop(tmp_path), until=3)
    (tmp_path / "part.pt").write_bytes((tmp_path / "part.pt").read_bytes()[:200])
    with pytest.raises(DataError, match=r"part\.pt can't be read"):
        _loop(tmp_path)


def test_a_loss_that_is_nan_ends_the_training_and_leaves_the_last_state(tmp_path: Path) -> None:
    loop, module = _loop(tmp_path)
    _train(loop, module, until=5)
    before = (tmp_path / "part.pt").read_bytes()
    with pytest.raises(DataError, match="came apart at step 10"):
        loop.run(_draw, lambda batch: {"loss": module(batch["x"]).sum() * torch.nan})
    assert (tmp_path / "part.pt").read_bytes() == before


def test_settings_that_train_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="train nothing"):
        LoopSettings(steps=0, rate=0.1)


def test_episodes_shorter_than_a_clip_are_refused() -> None:
    data = _data()
    data.episode[:] = np.arange(len(data.episode)) // 4
    with pytest.raises(DataError, match="no episode is long enough"):
        Drives(data, torch.device("cpu"))


def test_in_a_mirror_left_is_right() -> None:
    drives = Drives(_data(), torch.device("cpu"))
    which, left = torch.tensor([0]), torch.tensor([BEHAVIOURS.index("left")])
    no, yes = torch.tensor([False]), torch.tensor([True])
    plan = drives.plan(which, yes, left)
    real = drives.plan(which, no, torch.tensor([BEHAVIOURS.index("right")]))
    torch.testing.assert_close(places(plan) * torch.tensor([-1.0, 1.0]), places(real))
    torch.testing.assert_close(drives.clip(which, yes), drives.clip(which, no).flip(-1))
    assert BEHAVIOURS[int(drives.told(which, yes))] == "right"


def test_places_are_those_of_the_runtime() -> None:
    rows = _plan(0.07, 0.9)
    poses = trajectory_from_rows(rows)
    made = places(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(made, poses[1:][:, [0, 2], 3], atol=1e-4)


def test_what_it_was_made_with_is_told(tmp_path: Path) -> None:
    loop, module = _loop(tmp_path)
    _train(loop, module, until=5)
    made = json.loads(json.dumps(made_with({"part": loop}, torch.device("cpu"))))
    assert made["parts"]["part"]["steps"] == 5 and made["parts"]["part"]["settings"]["rate"] == loop.settings.rate
    assert made["device"] and made["versions"]["torch"] == importlib.metadata.version("torch")


def test_curves_are_a_picture(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves.svg", {"vae": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]})
    text = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert text.count("<polyline") == 1
    assert "vae: loss" in text


def test_the_committed_checkpoint_is_whole_small_and_better_than_chance() -> None:
    checkpoint = Checkpoint.open(COMMITTED)
    load_module(Towers(small_preset().transformer), checkpoint, "transformer")
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) < 5_000_000
    report = json.loads((COMMITTED / "training.json").read_text(encoding="utf-8"))
    found = report["held_out"]["4 steps, bf16 weights"]
    assert all(found["mean_m"][name] < 0.1 * found["between_m"] for name in BEHAVIOURS)
    for number, row in enumerate(found["confusion"]):
        assert row[number] == max(row)
