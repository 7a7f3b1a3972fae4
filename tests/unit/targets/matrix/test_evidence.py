"""Proofs: what is taken as one, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from motedge.errors import UsageError
from motedge.targets.catalog import load_target
from motedge.targets.matrix.evidence import read_evidence

ENTRY = """
schema = "motedge.evidence/v1"
[[evidence]]
state = "measured"
targets = ["cpu"]
recipes = ["none"]
graphs = ["gen_step"]
by = "benchmarks/results/tick.json"
figure = "rows/id=warm/median_ms"
what = "a tick"
"""
BUILT = """
schema = "motedge.evidence/v1"
[[evidence]]
state = "builds"
engine = "tensorrt-rtx"
capabilities = [12.0]
recipes = ["nvfp4"]
graphs = ["gen_step"]
by = "benchmarks/results/tick.json"
what = "tiny"
"""


def _root(tmp_path: Path, text: str) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    result = {"rows": [{"id": "cold", "median_ms": 9.0}, {"id": "warm", "median_ms": 3717.4, "bytes": 2.86e9}]}
    (tmp_path / "benchmarks" / "results" / "tick.json").write_text(json.dumps(result))
    (tmp_path / "benchmarks" / "evidence.toml").write_text(text)
    return tmp_path


def test_a_figure_is_read_from_its_result_file(tmp_path: Path) -> None:
    (proof,) = read_evidence(_root(tmp_path, ENTRY))
    assert proof.figure == "3.72 s"
    assert proof.covers(load_target("cpu"), "none", "gen_step")
    assert not proof.covers(load_target("cpu"), "fp8", "gen_step")
    assert not proof.covers(load_target("h200"), "none", "gen_step")


def test_bytes(tmp_path: Path) -> None:
    (proof,) = read_evidence(_root(tmp_path, ENTRY.replace("median_ms", "bytes")))
    assert proof.figure == "2.86 GB"


def test_a_build_speaks_for_every_device_of_its_capability(tmp_path: Path) -> None:
    (proof,) = read_evidence(_root(tmp_path, BUILT))
    covered = [proof.covers(load_target(name), "nvfp4", "gen_step") for name in ("rtx-5090", "rtx-pro-6000")]
    assert covered == [True, True]
    # GB10 is 12.1, and a Jetson takes another engine
    assert not proof.covers(load_target("dgx-spark"), "nvfp4", "gen_step")
    assert not proof.covers(load_target("jetson-agx-thor-t5000"), "nvfp4", "gen_step")


def test_no_file_no_proofs(tmp_path: Path) -> None:
    assert read_evidence(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('schema = "motedge.evidence/v1"', "", "is not a list of evidence"),
        ('targets = ["cpu"]', 'targets = ["cpus"]', "unknown target 'cpus'\n.*did you mean 'cpu'"),
        ('targets = ["cpu"]', "", "for which devices"),
        ('targets = ["cpu"]', 'targets = "cpu"', "targets is of a wrong kind"),
        ("recipes", "recipe", "unknown key 'recipe'\n.*did you mean 'recipes'"),
        ('what = "a tick"', "", "lacks what"),
        ('state = "measured"', 'state = "measurd"', "unknown state 'measurd'\n.*did you mean 'measured'"),
        ("results/tick.json", "results/tock.json", "results/tock.json does not exist"),
        ('figure = "rows/id=warm/median_ms"', "", "a measurement needs figure"),
        ("id=warm", "id=hot", "rows/id=hot/median_ms of tick.json is no figure"),
        ("rows/id=warm/median_ms", "rows/id=warm/id", "is no figure"),
        ("rows/id=warm/median_ms", "rows/id=warm", "is no figure"),
        ('targets = ["cpu"]', 'engine = "trt"\ncapabilities = [8.7]', "unknown engine 'trt'"),
    ],
)
def test_what_is_no_proof(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in ENTRY
    with pytest.raises(UsageError, match=f"(?s){says}"):
        read_evidence(_root(tmp_path, ENTRY.replace(old, new, 1)))


def test_what_is_only_built_has_no_time(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what is built has no figure"):
        read_evidence(_root(tmp_path, BUILT + 'figure = "rows/id=warm/median_ms"\n'))
