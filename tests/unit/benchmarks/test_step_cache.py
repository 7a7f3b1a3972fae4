"""The benchmark of the step cache on a tiny model: its JSON, and that it refuses figures of a broken cache."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from motedge.bundle import Bundle

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def step_cache(monkeypatch: pytest.MonkeyPatch, tiny_policy_bundle: Path) -> Iterator[ModuleType]:
    """The script as a module, on the small bundle."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("step_cache")
    monkeypatch.setattr(module, "make_bundle", lambda *_: Bundle.open(tiny_policy_bundle))
    yield module
    for name in ("step_cache", "conditions", "interleave"):
        sys.modules.pop(name, None)


@pytest.mark.capability(mode="step_cache", family="edge", backend="onnxruntime", proof="property")
def test_figures(step_cache: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rounds", "1", "--threads", "1", "--work", str(tmp_path), "--results", str(tmp_path)]
    assert step_cache.main(arguments) == 0
    result = json.loads((tmp_path / "step_cache.json").read_text())
    assert (result["schema"], result["benchmark"]) == ("motedge.benchmark/v1", "step_cache")
    assert "random" in result["note"] and result["conditions"]["threads"] == 1
    rows = {(row["plan"], row["rule"]): row for row in result["rows"]}
    assert {plan for plan, _ in rows} == {"policy", "actions"}
    full = {"policy": 8, "actions": 30}
    for (plan, rule), row in rows.items():
        assert row["forwards"] + row["reused"] == full[plan]
        assert (row["vision_relative_l2"] == 0) == (row["reused"] == 0), rule
    assert rows["actions", "every:3"]["forwards"] == 11 and rows["policy", "uncond:1,2,3"]["forwards"] == 5
    assert "every:2" in capsys.readouterr().out


def test_a_changed_bit_is_no_figure(
    step_cache: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = step_cache.compare

    def off(*given: Any) -> dict[str, float]:
        return {name: value + 1e-9 for name, value in honest(*given).items()}

    monkeypatch.setattr(step_cache, "compare", off)
    arguments = ["--rounds", "1", "--plans", "policy", "--work", str(tmp_path), "--results", str(tmp_path)]
    assert step_cache.main(arguments) == 1
    assert "leaves nothing out" in capsys.readouterr().err
    assert not (tmp_path / "step_cache.json").exists()
