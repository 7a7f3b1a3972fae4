"""plan.json for the archive: on the device, which has no onnx, it is what a build holds its memory against."""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Optional

from motedge.bundle import Bundle
from motedge.targets.catalog import Target
from motedge.targets.pack.serve import Wish


def plan_bytes(bundle: Bundle, target: Target, wish: Wish, notes: list[str]) -> Optional[bytes]:
    """The plan as JSON; None, and a note, where this machine has no onnx to read graphs with."""
    if importlib.util.find_spec("onnx") is None:
        notes.append("without plan.json: reading graphs needs the onnx package (motedge[export])")
        return None
    found = importlib.util.find_spec("motedge.targets.plan")
    if found is None or found.origin is None:
        return None
    planner = importlib.import_module("motedge.targets.plan")
    plan = planner.make_plan(bundle, target, recipe=wish.recipe, variant=wish.variant)
    text = json.dumps(plan.to_dict(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8")
