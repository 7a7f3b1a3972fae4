from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from plan_scene import make, refused

from motedge.errors import BundleError, UsageError
from motedge.targets.legality import Reason
from motedge.targets.plan import Plan
from motedge.targets.plan.read import read_plan


def with_reason(plan: Plan) -> Plan:
    first = dataclasses.replace(plan.graphs[0], reasons=(Reason("fp8 needs 8.9", "support matrix"),))
    return dataclasses.replace(plan, graphs=(first, *plan.graphs[1:]))


@pytest.mark.parametrize("plan", [make(), refused(), make(tick=None), with_reason(make())])
def test_json_and_back(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict(), allow_nan=False))
    assert read_plan(tmp_path / "plan.json") == plan


def test_verdicts() -> None:
    assert make().passed and make().fits
    assert not refused().passed and refused().legal
    assert not with_reason(make()).legal and not with_reason(make()).passed
    built = dataclasses.replace(make().build, fits=False)
    assert not make(build=built).passed
    unknown = dataclasses.replace(make().memory, available_bytes=None, fits=None)
    plan = make(memory=unknown, build=dataclasses.replace(make().build, available_bytes=None, fits=None))
    assert plan.fits is None and plan.passed


@pytest.mark.parametrize("change", [{"schema": "motedge.plan/v2"}, {"memory": None}, {"colour": 1}, {"graphs": [{}]}])
def test_what_is_no_plan(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**make().to_dict(), **change}))
    with pytest.raises(UsageError, match="plan"):
        read_plan(tmp_path / "plan.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no plan at"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(UsageError, match="no plan"):
        read_plan(tmp_path / "plan.json")
