"""A vehicle's chunk as a picture: drawn in every format, small ways not blown up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motedge.cli.pose_plot import plot_poses
from motedge.errors import ContractError, UsageError
from motedge.runtime.actions.layout import layout_from_blocks
from motedge.runtime.policy import ActionChunk, Observation

pytest.importorskip("matplotlib")
POSE = layout_from_blocks(["pose9"])
STILL = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def chunk(rows: np.ndarray) -> ActionChunk:
    details = {"steps": 4}
    return ActionChunk(rows, 10.0, POSE.fields, POSE.units, "av", 3, 4, (), {"total_ms": 12.0}, details)


SEEN = Observation.of_camera(np.zeros((96, 96, 3), np.uint8), "Keep to the left side of the road.")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    rows = np.tile(np.array([0.05, 0.0, 1.1, *STILL[3:]], np.float32), (16, 1))
    target = tmp_path / f"way{suffix}"
    plot_poses(chunk(rows), np.zeros((96, 96, 3), np.uint8), SEEN, target)
    assert target.stat().st_size > 5000


def test_a_car_that_stands_is_not_blown_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (shown.append(self), Path(path).write_bytes(b"x")))
    plot_poses(
        chunk(np.tile(np.array(STILL, np.float32), (16, 1))), np.zeros((96, 96, 3), np.uint8), SEEN, tmp_path / "a.png"
    )
    _, way, speed = shown[0].axes
    assert np.ptp(way.get_ylim()) >= 8 and np.ptp(way.get_xlim()) >= 8
    assert speed.get_ylim() == (0.0, 1.0)


def test_what_can_not_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="file type"):
        plot_poses(chunk(np.zeros((2, 9), np.float32)), np.zeros((96, 96, 3), np.uint8), SEEN, tmp_path / "a.gif")
    with pytest.raises(ContractError):
        plot_poses(chunk(np.zeros((2, 9), np.float32)), np.zeros((96, 96, 3), np.uint8), SEEN, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
