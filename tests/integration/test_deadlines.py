"""Deadlines on a real bundle on the CPU, real clock and thread: a generous one, and ones that nobody can keep."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from deadline_checks import check_deadlines
from quant_scene import export_policy

import motedge
from motedge.cli.main import main
from motedge.runtime.deadline import DeadlineMissedError, with_deadlines
from motedge.runtime.policy import Observation
from motedge.runtime.policy.observation_folder import write_observation

GENEROUS_MS = 300_000.0


@pytest.fixture(scope="module")
def bundle(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Edge, small pictures."""
    folder = tmp_path_factory.mktemp("deadlines") / "bundle"
    export_policy(checkpoints["edge"], folder, "primitive-fp32")
    return folder


@pytest.fixture
def observation() -> Observation:
    image = np.random.RandomState(0).randint(0, 256, (540, 640, 3), dtype=np.uint8)
    return Observation((0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.0), 0.2, "open the drawer", image=image)


def test_a_generous_deadline_changes_no_action(bundle: Path, observation: Observation) -> None:
    with motedge.load_policy(bundle) as policy:
        plain = [policy.act(observation) for _ in range(2)]
    with with_deadlines(motedge.load_policy(bundle), deadline_ms=GENEROUS_MS) as acting:
        latencies = acting.warm_up(observation, rounds=3)
        chunks = [acting.act(observation) for _ in range(2)]
        counters = acting.counters
    # Measured, and more forwards take longer
    assert latencies["shipped"]["nominal_ms"] > latencies["1-step-unguided"]["nominal_ms"] > 0
    for chunk, alone in zip(chunks, plain):
        assert chunk.kind == "fresh" and chunk.details["deadline"]["operating_point"] == "shipped"
        assert (chunk.seed, chunk.forwards) == (alone.seed, 5)
        np.testing.assert_array_equal(chunk.actions, alone.actions)
    assert (counters.ticks, counters.met, counters.missed, counters.failed) == (2, 2, 0, 0)


def test_impossible_deadlines(bundle: Path, observation: Observation) -> None:
    with with_deadlines(motedge.load_policy(bundle)) as acting:
        acting.warm_up(observation, rounds=1)
        with pytest.raises(DeadlineMissedError, match=r"within 0\.01 ms"):
            acting.act(observation, deadline_ms=0.01)
        observed_at_s = time.monotonic()
        fresh = acting.act(observation, deadline_ms=GENEROUS_MS)
        rows = len(fresh.actions)
        held = acting.act(observation, deadline_ms=0.01)
        assert fresh.kind == "fresh" and held.kind == "held"
        assert held.age_s is not None and held.age_s <= time.monotonic() - observed_at_s
        # What is left is the end of the very same chunk, or of the late one that came before it, never a repeated row
        np.testing.assert_array_equal(held.actions, fresh.actions[held.first_row :])
        assert held.first_row == int(held.age_s * held.rate_hz)
        time.sleep(rows / held.rate_hz)
        with pytest.raises(DeadlineMissedError):
            for _ in range(3):
                acting.act(observation, deadline_ms=0.01)
                time.sleep(rows / held.rate_hz)
        counters = acting.counters
    assert counters.met == 1 and counters.ticks == counters.met + counters.missed and counters.failed == 0
    assert counters.held + counters.unanswered == counters.missed and counters.late_chunks >= 1


def test_the_command(bundle: Path, observation: Observation, tmp_path: Path, capsys) -> None:
    pytest.importorskip("PIL")
    write_observation(tmp_path / "seen", observation)
    common = ["run", str(bundle), "--observation", str(tmp_path / "seen"), "--repeat", "3"]
    assert main([*common, "--deadline-ms", str(GENEROUS_MS), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["kind"] == "fresh" and printed["deadline"]["counters"]["met"] == 3
    assert main([*common, "--deadline-ms", str(GENEROUS_MS)]) == 0
    assert "3 met, 0 missed" in capsys.readouterr().out


def test_the_benchmark_under_load(tmp_path: Path) -> None:
    """Every tick of every phase is accounted for; how many are met is the machine's business."""
    script = Path(__file__).resolve().parents[2] / "benchmarks/deadline_load.py"
    options = ["--synthetic", "cpu", "--loads", "none,cpu", "--ticks", "4", "--forward-ms", "1"]
    command = [sys.executable, str(script), *options, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "deadline_load_synthetic_cpu.json").read_text())
    assert [case["load"] for case in result["cases"]] == ["none", "cpu"]
    for case in result["cases"]:
        assert case["latency_ms"]["alone"]["n"] == case["latency_ms"]["with load"]["n"] == 4
        for phase in case["phases"]:
            assert phase["ticks"] == 4 == phase["met"] + phase["missed"]
            assert phase["took_ms"]["n"] == phase["met"]
            assert phase["answer_after_deadline_ms"]["n"] == phase["missed"] == phase["held"] + phase["unanswered"]
    assert result["cases"][1]["phases"][1]["load_rounds_per_s"] > 0


def test_the_checks_for_a_gpu_pass_here(bundle: Path) -> None:
    """They are for engines on a GPU; on a CPU they show that they work."""
    found: list[tuple[str, bool, dict[str, object]]] = []
    bench = SimpleNamespace(
        load=lambda: motedge.load_policy(bundle),
        say=lambda check, passed, **facts: found.append((check, passed, facts)),
    )
    check_deadlines(bench)
    assert len(found) == 6 and all(passed for _, passed, _ in found), found
