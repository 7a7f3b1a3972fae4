"""The program that checks a reasoner on a GPU, on a simulated one: all checks pass, and they notice what is wrong."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reason_reference import make_bundle
from shared_gpu import SharedGpu, add_engines, weights_bytes

from motedge.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]
VARIANT = "primitive-fp32"
GRAPHS = ("und_prefill", "gen_step", "vae_encoder", "solver_step", "und", "vision_encoder")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("reason-program") / "bundle"
    make_bundle(root, VARIANT)
    add_engines(root, GRAPHS)
    return root


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = ("reason_reference", "reason_checks", "reason_on_gpu")
    reference, checks, main = (importlib.import_module(name) for name in names)
    for name, value in {"LONG_TOKENS": 40, "REPLY_TOKENS": 60, "LEAST_TICKS": 8}.items():
        monkeypatch.setattr(checks, name, value)
    SharedGpu(monkeypatch, openers=("reason_on_gpu", "policy_on_gpu"))
    return SimpleNamespace(reference=reference, checks=checks, main=main)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return {}


def make_bench(program: Any, bundle: Path, reference: dict[str, Any], engine: str) -> Any:
    if not reference:
        reference.update(program.reference.make_reference(bundle))
    args = SimpleNamespace(bundle=bundle, engine=engine, optimization_level=None)
    return program.main.Bench(args, VARIANT, reference)


def failed(bench: Any) -> list[str]:
    return [entry["check"] for entry in bench.found if not entry["passed"]]


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-cuda"])
def test_all_checks_pass_on_a_simulated_gpu(
    program: Any, bundle: Path, reference: dict[str, Any], engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = make_bench(program, bundle, reference, engine)
    for check in program.checks.CHECKS:
        bench.run(check)
    # onnxruntime's weights are the host's here, and show nothing
    unseen = {"the tower's weights stand once"} if engine == "onnxruntime-cuda" else set()
    assert set(failed(bench)) == unseen, capsys.readouterr().out
    assert len(bench.found) > 20
    if engine == "tensorrt":
        found = next(entry for entry in bench.found if entry["check"] == "the tower's weights stand once")
        taken, weights = found["policy_takes_bytes"], found["weights_of_und_prefill"]
        # By the driver's account, but for the inputs that und_prefill has besides
        tower = weights_bytes(str(bundle / Bundle.open(bundle).variant("und_prefill", VARIANT).file))
        assert taken["apart"] - taken["shared"] >= tower > 1_000_000 and weights > 0


def test_answers_are_made_when_asked_for(program: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "answers.npz", **{"text: tokens": np.arange(3)})
    assert program.main.Answers(tmp_path / "answers.npz", tmp_path)["text: tokens"].tolist() == [0, 1, 2]
    # Nothing is read before
    program.main.Answers(tmp_path / "not there.npz", tmp_path)


def test_other_words_and_actions_are_noticed(program: Any, bundle: Path, reference: dict[str, Any]) -> None:
    make_bench(program, bundle, reference, "tensorrt")
    wrong = dict(reference)
    wrong["text: tokens"] = reference["text: tokens"][::-1].copy()
    wrong["image: logits"] = reference["image: logits"] + np.float32(1)
    wrong["plan 0: actions"] = reference["plan 1: actions"]
    bench = make_bench(program, bundle, wrong, "tensorrt")
    bench.run(program.checks.check_words)
    bench.run(program.checks.check_plans)
    noticed = set(failed(bench))
    assert {"the CPU's words: text", "the CPU's logits: image", "plans, sliced: the CPU's actions"} <= noticed
