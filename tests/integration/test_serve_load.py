"""The benchmark that strains the server, in small: each phase passes, and what must not be is seen."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from serve_scene import MadeResident, served

from motedge.errors import GateError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("conditions", "made_server", "serve_overhead", "serve_strain", "serve_fuzz", "serve_phases", "serve_load")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, as if their folder were the working one."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_fuzzed_messages_are_answered_or_refused(modules: dict[str, ModuleType], count: int) -> None:
    with served(rate_hz=1e9, burst=1000, message_bytes=100_000) as running:
        told = modules["serve_fuzz"].fuzz(running.url, count)
        assert sum(told.values()) >= count and set(told) <= {
            "answered",
            "observation",
            "unreadable",
            "deadline",
            "closed",
        }
        assert told["answered"] > count / 50 and told["unreadable"] > count / 5 and told["observation"] > count / 5
        assert running.get("/healthz") == (200, "OK\n")
        assert 'outcome="failed"} 0.0' in running.get("/metrics")[1]


def test_a_server_that_fails_at_a_message_is_found(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("motedge.serve.policy_socket.request_from_message", fail)
    with served(rate_hz=1e9, burst=1000) as running, pytest.raises(GateError, match="answered otherwise"):
        modules["serve_fuzz"].fuzz(running.url, 20)


@pytest.mark.slow
def test_the_phases_that_need_no_bundle(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--clients", "4", "--nuisances", "1", "--seconds", "2", "--messages", "100"]
    monkeypatch.setattr(
        sys, "argv", ["serve_load", *words, "--only", "load", "fuzz", "--out", str(tmp_path / "o.json")]
    )
    assert modules["serve_load"].main() == 0
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["load"]["accepted"] == written["load"]["answered"] > 20 and written["load"]["exit_code"] == 0
    assert written["fuzz"]["messages"] >= 100 and str(tmp_path) not in json.dumps(written)


def test_replies_that_are_lost_at_the_end_are_seen(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    strain = modules["serve_strain"]
    load = strain.Load(0)
    load.robots = {"robot 0": strain.Asked(sent=5, answered=4), "robot 1": strain.Asked(sent=3, answered=2, refused=1)}
    (tmp_path / "ledger.json").write_text(json.dumps({"robot 0": 5, "robot 1": 3, "go": 7}))
    found = strain.owed(load, tmp_path / "ledger.json", 0.0)
    assert found["lost"] == {"robot 0": 1} and found["accepted"] == 8
    (tmp_path / "ledger.json").write_text(json.dumps({"robot 0": 4, "robot 1": 3}))
    load.robots["robot 0"].sent_s = 10.0
    found = strain.owed(load, tmp_path / "ledger.json", 12.0)
    assert found["lost"] == {} and found["not_taken"] == 1 and found["not_taken_sent_before_s"] == 2.0


def test_a_policy_that_forgets_an_answer_is_found(modules: dict[str, ModuleType]) -> None:
    """Another robot's actions, as a mixed-up reply would bring them."""

    def mixed(request: Any) -> Any:
        from serve_scene import chunk_of

        chunk = chunk_of(request)
        chunk.actions[:] += 1
        return chunk

    strain = modules["serve_strain"]
    with served(MadeResident(work=mixed)) as running:
        load = strain.Load(running.server.port)
        (thread,) = load.start(1)
        while not load.wrong:
            thread.join(0.01)
        load.ending.set()
        load.stop.set()
        thread.join(10)
    assert "asked with" in load.wrong[0]
