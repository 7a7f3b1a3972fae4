"""The benchmark of one policy tick, on a tiny model: its JSON, and that it refuses to time different results."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from motedge.errors import GateError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# A canvas that diffusers knows, with content that needs padding and gives an odd latent grid
SHAPES = """
canvas = [256, 320]
content = [240, 320]
frames = 33
actions = 33
fps = 15.0
max_latent_frames = 9
max_actions = 65
"""
MODULES = ("conditions", "interleave", "diffusers_policy", "policy_scene", "generator_forwards", "policy_tick")


@pytest.fixture(scope="module")
def policy_tick() -> Iterator[ModuleType]:
    """The script as a module, as if its folder were the working one."""
    threads = torch.get_num_threads()
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("policy_tick")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in MODULES:
            sys.modules.pop(name, None)
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("policy_tick")
    (folder / "shapes.toml").write_text(SHAPES, encoding="utf-8")
    return [
        *("--work", str(folder / "work"), "--shape-set", str(folder / "shapes.toml")),
        *("--size", "tiny", "--rounds", "1", "--threads", "1"),
    ]


@pytest.fixture(scope="module")
def result(policy_tick: ModuleType, arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("results")
    assert policy_tick.main([*arguments, "--results", str(folder)]) == 0
    return json.loads((folder / "policy_tick.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_rows_ratios_and_account(policy_tick: ModuleType, result: dict[str, Any]) -> None:
    assert result["schema"] == "motedge.benchmark/v1"
    assert result["benchmark"] == "policy_tick"
    assert "random" in result["note"]
    assert result["conditions"]["threads"] == 1
    rows = {row["id"]: row for row in result["rows"]}
    assert list(rows) == list(policy_tick.TICKS)
    assert {name: row["forwards"] for name, row in rows.items()} == {
        name: 8 if always else 5 for name, (_, always, _) in policy_tick.TICKS.items()
    }
    for row in (*rows.values(), *result["forwards"]):
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
    for step in result["account"]:
        assert step["factor"] == pytest.approx(step["from_ms"] / step["to_ms"], abs=1e-3)
    whole = np.prod([step["factor"] for step in result["account"]])
    assert whole == pytest.approx(result["ratios"]["warm tick"], rel=0.02)


@pytest.mark.slow
def test_both_sides_compute_the_same(result: dict[str, Any]) -> None:
    differences = {**result["parity"]["actions"], **result["parity"]["velocities"]}
    assert len(differences) == 9
    assert max(differences.values()) <= result["parity"]["limit"] == 1e-4


@pytest.mark.slow
def test_another_result_is_not_timed(
    policy_tick: ModuleType,
    result: dict[str, Any],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene_module = importlib.import_module("policy_scene")
    noise = scene_module.DiffusersPolicy._start

    def disturbed(self: Any, *given: Any) -> Any:
        start = noise(self, *given)
        start.action[1:, 0] += 2e-3
        return start

    monkeypatch.setattr(scene_module.DiffusersPolicy, "_start", disturbed)
    assert policy_tick.main([*arguments, "--results", str(tmp_path)]) == 1
    assert "does not compute what diffusers computes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_work_of_another_model_is_refused(
    policy_tick: ModuleType, result: dict[str, Any], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert policy_tick.main([*arguments, "--seed", "5"]) == 2
    assert "another checkpoint" in capsys.readouterr().err


def test_the_gate_takes_no_nan(policy_tick: ModuleType) -> None:
    same, nan = np.zeros(3), np.array([0.0, np.nan, 0.0])
    assert policy_tick.check_agreement({"a": same, "b": same}, [["a", "b"]]) == {"b against a": 0.0}
    with pytest.raises(GateError, match="b does not compute what a computes"):
        policy_tick.check_agreement({"a": same, "b": nan}, [["a", "b"]])


@pytest.mark.parametrize("wrong", [["--threads", "100000"], ["--shape-set", "nowhere"]])
def test_wrong_arguments(policy_tick: ModuleType, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert policy_tick.main(wrong) == 2
    assert capsys.readouterr().err


def test_rounds_take_turns(policy_tick: ModuleType) -> None:
    interleave = importlib.import_module("interleave")
    order: list[str] = []
    ways = {name: interleave.Way(lambda name=name: order.append(name)) for name in "abc"}
    measured = interleave.measure(ways, 3, warmup=("b",))
    assert "".join(order) == "b" + "abc" + "cba" + "abc"
    assert [len(entry.wall_ms) for entry in measured.values()] == [3, 3, 3]


def test_conditions_name_the_machine(policy_tick: ModuleType) -> None:
    conditions = importlib.import_module("conditions").collect_conditions(2)
    assert {"cpu", "cores", "memory_gb", "versions", "commit", "load_average", "threads"} <= set(conditions)
    assert conditions["versions"]["onnxruntime"]
    json.dumps(conditions, allow_nan=False)
