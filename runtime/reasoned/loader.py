"""Opening a bundle's reasoner and policy together, on one copy of the understanding tower's weights."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Optional

from motedge.files import PathLike
from motedge.runtime.policy.gpu_options import GpuOptions
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
    gpu: Optional[GpuOptions] = None,
    capacity: Optional[int] = None,
    **policy: Any,
) -> ReasonedPolicy:
    """Opens both.

    Args:
        bundle_path: Folder of the bundle, exported with the group "reasoner".
        options: How and when the reasoner is asked.
        engine: Backend that runs the graphs.
        variant: As of `load_policy`.
        recipe: As of `load_policy`.
        check: As of `load_policy`.
        threads: As of `load_policy`.
        gpu: How the policy uses a GPU. The reasoner does likewise, on a stream of low priority.
        capacity: Tokens of the reasoner's prompt and reply; as of `load_reasoner`.
        policy: What else `load_policy` takes.

    Raises:
        UsageError: thinking in the background where that can't be; and as `load_policy` and `load_reasoner`.
        BundleError: the bundle was exported without the reasoner; a file is missing, changed or damaged.
    """
    choice: dict[str, Any] = {
        "engine": engine,
        "variant": variant,
        "recipe": recipe,
        "check": check,
        "threads": threads,
    }
    gpu = GpuOptions() if gpu is None else gpu
    behind = dataclasses.replace(gpu, priority="low")
    with contextlib.ExitStack() as opened:
        reasoner = opened.enter_context(load_reasoner(bundle_path, gpu=behind, capacity=capacity, **choice))
        acting = opened.enter_context(load_policy(bundle_path, reasoner=reasoner, gpu=gpu, **choice, **policy))
        reasoned = with_reasoning(acting, reasoner, options)
        # From here on the policy that reasons closes them
        opened.pop_all()
    return reasoned
