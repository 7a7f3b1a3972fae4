"""Opening a bundle's reasoner and policy together, on one copy of the understanding tower's weights."""

from __future__ import annotations

import contextlib
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.files import PathLike
from motedge.runtime.backends import DEVICE_BACKENDS
from motedge.runtime.policy.loader import load_policy
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.policy import ReasonedPolicy, with_reasoning
from motedge.runtime.reasoner.loader import load_reasoner


def load_reasoned_policy(
    bundle_path: PathLike,
    options: ReasonOptions = ReasonOptions(),  # noqa: B008 -- frozen
    *,
    engine: str = "onnxruntime",
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    check: str = "full",
    threads: Optional[int] = None,
    **policy: Any,
) -> ReasonedPolicy:
    """Opens both.

    Args:
        bundle_path: Folder of the bundle, exported with the group "reasoner".
        options: How and when the reasoner is asked.
        engine: Backend that runs the graphs, on the host.
        variant: As of `load_policy`.
        recipe: As of `load_policy`.
        check: As of `load_policy`.
        threads: As of `load_policy`.
        policy: What else `load_policy` takes.

    Raises:
        UsageError: a backend on a GPU, and as `load_policy` and `load_reasoner`.
        BundleError: the bundle was exported without the reasoner; a file is missing, changed or damaged.
    """
    if engine in DEVICE_BACKENDS:
        raise UsageError(
            f"a policy that reasons does not run on backend {engine!r} yet",
            expected="onnxruntime",
            why="thinking between ticks was not tried on a GPU",
            fix="leave the reasoner out, or --engine",
        )
    choice: dict[str, Any] = {
        "engine": engine,
        "variant": variant,
        "recipe": recipe,
        "check": check,
        "threads": threads,
    }
    with contextlib.ExitStack() as opened:
        reasoner = opened.enter_context(load_reasoner(bundle_path, **choice))
        acting = opened.enter_context(load_policy(bundle_path, reasoner=reasoner, **choice, **policy))
        reasoned = with_reasoning(acting, reasoner, options)
        # From here on the policy that reasons closes them
        opened.pop_all()
    return reasoned
