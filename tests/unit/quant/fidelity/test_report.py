"""report.json: there and back, strict JSON, and files that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from motedge.errors import BundleError
from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.report import SCHEMA, FidelityReport, read_report, write_report

MakeReport = Callable[..., FidelityReport]


@pytest.mark.parametrize("measured", [True, False])
def test_there_and_back(make_report: MakeReport, measured: bool, tmp_path: Path) -> None:
    report = make_report(measured=measured)
    write_report(tmp_path, report)
    assert read_report(tmp_path) == report
    raw = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert raw["schema"] == SCHEMA == "motedge.fidelity/v1" and next(iter(raw)) == "schema"
    assert raw["verdict"]["status"] == ("passed" if measured else "not judged")
    assert raw["latency"]["predicted_ms"] is None and raw["latency"]["why"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_values_that_are_not_finite_are_written_as_null(
    make_report: MakeReport, not_finite: Figures, tmp_path: Path
) -> None:
    report = make_report(figures=not_finite)
    write_report(tmp_path, report)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    raw = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert raw["verdict"]["status"] == "failed" and raw["latent"]["relative_l2"] is None
    assert raw["chunk"]["rows"][3][0] is None and read_report(tmp_path) == report


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "motedge.fidelity/v2"},
        {"schema": None},
        {"verdict": "passed"},
        {"sites": None},
        {"sites": [{"site": "layers.0.x"}]},
        {"chunk": {"overall": {}}},
        {"extra": 1},
    ],
)
def test_another_document_is_refused(make_report: MakeReport, change: dict) -> None:
    with pytest.raises(BundleError):
        FidelityReport.from_dict({**make_report().to_dict(), **change})


@pytest.mark.parametrize("content", [None, "", "{", "[]", "3", '{"schema": "motedge.fidelity/v1"}'])
def test_a_file_that_is_no_report(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError):
        read_report(tmp_path)
