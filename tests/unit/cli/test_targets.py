from __future__ import annotations

import json

import pytest

from motedge.cli.main import main
from motedge.targets.catalog import targets


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = {line.split()[0]: line for line in lines[1:19]}
    assert set(named) == set(targets())
    assert named["jetson-orin-nano-8gb"].split()[1:5] == ["8.7", "8.6~", "7.1~", "102.4"]
    assert named["jetson-t2000"].split()[4] == "-"
    assert "~ derived" in lines[-1]


def test_show_gives_marks_sources_and_dialects(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "show", "jetson-agx-orin-64gb"]) == 0
    out = capsys.readouterr().out
    assert "derived  170 sparse INT8 TOPS of the GPU (Jetson AGX Orin technical brief v1.2) / 4" in out
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines() if line.startswith("JetPack")}
    assert "primitive" in rows["JetPack 6.2"] and "10.3.0.30" in rows["JetPack 6.2"]
    assert "fused" in rows["JetPack 7.2.2"] and "11.4.1" in rows["JetPack 7.2.2"]


@pytest.mark.parametrize("name", sorted(targets()))
def test_show_has_a_line_for_each_figure(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "show", name]) == 0
    out = capsys.readouterr().out
    target = targets()[name]
    assert target.bandwidth_gbps.source in out and target.software[-1].release in out
    assert all(mode.name in out for mode in target.power_modes)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "show", "jetson-agx-thor-t5000", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "motedge.targets/v1"
    assert shown["target"]["dense_tflops"]["nvfp4"]["value"] == 1035.0
    assert shown["target"]["software"][0]["dialects"] == ["primitive"]
    assert "nvfp4" in shown["target"]["legal_precisions"]
    assert main(["targets", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["targets"]) == 18


def test_detect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["targets", "detect"]) == 0
    assert capsys.readouterr().out.startswith("target     ")
    assert main(["targets", "detect", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["detection"]
    assert found["certainty"] in ("certain", "likely", "ambiguous", "unknown") and found["clues"]["memory_bytes"] > 0


def test_an_unknown_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "show", "jetson-agx-thor"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean 'jetson-agx-thor-t5000'?" in captured.err


def test_an_unknown_action(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["targets", "detetc"])
    assert stopped.value.code == 2
    assert "did you mean 'detect'" in capsys.readouterr().err
