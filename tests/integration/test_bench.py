"""`motedge bench` on a tiny bundle and its INT8 and INT4 recipes, as a user runs it; killed and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from quant_scene import export_policy, observation

from motedge.bench.acting import ActingOptions
from motedge.bench.journal import read_journal
from motedge.bench.report import load_bench
from motedge.bench.worker import CellError, Worker, WorkerGoneError
from motedge.cli.main import main
from motedge.runtime.policy import Observation, load_policy
from motedge.runtime.policy.observation_folder import write_observation
from motedge.runtime.request import SamplerSettings

pytest.importorskip("PIL")
pytest.importorskip("modelopt")
# Weights alone, a scale a block: no calibration
INT4 = """schema = "motedge.recipe/v1"
id = "int4-only"
revision = 1
summary = "weights alone in INT4"
[gen_step]
default = "int4-w4a16"
[und_prefill]
default = "int4-w4a16"
"""
QUICK = ("--threads", "1", "--repeat", "6", "--rounds", "3", "--warm-up", "1", "--no-sensors")
STEPS = ("--steps", "2,1")


@pytest.fixture(scope="module")
def plain(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "plain"
    return export_policy(checkpoints["edge"], root, "primitive-fp32", "auto").root


@pytest.fixture(scope="module")
def quantized(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    (root / "int4.toml").write_text(INT4)
    for recipe in ("w8a16", str(root / "int4.toml")):
        command = ["quantize", str(plain), "--recipe", recipe, "--out", str(root / "quantized"), "--report", "weights"]
        assert main(command) == 0
    return root / "quantized"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    for number in range(3):
        write_observation(root / f"request-{number:06d}", observation(number))
    return root


def bench(plain: Path, quantized: Path, scenes: Path, out: Path, *more: str) -> list[str]:
    bundles = [str(plain), str(quantized)]
    return ["bench", *bundles, "--observations", str(scenes), "--out", str(out), *QUICK, *STEPS, *more]


@pytest.fixture(scope="module")
def whole(plain: Path, quantized: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert main(bench(plain, quantized, scenes, out)) == 0
    return out


def test_the_report(whole: Path) -> None:
    document = load_bench(whole)
    cells = {cell["id"]: cell for cell in document["cells"]}
    points = ["shipped", "2 steps, guidance 3", "1 step, guidance 3"]
    assert list(cells) == [f"{recipe} / {p}" for recipe in ("unquantized", "int4-only", "w8a16") for p in points]
    assert document["complete"] and document["observations"]["count"] == 3
    for cell in cells.values():
        assert cell["status"] == "measured" and cell["latency_ms"]["count"] == 6 and cell["prefills"] == 0
    int4, int8 = (cells[f"{recipe} / shipped"]["from_shipped"]["relative_l2"] for recipe in ("int4-only", "w8a16"))
    assert 0 < int8 < 0.3 * int4
    assert cells["unquantized / shipped"]["forwards"] == [5, 5, 5]
    assert cells["unquantized / shipped"]["from_shipped"]["relative_l2"] == 0
    for entry in document["candidates"]:
        assert 10e6 < entry["memory"]["resident_bytes"] <= entry["memory"]["peak_bytes"]
    assert (whole / "bench.html").read_text().startswith("<!doctype html>")


def test_errors_are_those_of_the_policies(plain: Path, quantized: Path, whole: Path) -> None:
    """Acted here, one after the other: the same actions, so the same error."""
    settings = {"steps": 2}
    found: dict[Any, Any] = {}
    for root, recipe in ((plain, None), (quantized, "w8a16")):
        with load_policy(root, recipe=recipe, threads=1) as policy:
            point = SamplerSettings(steps=2, guidance_interval=policy.settings.guidance_interval)
            chunks = [policy.act(observation(n), seed=n, settings=point).actions for n in range(3)]
            shipped = [policy.act(observation(n), seed=n).actions for n in range(3)]
        found[recipe] = np.stack(chunks).astype(np.float64), np.stack(shipped).astype(np.float64)
    cell = next(c for c in load_bench(whole)["cells"] if c["id"].startswith(f"w8a16 / {settings['steps']} steps"))
    for name, right in (("from_same_point", found[None][0]), ("from_shipped", found[None][1])):
        difference = found["w8a16"][0] - right
        relative = np.linalg.norm(difference) / np.linalg.norm(right)
        assert cell[name]["relative_l2"] == pytest.approx(relative, rel=1e-6)
        joints = cell[name]["groups"][0]
        assert joints["unit"] == "rad" and joints["max"] == pytest.approx(np.abs(difference[:, :, :7]).max(), rel=1e-6)
        assert joints["rms"] == pytest.approx(np.sqrt((difference[:, :, :7] ** 2).mean()), rel=1e-6)


def test_again_it_only_reports(
    plain: Path, quantized: Path, scenes: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / "journal.jsonl").read_bytes(), load_bench(whole)
    assert main(bench(plain, quantized, scenes, whole, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == before[1] == load_bench(whole)
    assert (whole / "journal.jsonl").read_bytes() == before[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_and_gone_on_with(plain: Path, quantized: Path, scenes: Path, tmp_path: Path, number: int) -> None:
    command = bench(plain, quantized, scenes, tmp_path / "out")
    script = f"import sys; from motedge.cli.main import main; sys.exit(main({command!r}))"
    process = processes.start([sys.executable, "-c", script], stdout=-1, stderr=-1, start_new_session=True)
    try:
        _wait_for_times(process, tmp_path / "out", 12)
        if number == signal.SIGKILL:
            process.send_signal(number)
        else:
            # As a terminal and systemd do: the candidates' processes get it too
            os.killpg(process.pid, number)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), error
    lines = read_journal(tmp_path / "out")
    kept = [line for line in lines if line["kind"] in ("answers", "times")]
    assert 12 <= sum(line["kind"] == "times" for line in kept) < 27
    document = load_bench(tmp_path / "out")
    assert not document["complete"] and "not measured whole" in document["stopped"]
    if number != signal.SIGKILL:
        assert "INCOMPLETE   stopped before its end" in out and "Traceback" not in error
        assert not any(line["kind"] == "failed" for line in lines)
    assert not list((tmp_path / "out").glob("*.partial"))
    assert main(command) == 0
    after = [line for line in read_journal(tmp_path / "out") if line["kind"] in ("answers", "times")]
    assert after[: len(kept)] == kept and len(after) == 9 + 27
    document = load_bench(tmp_path / "out")
    assert document["complete"] and len(document["sessions"]) == 2
    times = {(line["cell"], line["turn"]): line["ms"] for line in kept if line["kind"] == "times"}
    for cell in document["cells"]:
        assert len(cell["ms"]) == 6
        for turn in range(3):
            assert cell["ms"][2 * turn : 2 * turn + 2] == times.get((cell["id"], turn), cell["ms"][2 * turn :][:2])


def _wait_for_times(process: Any, out: Path, count: int) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()
        file = out / "journal.jsonl"
        if file.exists() and file.read_bytes().count(b'{"kind": "times"') >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no times were written")


@pytest.mark.slow
def test_a_full_disk_loses_nothing(plain: Path, scenes: Path, tmp_path: Path) -> None:
    """A file may not grow beyond a limit: the journal keeps its whole lines, and with more room it goes on."""
    out = tmp_path / "out"
    command = ["bench", str(plain), "--observations", str(scenes), "--out", str(out), *QUICK, *STEPS]
    script = f"import sys; from motedge.cli.main import main; sys.exit(main({command!r}))"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); {script}"
    process = processes.start([sys.executable, "-B", "-c", limited], stdout=-1, stderr=-1)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 3 and "the disk is full while writing" in error
    kept = read_journal(out)
    assert kept[-1]["kind"] in ("answers", "times", "opened") and (out / "journal.jsonl").stat().st_size <= 20_000
    assert main(command) == 0
    assert read_journal(out)[: len(kept)] == kept and load_bench(out)["complete"]


def test_the_sample_that_the_bundle_carries(
    plain: Path, quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "bench",
        str(quantized),
        str(plain),
        "--out",
        str(tmp_path),
        *QUICK,
        "--recipes",
        "w8a16",
        "--steps",
        "1",
    ]
    assert main([*command, "--one-at-a-time"]) == 0
    document = load_bench(tmp_path)
    assert [cell["candidate"] for cell in document["cells"]] == ["unquantized"] * 2 + ["w8a16"] * 2
    assert all(cell["status"] == "measured" for cell in document["cells"])
    assert "the sample of a tick that the bundle carries" in capsys.readouterr().out


def test_the_plan_stands_beside(plain: Path, quantized: Path, tmp_path: Path) -> None:
    """Of a device that the catalogue knows: more forwards, more time; a bundle of this size is host work for the most
    part."""
    command = ["bench", str(plain), str(quantized), "--out", str(tmp_path), *QUICK, "--step-cache", "steps:2,3"]
    assert main([*command, "--recipes", "w8a16", "--target", "jetson-agx-thor-t5000"]) == 0
    document = load_bench(tmp_path)
    planned = {cell["id"]: cell["predicted"] for cell in document["cells"]}
    assert [cell["forwards"] for cell in document["cells"]] == [[5], [3], [5], [3]]
    for recipe in ("unquantized", "w8a16"):
        whole, cached = (planned[f"{recipe} / {point}"] for point in ("shipped", "4 steps, guidance 3, steps:2,3"))
        assert 0 < cached["predicted_ms"] < whole["predicted_ms"]
        assert whole["low_ms"] <= whole["predicted_ms"] <= whole["high_ms"]
    assert "planned" in (tmp_path / "bench.html").read_text()


def test_a_recorders_ring(plain: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", str(plain), "--observation", str(scenes / "request-000001"), "--recorder", str(tmp_path / "ring")]
    assert main([*run, "--repeat", "2"]) == 0
    command = ["bench", str(plain), "--observations", str(tmp_path / "ring"), "--out", str(tmp_path / "out"), *QUICK]
    assert main([*command, "--steps", "1", "--step-cache", "none"]) == 0
    assert load_bench(tmp_path / "out")["observations"]["names"] == ["ring/tick 0", "ring/tick 1"]


@pytest.mark.slow
def test_a_damaged_recipe_fails_alone(
    plain: Path, quantized: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(quantized, broken)
    weights = next(path for path in (broken / "graphs").rglob("*int4-only*") if path.suffix != ".onnx")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(bench(plain, broken, scenes, tmp_path / "out")) == 1
    document = load_bench(tmp_path / "out")
    status = {cell["candidate"]: cell["status"] for cell in document["cells"]}
    assert document["complete"]
    assert status == {"unquantized": "measured", "int4-only": "failed", "w8a16": "measured"}
    assert "failed       int4-only / shipped" in capsys.readouterr().out


def test_a_process_that_is_killed_is_told(plain: Path) -> None:
    """As the system does to one that takes too much memory."""
    worker = Worker(ActingOptions(plain, None, None, "onnxruntime", 0, threads=1))
    try:
        assert len(worker.answers(SamplerSettings(steps=1), 3).actions) == 1
        os.kill(worker._process._process.pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerGoneError, match="SIGKILL") as caught:
            worker.times(SamplerSettings(), 1, 2, 0)
        assert "memory is exhausted" in str(caught.value)
    finally:
        worker.close()
    with pytest.raises(CellError, match="there is no bundle"):
        Worker(ActingOptions(plain / "none", None, None, "onnxruntime", 0))


def test_what_is_refused(
    plain: Path, quantized: Path, scenes: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for arguments, said in (
        ([str(quantized)], "no unquantized bundle to judge by"),
        ([str(plain), "--steps", "0"], "denoising steps is wrong"),
        ([str(plain), "--steps", "two"], "--steps is wrong"),
        ([str(plain), "--recipes", "w8a17"], "no bundle has recipe"),
        ([str(plain), "--engine", "onnxruntim"], "did you mean 'onnxruntime'"),
        ([str(plain), "--observations", str(tmp_path)], "there is no observation in"),
        ([str(plain), "--target", "jetson-agx-thor"], "did you mean"),
        ([str(plain), "--repeat", "0"], "the number of ticks (--repeat) is wrong"),
        ([str(plain), "--most-observations", "0", "--observations", str(scenes)], "needs an observation"),
        ([str(tmp_path / "none")], "there is no bundle"),
        ([str(plain), "--engine", "tensorrt"], "the sample of a tick does not run on tensorrt"),
    ):
        assert main(["bench", *arguments, *out]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    before = (whole / "journal.jsonl").read_bytes()
    assert main(bench(plain, quantized, scenes, whole, "--seed", "1")) == 2
    assert "differs in options" in capsys.readouterr().err
    assert main(bench(plain, quantized, scenes, whole, "--step-cache", "every:2")) == 2
    assert "differs in operating points" in capsys.readouterr().err
    assert (whole / "journal.jsonl").read_bytes() == before


def test_an_observation_of_another_robot(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No recipe can make anything of it: the bench ends, and nothing is reported as if it had been measured."""
    write_observation(tmp_path / "scene", Observation.of_camera(np.zeros((96, 96, 3), np.uint8), "keep left"))
    command = ["bench", str(plain), "--observations", str(tmp_path / "scene"), "--out", str(tmp_path / "out"), *QUICK]
    assert main(command) == 2
    printed = capsys.readouterr()
    assert "observation" in printed.err and printed.out == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["journal.jsonl", "journal.lock"]


def test_a_dry_run_writes_nothing(
    plain: Path, quantized: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(bench(plain, quantized, scenes, tmp_path / "out", "--dry-run")) == 0
    assert "9 cells" in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert main(bench(plain, quantized, scenes, tmp_path / "out", "--dry-run", "--json")) == 0
    rows = json.loads(capsys.readouterr().out)["cells"]
    assert len(rows) == 9 and all(row["error"] is None for row in rows)


def test_a_dry_run_refuses_what_the_run_would(
    plain: Path, quantized: Path, scenes: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out, dry = tmp_path / "out", ["--dry-run"]
    before = (whole / "journal.jsonl").read_bytes()
    for command, said in (
        (bench(plain, quantized, scenes, out, "--variants", "primitive-fp31"), "no bundle has variant"),
        (bench(plain, quantized, scenes, tmp_path / "file"), "can't write"),
        (bench(plain, quantized, scenes, whole, "--seed", "1"), "options seed: 0"),
        (["bench", str(plain), "--engine", "tensorrt", "--out", str(out)], "does not run on tensorrt"),
    ):
        errors = []
        for more in ([], dry):
            assert main([*command, *more]) == 2
            errors.append(capsys.readouterr().err)
        assert said in errors[0] and errors[0] == errors[1]
    assert main(bench(plain, quantized, scenes, whole, *dry)) == 0
    assert main(bench(plain, quantized, scenes, whole, "--seed", "1", "--restart", *dry)) == 0
    assert not out.exists() and (whole / "journal.jsonl").read_bytes() == before
