"""Closed loop of examples/train_small: tracker, drivers, drives and their scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="the road needs motedge[drive]")
pytest.importorskip("Box2D", reason="the road needs motedge[drive]")
pytest.importorskip("pygame", reason="the road needs motedge[drive]")

import examples_package  # noqa: F401

from examples.train_small.drive.drive import Conditions, Drive, drive
from examples.train_small.drive.drivers import BundleDriver, ExpertDriver, StraightAhead
from examples.train_small.drive.score import score, wilson
from examples.train_small.drive.tracker import ChunkTracker
from examples.train_small.road.instructions import BEHAVIOURS, CANONICAL
from examples.train_small.road.simulator import Simulator
from motedge.errors import ContractError, DataError, UsageError

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
AHEAD = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SEEDS = (200_100, 200_101)


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator()


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_the_expert_succeeds_through_chunks(simulator: Simulator, name: str) -> None:
    for seed in SEEDS:
        made = drive(ExpertDriver(), simulator, seed, CANONICAL[name])
        judged = score(made)
        assert judged.success and judged.done == name and judged.off_s == 0
        assert made.plan_error.max() < 0.05


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_who_does_not_look_fails(simulator: Simulator, name: str) -> None:
    for seed in SEEDS:
        assert not score(drive(StraightAhead(), simulator, seed, CANONICAL[name])).success


def test_done_is_what_was_driven_and_not_what_was_told(simulator: Simulator) -> None:
    class Deaf(ExpertDriver):
        def plan(self, picture: Any, instruction: str, simulator: Simulator, seed: int) -> Any:
            return super().plan(picture, CANONICAL["left"], simulator, seed)

    judged = score(drive(Deaf(), simulator, SEEDS[0], CANONICAL["right"]))
    assert judged.done == "left" and not judged.success and judged.obeyed < 0.1


def test_the_same_seed_is_the_same_drive(simulator: Simulator) -> None:
    how = Conditions(seconds=4, dropped=0.5, latency_s=0.1)
    first, again = (drive(ExpertDriver(), simulator, SEEDS[0], CANONICAL["left"], how) for _ in range(2))
    assert np.array_equal(first.lateral, again.lateral) and np.array_equal(first.plan_error, again.plan_error)
    assert len(first.plan_error) < 10


def test_latency_shows(simulator: Simulator) -> None:
    """A chunk that comes after its predecessor has ended finds a car that brakes."""
    prompt, late = (
        drive(ExpertDriver(), simulator, SEEDS[0], CANONICAL["left"], Conditions(seconds=8, every=16, latency_s=wait))
        for wait in (0.0, 1.5)
    )
    assert late.way[-1] < prompt.way[-1] - 5


def test_stopping_takes_way(simulator: Simulator) -> None:
    """From 6 m/s at 8 m/s2: 0.75 s and 2.25 m. gymnasium's own brakes would take 0.1 m."""
    made = drive(ExpertDriver(), simulator, SEEDS[0], CANONICAL["stop"], Conditions(seconds=4))
    assert 1.9 < made.way[-1] < 2.6
    assert made.speed[5] > 1.0 and abs(made.speed[9]) < 0.05


def test_a_start_beside_the_middle(simulator: Simulator) -> None:
    how = Conditions(seconds=1, beside_m=6.0, askew_rad=0.3)
    far = [abs(drive(ExpertDriver(), simulator, seed, CANONICAL["slow"], how).lateral[0]) for seed in SEEDS]
    near = [abs(drive(ExpertDriver(), simulator, seed, CANONICAL["slow"]).lateral[0]) for seed in SEEDS]
    assert far == pytest.approx([3 * value for value in near], rel=0.05)


def test_a_watcher_sees_each_picture(simulator: Simulator) -> None:
    seen: list[Any] = []
    watch = lambda picture, rows, at: seen.append((picture.shape, rows.shape))  # noqa: E731
    drive(StraightAhead(), simulator, SEEDS[0], CANONICAL["stop"], Conditions(seconds=1), watch)
    assert seen == [((96, 96, 3), (16, 9))] * 10


def test_the_tracker() -> None:
    origin = np.zeros(3)
    ahead = ChunkTracker([AHEAD] * 16, origin)
    assert ahead.command(origin, 0.0) == (pytest.approx(0, abs=1e-9), pytest.approx(10.0))
    # Beside the way it steers back: to the right of it to the left, which is positive
    assert ahead.command(np.array([1.0, 0.0, 0.0]), 0.1)[0] > 0 > ahead.command(np.array([-1.0, 0.0, 0.0]), 0.1)[0]
    assert ahead.command(origin, 1.6)[1] == 0.0
    # A turn to the right is negative; and a chunk that stands or goes backwards is to stand
    right = [0.05, 0.0, 1.0, np.cos(0.1), 0.0, -np.sin(0.1), 0.0, 1.0, 0.0]
    assert ChunkTracker([right] * 16, origin).command(origin, 0.0)[0] == pytest.approx(-0.1, abs=0.03)
    assert ChunkTracker([[0.0, 0.0, 0.0, *AHEAD[3:]]] * 16, origin).command(origin, 0.0) == (0.0, 0.0)
    assert ChunkTracker([[0.0, 0.0, -1.0, *AHEAD[3:]]] * 16, origin).command(origin, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("rows", [np.full((16, 9), np.nan), np.zeros((16, 8)), np.zeros((0, 9))])
def test_no_chunk_to_follow(rows: Any) -> None:
    with pytest.raises(ContractError, match="no chunk to follow"):
        ChunkTracker(rows, np.zeros(3))


@pytest.mark.parametrize(
    "change",
    [
        *({"seconds": 0.1}, {"every": 17}, {"latency_s": -0.1}, {"dropped": 1.0}, {"latency_s": float("nan")}),
        *({"beside_m": 7.0}, {"beside_m": -1.0}, {"askew_rad": float("nan")}),
    ],
)
def test_conditions_that_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="can't go so"):
        replace(Conditions(), **change)


def test_an_unknown_instruction(simulator: Simulator) -> None:
    with pytest.raises(DataError, match="unknown task"):
        drive(StraightAhead(), simulator, SEEDS[0], "Fly.")


def made_up(behaviour: str, lateral: float, speed: float, way: float = 100.0) -> Drive:
    ones, empty = np.ones(150), np.zeros(1)
    return Drive(behaviour, 0, lateral * ones, speed * ones, way * np.linspace(0, 1, 150), 100.0, empty, empty)


def test_scores_of_made_up_drives() -> None:
    assert score(made_up("left", -2, 10)).success and not score(made_up("right", -2, 10)).success
    assert not score(made_up("left", -2, 10, way=50)).success, "too little way"
    off = score(made_up("left", -7, 10))
    assert not off.success and off.done == "off the road" and off.off_s == 15
    assert score(made_up("stop", 0, 0)).done == "stop" and not score(made_up("slow", 0, 0)).success
    assert score(made_up("slow", 0.5, 5)).success and score(made_up("slow", 0, 12)).done == "other"


def test_wilson() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.slow
def test_the_committed_checkpoint_drives_as_told(simulator: Simulator, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="exporting needs motedge[export]")
    from motedge.checkpoint.reader import Checkpoint
    from motedge.export.job import ExportOptions, export_bundle
    from motedge.export.shapes import load_shape_set
    from motedge.export.variants import parse_variants

    shapes = load_shape_set(str(EXAMPLES / "train_small" / "shapes.toml"))
    options = ExportOptions(shapes, parse_variants("primitive-fp32"), "none")
    export_bundle(Checkpoint.open(EXAMPLES / "small_road"), tmp_path / "bundle", options)
    driver = BundleDriver.open(tmp_path / "bundle", guidance=1.0)
    for name in BEHAVIOURS:
        made = drive(driver, simulator, SEEDS[0], CANONICAL[name])
        judged = score(made)
        assert judged.success and judged.done == name, (name, judged)
        # Near the expert's plans, and not the expert's
        assert 0.001 < made.plan_error.mean() < 0.6
    assert driver.plans == 4 * 38 and driver.forwards == 4 * driver.plans
    driver.close()
