"""Operating points of a bench: a grid, a ladder, the bundle's own; each way of sampling once."""

from __future__ import annotations

from pathlib import Path

import pytest

from motedge.bench.points import Grid, bench_points
from motedge.errors import UsageError
from motedge.runtime.deadline.ladder import Ladder
from motedge.runtime.request import SamplerSettings

SHIPPED = SamplerSettings(steps=4, guidance=3.0, guidance_interval=(960.0, 1001.0))


def test_without_anything_it_is_the_ladder_of_deadlines() -> None:
    points, left_out = bench_points(SHIPPED, Grid())
    assert points == list(Ladder.from_settings(SHIPPED)) and left_out == []
    distilled = SamplerSettings(4, 1.0, 1.0, distilled_sigmas=(1.0, 0.9, 0.7, 0.4))
    assert [point.name for point in bench_points(distilled, Grid())[0]] == ["shipped"]


def test_a_grid_has_each_with_each_and_shipped_first() -> None:
    points, left_out = bench_points(SHIPPED, Grid(steps=(1, 2, 4), guidance=(1.0, 3.0)))
    assert [point.name for point in points] == [
        "shipped",
        "1 step, unguided",
        "1 step, guidance 3",
        "2 steps, unguided",
        "2 steps, guidance 3",
        "4 steps, unguided",
    ]
    assert left_out == [] and points[0].settings == SHIPPED


def test_an_interval_without_guidance_is_no_second_point() -> None:
    points, _ = bench_points(SHIPPED, Grid(guidance=(1.0,), intervals=("always", "500:1001")))
    assert [point.name for point in points] == ["shipped", "4 steps, unguided"]
    points, _ = bench_points(SHIPPED, Grid(intervals=("always", "960:1001")))
    assert [point.name for point in points] == ["shipped", "4 steps, guidance 3 always"]


def test_a_cache_that_names_more_steps_is_left_out_and_said() -> None:
    points, left_out = bench_points(SHIPPED, Grid(steps=(2, 4), caches=("none", "steps:3", "every:2")))
    assert "4 steps, guidance 3, steps:3" in [point.name for point in points]
    # With two steps every:2 leaves none out, for the last one is always computed
    assert len(points) == 1 + 1 + 2
    assert left_out == ["2 steps, guidance 3 with steps:3: the step cache names step 3"]


def test_what_samples_alike_is_one_point() -> None:
    """Timesteps of 4 steps at shift 5 are 1000, 937, 833 and 624 or near them: only the first is within both."""
    grid = Grid(intervals=("960:1001", "970:1001", "900:1001"))
    assert [point.forwards for point in bench_points(SHIPPED, grid)[0]] == [5, 6]
    # None is within: no guidance
    points, _ = bench_points(SHIPPED, Grid(guidance=(1.0, 2.0), intervals=("1:2",)))
    assert [point.forwards for point in points] == [5, 4]
    caches = ("none", "every:1", "steps:1,2", "cond:1,2/uncond:1,2", "sea", "sea:0.1")
    assert len(bench_points(SHIPPED, Grid(caches=caches))[0]) == 4


def test_a_ladder_file(tmp_path: Path) -> None:
    file = tmp_path / "ladder.toml"
    file.write_text('schema = "motedge.ladder/v1"\n[[points]]\nname = "two"\nsteps = 2\ntrained = false\n')
    points, _ = bench_points(SHIPPED, Grid(), str(file))
    assert [(point.name, point.trained) for point in points] == [("shipped", True), ("two", False)]
    with pytest.raises(UsageError, match="contradict"):
        bench_points(SHIPPED, Grid(steps=(1,)), str(file))
    file.write_text('schema = "motedge.ladder/v1"\n[[points]]\nname = "shipped"\nsteps = 2\n')
    with pytest.raises(UsageError, match="two operating points are called 'shipped'"):
        bench_points(SHIPPED, Grid(), str(file))


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (Grid(steps=(0,)), "denoising steps is wrong"),
        (Grid(steps=(0,), caches=("every:2",)), "denoising steps is wrong"),
        (Grid(intervals=("960",)), "LO:HI"),
        (Grid(intervals=("a:b",)), "LO:HI"),
        (Grid(caches=("sometimes",)), "no known form"),
        (Grid(guidance=(float("nan"),)), "guidance"),
    ],
)
def test_what_is_refused(grid: Grid, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        bench_points(SHIPPED, grid)
