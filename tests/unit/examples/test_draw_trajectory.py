"""The example that draws a vehicle's way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
Image = pytest.importorskip("PIL.Image")
STRAIGHT = [[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]]


def draw(folder: Path, actions: object, *options: str) -> subprocess.CompletedProcess[str]:
    Image.new("RGB", (416, 240), (90, 90, 90)).save(folder / "frame.png")
    (folder / "actions.json").write_text(json.dumps(actions))
    files = ["--image", folder / "frame.png", "--actions", folder / "actions.json", "--out", folder / "way.png"]
    command = [sys.executable, str(ROOT / "examples" / "draw_trajectory.py"), *map(str, files), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("lens", ["pinhole", "equidistant"])
def test_a_straight_way_goes_up_the_middle(tmp_path: Path, lens: str) -> None:
    done = draw(tmp_path, STRAIGHT * 60, "--lens", lens)
    assert done.returncode == 0, done.stderr
    assert "60.0 m in 6 s, camera 0.0 degrees down" in done.stdout and not done.stderr
    green = np.asarray(Image.open(tmp_path / "way.png"), np.int64)[..., 1] - 90
    rows, columns = np.nonzero(green > 20)
    assert 120 <= rows.min() < 130 and rows.max() == 239
    assert abs(columns.mean() - 207.5) < 1
    assert np.ptp(columns[rows == 239]) > 3 * np.ptp(columns[rows == 140])


def test_a_way_backwards_is_not_in_the_picture(tmp_path: Path) -> None:
    done = draw(tmp_path, [[0, 0, -1.0, 1, 0, 0, 0, 1, 0]] * 3)
    assert done.returncode == 0 and "nothing of it is in the picture" in done.stderr


@pytest.mark.parametrize(
    ("actions", "message"),
    [([[1.0, 2.0]], "wrong width"), ([[0.0] * 9], "no rotation"), ("none", "can't read the picture or the actions")],
)
def test_actions_that_are_none(tmp_path: Path, actions, message: str) -> None:
    done = draw(tmp_path, actions)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_a_rate_of_nothing(tmp_path: Path) -> None:
    done = draw(tmp_path, STRAIGHT * 4, "--rate", "0")
    assert done.returncode == 2 and "--rate" in done.stderr and "Traceback" not in done.stderr
