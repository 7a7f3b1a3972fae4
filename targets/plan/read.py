"""plan.json beside a target's engines: what was planned elsewhere, for a device that has no onnx to read graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError, UsageError
from motedge.files import PathLike
from motedge.targets.catalog import Target
from motedge.targets.plan.model import Plan

PLAN_FILE = "plan.json"


def read_plan(path: PathLike) -> Plan:
    """A plan from a file that `motedge plan --json` or `motedge pack` wrote.

    Raises:
        BundleError: it is missing, or not JSON.
        UsageError: another schema, or a field that does not fit.
    """
    file = Path(path)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"there is no plan at {file}", fix="motedge plan BUNDLE --target T --json") from error
    except ValueError as error:
        raise BundleError(f"{file} is not JSON", got=str(error), fix="delete it, or copy it again") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{file} is no plan", expected="a JSON object", got=type(raw).__name__)
    return Plan.from_dict(raw)


def recorded_plan(bundle: Bundle, target: Target) -> Optional[Plan]:
    """The plan beside a target's engines; None without one.

    Raises:
        BundleError: it is damaged, or the plan of another target or model.
    """
    path = bundle.path(f"engines/{target.id}/{PLAN_FILE}")
    if not path.is_file():
        return None
    plan, model = read_plan(path), bundle.manifest.model
    wanted = f"{model.get('family')} {model.get('variant')}"
    if (plan.target, plan.model) != (target.id, wanted):
        raise BundleError(
            f"{path} is the plan of something else",
            expected=f"{wanted} on {target.id}",
            got=f"{plan.model} on {plan.target}",
            fix="delete it, or make it again: motedge plan",
        )
    return plan
