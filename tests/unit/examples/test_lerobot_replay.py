"""A LeRobot episode replayed against a server over the socket: errors that are known, and what is refused."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="data sets need motedge[quant]")
pytest.importorskip("pyarrow", reason="data sets need motedge[quant]")

import examples_package  # noqa: F401
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot_made import FPS, write_v3
from serve_scene import MadeResident, chunk_of, served

from examples.lerobot_replay import __main__ as program
from examples.lerobot_replay.recorded import read_episode
from motedge.errors import DataError, MissingPackageError
from motedge.quant.datasets.lerobot import LeRobotDataset
from motedge.runtime.policy.chunk import ActionChunk

ROOT = Path(__file__).resolve().parents[3]
REAL_DATA = Path(os.environ.get("MOTEDGE_REAL_DATA", str(ROOT.parent / "shared" / "data")))
EPISODE = REAL_DATA / "droid_lerobot_example"
needs_episode = pytest.mark.skipif(
    not EPISODE.is_dir(), reason="no droid_lerobot_example; name its parent with MOTEDGE_REAL_DATA"
)


def resident(offset: float | None, rate_hz: float = FPS) -> MadeResident:
    """Answers what was recorded (the first joint goes 0.01 a row) plus an offset; None: stands still."""

    def answer(request: Any) -> ActionChunk:
        made = replace(chunk_of(request), rate_hz=rate_hz)
        if offset is not None:
            actions = made.actions.copy()
            actions[:, 0] += (np.arange(len(actions)) + 1) / 100 * FPS / rate_hz + offset
            made = replace(made, actions=actions)
        return made

    serving = MadeResident(work=answer)
    serving.metadata["rate_hz"] = rate_hz
    return serving


def replay(monkeypatch: pytest.MonkeyPatch, serving: Any, dataset: Path, *options: str, out: Path) -> tuple[int, Any]:
    with served(serving) as running:
        arguments = ["lerobot_replay", str(dataset), "--server", running.url, "--out", str(out), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        code = program.main()
    return code, json.loads(out.read_text()) if out.exists() else None


def with_column(root: Path, **columns: list[Any]) -> Path:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return root


@pytest.mark.parametrize("offset", [0.0, 0.07, None])
def test_errors_that_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: float | None) -> None:
    """12 rows, chunks of 4: at rows 0, 4 and 8, whose last row would be due after the end."""
    root = write_v3(tmp_path / "set")
    code, report = replay(monkeypatch, resident(offset), root, out=tmp_path / "r.json")
    assert code == 0 and report["ended"] == "at the end" and report["reference"] == "measured"
    assert [chunk["frame"] for chunk in report["chunks"]] == [0, 4, 8] and report["rows_compared"] == 11
    still = np.mean([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]) / 700
    expected = still if offset is None else offset / 7
    assert report["error"]["joints_mean_rad"] == pytest.approx(expected, abs=1e-6)
    assert report["error_of_standing_still"]["joints_mean_rad"] == pytest.approx(still, abs=1e-6)
    assert report["error_over_standing_still"] == pytest.approx(expected / still, abs=1e-4)
    assert report["by_field"]["joint_1"] == pytest.approx(0, abs=1e-6)
    assert len(report["by_row"]) == 4 and report["by_row"][0]["after_s"] == 0.1
    assert report["round_trip_ms"]["count"] == 3 and report["error"]["gripper_agrees"] == 1
    assert any("no action columns" in note for note in report["dataset"]["notes"])


def test_another_rate_is_compared_at_equal_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, report = replay(monkeypatch, resident(0.0, 15.0), write_v3(tmp_path / "set"), out=tmp_path / "r.json")
    assert code == 0 and report["error"]["joints_mean_rad"] == pytest.approx(0, abs=1e-6)
    assert any("recorded at 10 Hz, compared at 15 Hz" in note for note in report["dataset"]["notes"])


def test_commands_are_reached_one_row_later(tmp_path: Path) -> None:
    rows = [[(index + 1) / 100, -0.5, 0, -2, 0, 2, 0.5, 1.0] for index in range(12)]
    root = with_column(write_v3(tmp_path / "set", lengths=(12,)), action=rows)
    dataset = LeRobotDataset(root)
    episode = read_episode(dataset, "0")
    assert episode.reference == "commanded" and episode.rate_hz == pytest.approx(FPS)
    ahead = episode.actions_at([0.1, 0.15, 1.2, 1.3])
    assert ahead[:3, 0] == pytest.approx([0.01, 0.015, 0.12]) and np.isnan(ahead[3]).all()
    measured = read_episode(dataset, "0", "measured")
    assert measured.reference == "measured" and measured.actions_at([0.1])[0, 0] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([0.5] * 8, "no joint positions"),
        ([0.5] * 7, "7 numbers a row"),
        ([float("nan")] * 8, "NaN"),
    ],
)
def test_columns_that_hold_no_commands(tmp_path: Path, row: list[float], why: str) -> None:
    dataset = LeRobotDataset(with_column(write_v3(tmp_path / "set", lengths=(12,)), action=[row] * 12))
    episode = read_episode(dataset, "0")
    assert episode.reference == "measured" and why in episode.notes[-1]
    with pytest.raises(DataError, match="no commands to compare with") as raised:
        read_episode(dataset, "0", "commanded")
    assert why in str(raised.value)


def test_picture_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    chunk = pytest.importorskip("rerun.chunk", reason="logging needs motedge[rerun]")
    root, plot, log = write_v3(tmp_path / "set"), tmp_path / "p.png", tmp_path / "l.rrd"
    options = ("--plot", str(plot), "--rerun", str(log), "--every", "6")
    code, report = replay(monkeypatch, resident(0.0), root, *options, out=tmp_path / "r.json")
    assert code == 0 and [entry["frame"] for entry in report["chunks"]] == [0, 6]
    assert plot.stat().st_size > 10_000 and sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == [
        "l.rrd",
        "p.png",
        "r.json",
    ]
    rows: dict[str, int] = {}
    for part in chunk.RrdReader(str(log)).stream():
        rows[part.entity_path] = rows.get(part.entity_path, 0) + part.num_rows
    assert rows["/cameras/wrist"] == 2 and rows["/timing/round_trip_ms"] == 2
    assert rows["/predicted/joint_0"] == rows["/recorded/joint_0"] == 8


def test_a_server_that_fails_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = resident(0.0)
    well = serving.work

    def fails_at_the_second(request: Any) -> Any:
        if len(serving.requests) > 1:
            raise RuntimeError("boom")
        return well(request)

    serving.work = fails_at_the_second
    code, report = replay(monkeypatch, serving, write_v3(tmp_path / "set"), out=tmp_path / "r.json")
    assert code != 0 and report["asked"] == 1 and report["ended"].startswith("RemoteError")


def test_what_is_left_of_an_earlier_chunk_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server with a deadline that the second tick does not meet: its rows count from an earlier frame."""
    serving = resident(0.0)
    well = serving.work

    def late_at_the_second(request: Any) -> Any:
        made = well(request)
        if len(serving.requests) < 2:
            return made
        return replace(made, actions=made.actions[2:], kind="held", first_row=2)

    serving.work = late_at_the_second
    code, report = replay(monkeypatch, serving, write_v3(tmp_path / "set"), out=tmp_path / "r.json")
    assert code == DataError.exit_code and report["asked"] == 1 and report["error"]["joints_mean_rad"] < 1e-6
    assert report["ended"] == "DataError: the server answered with a held chunk"
    assert "serve without --deadline-ms to replay" in capsys.readouterr().err


def test_a_picture_that_nothing_can_draw_is_refused_before_the_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    serving, options = resident(0.0), ("--plot", str(tmp_path / "p.png"))
    code, report = replay(monkeypatch, serving, write_v3(tmp_path / "set"), *options, out=tmp_path / "r.json")
    assert code == MissingPackageError.exit_code and report is None and not serving.requests
    assert "motedge[plot]" in capsys.readouterr().err


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_v3(tmp_path / "set"), tmp_path / "r.json"
    other = MadeResident()
    other.metadata["embodiment"] = "av"
    for serving, options, message in (
        (other, (), "serves something else"),
        (MadeResident(), ("--episode", "7"), "has no episode '7'"),
        (MadeResident(), ("--limit", "0"), "nothing would be asked"),
        (MadeResident(), ("--plot", str(root / "meta/info.json/p.png")), "p.png"),
    ):
        code, report = replay(monkeypatch, serving, root, *options, out=out)
        assert code != 0 and report is None and message in capsys.readouterr().err


def test_time_that_stands_still(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", lengths=(12,))
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    times = [0.0, 0.1, 0.1, *[index / FPS for index in range(3, 12)]]
    table = table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(times))
    pq.write_table(table, path)
    with pytest.raises(DataError, match="time does not go on after row 1"):
        read_episode(LeRobotDataset(root), "0")


@needs_episode
def test_the_real_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three cameras, spread states, no usable commands: measured angles are what it is held against."""
    options = ("--instruction", "Pick it up", "--limit", "3", "--every", "100")
    code, report = replay(monkeypatch, MadeResident(), EPISODE, *options, out=tmp_path / "r.json")
    assert code == 0 and report["asked"] == 3 and report["reference"] == "measured"
    # The made server stands still
    assert report["error_over_standing_still"] == pytest.approx(1, abs=1e-5)
    assert report["error"]["joints_mean_rad"] > 0
    assert "joint angles solved from the measured poses" in report["dataset"]["notes"]
