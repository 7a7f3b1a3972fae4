"""plan.json for the archive: what fits, and how fast it should be, where there is no onnx to read graphs with."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import Optional

from motedge.bundle import Bundle
from motedge.targets.catalog import SoftwareRow, Target
from motedge.targets.pack.serve import Wish


def plan_bytes(
    bundle: Bundle, target: Target, wish: Wish, releases: Sequence[SoftwareRow], notes: list[str]
) -> Optional[bytes]:
    """The plan as JSON, for the newest release that the archive serves; None, and a note, without onnx to read graphs.

    Raises:
        MotedgeError: as `motedge.targets.plan.make_plan`: a damaged graph, say.
    """
    if importlib.util.find_spec("onnx") is None:
        notes.append("without plan.json: reading graphs needs the onnx package (motedge[export])")
        return None
    from motedge.targets.plan import PlanOptions, make_plan

    tensorrt = releases[-1].tensorrt if releases and target.engine == "tensorrt" else None
    options = PlanOptions(recipe=wish.recipe, variant=wish.variant, tensorrt=tensorrt)
    plan = make_plan(bundle, target, options=options, advise=False)
    if not plan.passed:
        notes.append(
            f"the plan says that this does not fit {target.id}: motedge plan {bundle.root} --target {target.id}"
        )
    text = json.dumps(plan.to_dict(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8")
