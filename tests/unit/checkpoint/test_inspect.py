"""Inspecting: exact figures for a sound checkpoint, every fault of a broken one."""

from __future__ import annotations

import json
import shutil

import pytest

from motedge.checkpoint.inspect import inspect_checkpoint
from motedge.cli.main import main
from motedge.errors import CheckpointError


def test_a_sound_checkpoint(tiny):
    report = inspect_checkpoint(tiny("edge"), values=True)
    assert report["problems"] == [] and report["absent"] == ["sound_tokenizer"]
    assert report["origin"] == {
        "source": "synthetic",
        "family": "edge",
        "variant": "policy-droid",
        "size": "tiny",
        "seed": 7,
    }
    for tower in report["towers"].values():
        assert tower["parameters"] == tower["parameters_by_config"] and tower["dtypes"] == ["BF16"]
    json.dumps(report, allow_nan=False)


def test_all_faults_are_told_at_once(broken, change_weights):
    (broken / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(broken / "text_tokenizer")
    file = broken / "transformer" / "diffusion_pytorch_model.safetensors"

    def damage(tensors):
        tensors["proj_in.bias"] = tensors["proj_in.bias"][:5].clone()
        tensors["norm.weight"][0] = float("nan")

    change_weights(file, damage)
    report = inspect_checkpoint(broken, values=True)
    text = "\n".join(problem["what"] for problem in report["problems"])
    for part in ("no weights in", "proj_in.bias", "not finite: norm.weight", "tokenizer"):
        assert part in text
    assert len(report["problems"]) == 4 and "vae" not in report["components"]


def test_another_model_is_not_inspected(tmp_path):
    with pytest.raises(CheckpointError):
        inspect_checkpoint(tmp_path)


def run(*arguments):
    pytest.importorskip("motedge.cli.checkpoint")
    return main(["checkpoint", *map(str, arguments)])


def test_the_command_makes_and_inspects(tmp_path, capsys):
    out = tmp_path / "edge"
    assert run("make", out, "--family", "edge", "--size", "tiny", "--seed", "3", "--dry-run") == 0
    assert "would write" in capsys.readouterr().out and not out.exists()
    assert run("make", out, "--family", "edge", "--size", "tiny", "--seed", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["transformer"] == 4_570_944
    assert run("inspect", out) == 0
    text = capsys.readouterr().out
    assert "synthetic" in text and "1,902,720" in text and "2,668,224" in text and "verdict     sound" in text
    assert run("inspect", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["family"] == "edge"


def test_the_command_fails_on_faults(broken, tmp_path, capsys):
    shutil.rmtree(broken / "text_tokenizer")
    assert run("inspect", broken) == 1
    streams = capsys.readouterr()
    assert "verdict     1 fault" in streams.out and "no complete tokenizer" in streams.err
    assert run("inspect", tmp_path / "nothing") == 2
    assert run("make", tmp_path / "x", "--family", "egde") == 2
    assert "did you mean 'edge'" in capsys.readouterr().err
