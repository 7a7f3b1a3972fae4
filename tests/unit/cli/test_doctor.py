from __future__ import annotations

import itertools
import json

import pytest

from motedge.cli.main import main
from motedge.doctor import packages


def test_this_machine_runs_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "run-cpu  yes" in out
    assert "run-gpu  no" in out
    assert "onnxruntime" in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "motedge.doctor/v1"
    assert {v["task"] for v in report["verdicts"]} == {"export", "run-cpu", "run-gpu"}
    assert report["host"]["usable_cores"] >= 1
    names = [p["name"] for p in report["packages"]]
    assert "numpy" in names
    assert "torch" in names
    assert "ruff" not in names
    extras = {(p["name"], p["extra"]) for p in report["packages"]}
    assert {("websockets", "client"), ("aiohttp", "serve"), ("pillow", "serve"), ("gymnasium", "drive")} <= extras
    # Those of one extra stand together
    order = [p["extra"] for p in report["packages"]]
    assert [extra for extra, _ in itertools.groupby(order)] == list(dict.fromkeys(order))


def test_a_missing_dependency_is_exit_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = packages.installed_version
    monkeypatch.setattr(packages, "installed_version", lambda name: None if name == "tokenizers" else found(name))
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "tokenizers is missing" in out
    assert "fix: pip install motedge" in out
