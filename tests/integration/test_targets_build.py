"""`motedge build` with the real TensorRT-RTX and onnxruntime: every graph, every kind of engine that needs no GPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from quant_scene import QuantScene
from tensorrt_rtx_build import CAPABILITIES, build_engine

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle
from motedge.cli.main import main
from motedge.errors import BundleError, HostError
from motedge.runtime.backends.onnxruntime import OnnxRuntimeEngine
from motedge.runtime.engine import EngineOptions
from motedge.runtime.engine_files import EngineFiles, LoadHost, check_engine
from motedge.targets.builders import mapped_weights
from motedge.targets.builders.trt import build

GRAPHS = ("und_prefill", "gen_step", "vae_encoder")
ALL = (*GRAPHS, *WEIGHTLESS_GRAPHS)
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")


@pytest.fixture
def edge(quant_scenes: Mapping[str, QuantScene], tmp_path: Path) -> Path:
    """A copy of the tiny bundle: a build writes into it."""
    return Path(shutil.copytree(quant_scenes["edge"].bundle.root, tmp_path / "edge"))


@pytest.mark.capability(mode="policy", family="{family}", backend="tensorrt-rtx", proof="built")
@needs_rtx
@pytest.mark.parametrize("variant", ["fused-fp16", "fused-bf16"])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("family", ["edge", "nano", pytest.param("super", marks=pytest.mark.slow)])
def test_every_graph_for_every_capability(
    quant_scenes: Mapping[str, QuantScene], family: str, graph: str, variant: str
) -> None:
    bundle = quant_scenes[family].bundle
    model, dtype = bundle.path(bundle.variant(graph, variant).file), variant.partition("-")[2]
    weights = sum(bundle.manifest.files[name].bytes for name in bundle.variant(graph, variant).weights)
    size, built = build_engine(model, bundle.contract(graph), *CAPABILITIES, dtype=dtype)
    assert weights < size
    # What is not in 16 bits is there on purpose, and is named: the timestep's two projections
    raised = {entry["layer"] for entry in built.raised_precision}
    assert raised == (
        {"time_embedder.linear_1/MatMul", "time_embedder.linear_2/MatMul"} if graph == "gen_step" else set()
    )
    # The towers' attention must have its kernel; the VAE's one has none in any library
    assert len(built.notes) == (1 if graph == "vae_encoder" else 0)


@needs_rtx
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_one_capability_alone(quant_scenes: Mapping[str, QuantScene], capability: str) -> None:
    bundle = quant_scenes["edge"].bundle
    model = bundle.path(bundle.variant("gen_step", "fused-bf16").file)
    assert build_engine(model, bundle.contract("gen_step"), capability, dtype="bf16")[0] > 0


@needs_rtx
def test_command(edge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(edge), "--target", "rtx-5090", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("to build") == len(ALL)
    assert not (edge / "engines").exists()
    assert main(["build", str(edge), "--target", "rtx-5090", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [e["graph"] for e in report["engines"]] == sorted(ALL)
    assert len(report["built"]) == len(ALL)
    assert all(name.count(".sm120.tensorrt-rtx-1.") == 1 for name in report["built"])
    for entry in report["engines"]:
        assert entry["compute_capabilities"] == ["12.0"]
        assert 50e6 < entry["peak_anonymous_bytes"] < entry["peak_memory_bytes"] < 1.5e9
    assert main(["build", str(edge), "--target", "rtx-5090"]) == 0
    assert capsys.readouterr().out.endswith("up to date\n")
    assert main(["build", str(edge), "--target", "rtx-5090", "--graphs", "gen_step", "--optimization-level", "0"]) == 0
    out = capsys.readouterr().out
    assert "time_embedder.linear_1/MatMul: fp32 x fp32, asked bf16 x bf16 (the graph says so)" in out

    files = EngineFiles.open(Bundle.open(edge), "rtx-5090")
    engine = files.find("gen_step")
    host = LoadHost("tensorrt-rtx", engine.builder_version, "12.0", 10**9)
    path = check_engine(files, engine, host)
    for wrong in ({"compute_capability": "8.9"}, {"version": "1.8.0.1"}, {"free_memory_bytes": 10**6}):
        with pytest.raises(HostError):
            check_engine(files, engine, dataclasses.replace(host, **wrong))
    with open(path, "r+b") as stream:
        stream.seek(1000)
        stream.write(b"corrupt")
    with pytest.raises(BundleError, match="sha256"):
        check_engine(files, engine, host)


@needs_rtx
@pytest.mark.slow
def test_killed_build_resumes_at_the_graph(edge: Path) -> None:
    folder = edge / "engines/rtx-4090"
    command = [sys.executable, "-m", "motedge", "build", str(edge), "--target", "rtx-4090"]
    running = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "build.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    # The job alone: its child must notice by itself
    running.send_signal(signal.SIGKILL)
    running.wait()
    first = EngineFiles.read(folder).engines
    assert 1 <= len(first) < len(ALL)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["skipped"] == [engine.file for engine in first]
    assert len(report["built"]) == len(ALL) - len(first)
    names = {engine["file"] for engine in report["engines"]}
    assert {path.name for path in folder.iterdir()} == {*names, "build.json"}


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_targets_that_need_what_is_not_here(edge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(edge), "--target", "jetson-orin-nano-8gb"]) == 3
    assert "tensorrt is not installed" in capsys.readouterr().err
    assert main(["build", str(edge), "--target", "h100", "--builder", "tensorrt-rtx"]) == 3
    assert main(["build", str(edge), "--target", "rtx-4080"]) == 2
    assert "did you mean 'rtx-4090'" in capsys.readouterr().err
    assert not (edge / "engines").exists()


@needs_rtx
def test_weights_are_whole_though_their_pages_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four random matrices of 2 MB in external data, unmapped as often as can be while the engine is built."""
    model, weights = _write_chain(tmp_path)
    monkeypatch.setattr(mapped_weights, "_PERIOD_S", 0.0002)
    seen: dict[str, Any] = {}
    write, release = build.write_plan, mapped_weights.release

    def keep(*args: Any) -> bool:
        done = write(*args)
        seen["plan"] = args[-1].read_bytes()
        return done

    def count(ranges: Any) -> None:
        seen["released"] = seen.get("released", 0) + 1
        release(ranges)

    monkeypatch.setattr(build, "write_plan", keep)
    monkeypatch.setattr(mapped_weights, "release", count)
    build_engine(model, None, "8.9")
    assert seen["released"] > 50
    assert all(weight in seen["plan"] for weight in weights)


def test_cpu_engine_gives_what_the_graph_gives(edge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(edge), "--target", "cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    fused = {entry["graph"]: entry["layers"]["fused_attention"] for entry in report["engines"]}
    # Tiny Edge has three layers; the prompt's attention is masked, the VAE's has one head
    assert fused == {"gen_step": 3, "und_prefill": 0, "vae_encoder": 0, "solver_step": 0}
    bundle = Bundle.open(edge)
    files = EngineFiles.open(bundle, "cpu")
    for graph in ALL:
        engine = files.find(graph)
        path = check_engine(files, engine, LoadHost("onnxruntime", engine.builder_version, None, 10**9))
        plain = bundle.path(bundle.variant(graph, engine.variant).file)
        ours, theirs = (_run(file, bundle, graph) for file in (path, plain))
        for name, expected in theirs.items():
            np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def _run(model: Path, bundle: Bundle, graph: str) -> dict[str, np.ndarray]:
    contract = bundle.contract(graph)
    sizes = contract.optimum()
    context = OnnxRuntimeEngine(model, contract, "fp32", EngineOptions(threads=1)).context(
        {letter: sizes[letter] for letter in contract.profile}
    )
    random = np.random.RandomState(3)
    values = {}
    for spec in contract.inputs:
        values[spec.name] = random.uniform(-1, 1, spec.shape(sizes)).astype(np.float32)
        context.set_input(spec.name, values[spec.name])
    context.run()
    return {spec.name: context.output(spec.name).copy() for spec in contract.outputs}


def _write_chain(folder: Path) -> tuple[Path, list[bytes]]:
    side, nodes, tensors, weights, last = 1024, [], [], [], "x"
    random = np.random.RandomState(0)
    for index in range(4):
        weights.append(random.standard_normal((side, side)).astype(np.float16).tobytes())
        tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT16, dims=[side, side])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.data"), ("offset", index * 2 * side**2), ("length", 2 * side**2)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"y{index}"], f"n{index}/MatMul"))
        last = f"y{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [64, side]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    (folder / "w.data").write_bytes(b"".join(weights))
    path = folder / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path, weights
