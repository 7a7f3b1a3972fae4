"""build.json: round trip, damage, and finding an engine in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from motedge.bundle import Bundle, Manifest
from motedge.errors import BundleError
from motedge.runtime.engine_files import BUILD_FILE, EngineFiles

Maker = Callable[..., EngineFiles]


def test_round_trip(make_files: Maker) -> None:
    layer = {"layer": "l", "kind": "matmul", "asked": "fp8 x fp8", "got": "fp16 x fp16", "where": "the graph says so"}
    files = make_files(raised_precision=(layer,), notes=("a note",), data_files={"d": {"bytes": 1, "sha256": "x"}})
    assert EngineFiles.read(files.folder) == files


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda raw: raw.update(schema="motedge.engine/v2"), "another schema"),
        (lambda raw: raw["engines"][0].pop("sha256"), "is damaged"),
        (lambda raw: raw["engines"][0].update(colour="red"), "unknown key 'colour'"),
        (lambda raw: raw["engines"][0].update(bytes="many"), "is damaged"),
        (lambda raw: raw.pop("engines"), "is damaged"),
        (lambda raw: raw.update(engines=3), "is damaged"),
    ],
)
def test_damaged_records(make_files: Maker, change: Callable[[dict], object], says: str) -> None:
    files = make_files()
    path = files.folder / BUILD_FILE
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=says):
        EngineFiles.read(files.folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_not_even_a_record(tmp_path: Path, text: str) -> None:
    (tmp_path / BUILD_FILE).write_text(text)
    with pytest.raises(BundleError, match="is damaged"):
        EngineFiles.read(tmp_path)


def test_finding_an_engine(make_files: Maker) -> None:
    files = make_files()
    engine = files.engines[0]
    other = dataclasses.replace(engine, variant="fused-fp16", file="other.engine", compute_capabilities=("8.9",))
    both = dataclasses.replace(files, engines=(engine, other))
    assert files.find("gen_step") is engine
    assert both.find("gen_step", "fused-fp16") is other
    assert both.find("gen_step", capability="8.9") is other
    with pytest.raises(BundleError, match="several engines"):
        both.find("gen_step")
    with pytest.raises(BundleError, match="no engine of graph 'gen_step' in variant 'primitive-fp16'"):
        both.find("gen_step", "primitive-fp16")
    with pytest.raises(BundleError, match="did you mean 'gen_step'"):
        both.find("gen_stop")


def test_engines_of_a_bundle(make_files: Maker, tmp_path: Path) -> None:
    files = make_files()
    root = tmp_path / "bundle"
    folder = root / "engines/jetson-orin-nano-8gb"
    folder.mkdir(parents=True)
    (folder / BUILD_FILE).write_bytes((files.folder / BUILD_FILE).read_bytes())
    bundle = Bundle(root, Manifest(model={}, shape_set={}, policy={}, graphs={}, files={}))
    assert EngineFiles.open(bundle, "jetson-orin-nano-8gb").engines == files.engines
    with pytest.raises(BundleError, match="engines for jetson-orin-nano-8gb"):
        EngineFiles.open(bundle, "cpu")
    with pytest.raises(BundleError, match="outside"):
        EngineFiles.open(bundle, "../../..")
