"""`motedge profile` on a tiny bundle, as a user runs it: table and files, an end before the end, what is refused."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import processes
import pytest
from quant_scene import export_policy, observation

from motedge.cli.main import main
from motedge.profile.report import load_profile
from motedge.runtime.policy.observation_folder import write_observation

pytest.importorskip("PIL")
QUICK = ("--threads", "1", "--warmup", "1", "--new-prompts", "2")


@pytest.fixture(scope="module")
def bundle(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_policy(checkpoints["edge"], tmp_path_factory.mktemp("profile") / "bundle", "primitive-fp32").root


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_observation(tmp_path_factory.mktemp("profile") / "scene", observation()).parent


def test_a_whole_profile(bundle: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["profile", str(bundle), "--observation", str(scene), "--out", str(tmp_path), "--ticks", "12"]
    assert main([*command, *QUICK, "--deadline-ms", "0.001"]) == 0
    printed = capsys.readouterr().out
    for part in ("warm: 12 ticks", "step 0 uncond", "step 3 solver", "deadline", "12 of 12 missed", "gen_step:"):
        assert part in printed
    document = load_profile(tmp_path)
    assert document["complete"] and document["notes"] is not None
    chunk, stages = document["chunk"], document["stages"]
    assert chunk["forwards"] == 5 and chunk["steps"] == 4
    assert sum(" cond" in name or " uncond" in name for name in stages) == 5
    # The instruction is new: K and V are made; it is not: they are kept
    assert stages["prefill"]["first"]["p50"] > 5 * stages["prefill"]["warm"]["p50"]
    assert stages["prefill"]["new prompt"]["p50"] > 5 * stages["prefill"]["warm"]["p50"]
    inner = [phases["warm"]["mean"] for name, phases in stages.items() if name not in ("denoise", "host", "tick")]
    assert sum(inner) == pytest.approx(stages["tick"]["warm"]["mean"], rel=1e-3)
    assert document["engine"]["variants"]["gen_step"] == "primitive-fp32"
    assert document["graphs"]["gen_step"]["count"] == 60
    # Work of a run comes from the graph; the rates of this processor are in no catalogue
    if document["device"]["target"] == "cpu":
        assert document["roofline"]["graphs"]["gen_step"]["gflop"] > 0 and "not known" in document["roofline"]["why"]
    assert len(json.loads((tmp_path / "times.json").read_text())) == 12
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "tick" for event in events) == 1 + 1 + 12 + 2 + len(_energy_ticks(document))


def _energy_ticks(document: dict[str, list[str]]) -> list[str]:
    return [phase for phase in document["samples"]["phase"] if phase == "energy"]  # type: ignore[call-overload]


def test_json_without_sensors(bundle: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["profile", str(bundle), "--observation", str(scene), "--json", "--no-sensors", "--ticks", "2"]
    assert main([*command, *QUICK, "--steps", "1", "--guidance", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sensors"]["present"] == {} and document["energy"] is None
    assert document["chunk"]["forwards"] == 1 and document["engine"]["sampler"] == {"steps": 1, "guidance": 1.0}
    assert document["throttling"] == {"known": False, "seen": {}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_written_and_marked(bundle: Path, scene: Path, tmp_path: Path, number: int) -> None:
    script = f"import sys; from motedge.cli.main import main; sys.exit(main({_endless(bundle, scene, tmp_path)!r}))"
    process = processes.start([sys.executable, "-c", script], stdout=-1, stderr=-1)
    assert process.stderr is not None
    while "phase warm" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "INCOMPLETE   interrupted; phase" in out
    document = load_profile(tmp_path / "out")
    assert not document["complete"] and document["stopped"].startswith("interrupted; phase warm")
    assert "warm" in document["samples"]["phase"] or document["summary"]["tick"] is None
    assert not list((tmp_path / "out").glob("*.partial"))


def _endless(bundle: Path, scene: Path, folder: Path) -> list[str]:
    command = ["profile", "-v", str(bundle), "--observation", str(scene), "--out", str(folder / "out")]
    return [*command, *QUICK, "--ticks", "100000", "--max-s", "600"]


def test_two_in_turn(bundle: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bundle at one step and with the engine's own threads: the comparison says which ticks ran in turn."""
    command = ["profile", str(bundle), "--observation", str(scene), "--interleave", str(bundle), "--ticks", "8"]
    assert main([*command, *QUICK, "--no-sensors", "--steps", "1", "--out", str(tmp_path)]) == 0
    assert "ticks in turn" in capsys.readouterr().out
    documents = [load_profile(tmp_path / side) for side in "ab"]
    assert documents[0]["interleaved"]["session"] == documents[1]["interleaved"]["session"]
    assert [document["samples"]["phase"].count("warm") for document in documents] == [8, 8]
    assert (tmp_path / "comparison.html").is_file()
    assert main(["profile", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert main([*command, "--rate-hz", "5"]) == 2
    assert main([*command, "--other-recipe", "fp8"]) == 2


def test_what_is_refused(bundle: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["profile", str(bundle), "--observation", str(scene)]
    (tmp_path / "profile.json").write_text("{}")
    for arguments, said in (
        (["--ticks", "0"], "--ticks is wrong"),
        (["--engine", "onnxruntim"], "did you mean 'onnxruntime'"),
        (["--variant", "fused-fp16"], "primitive-fp32"),
        (["--out", str(tmp_path)], "--overwrite"),
    ):
        assert main([*command, *arguments]) == 2
        assert said in capsys.readouterr().err
    assert main(["profile", str(tmp_path / "none"), "--observation", str(scene)]) == 2
    assert (tmp_path / "profile.json").read_text() == "{}"
