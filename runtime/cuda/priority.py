"""What "high", "normal" and "low" are on a GPU, whose priorities are numbers, the greatest being the least."""

from __future__ import annotations

import warnings

from motedge.runtime.cuda.raw import RawCuda


def numeric_priority(raw: RawCuda, priority: str) -> int:
    """The number for a name. "low" is what streams have that nobody gave a priority, for CUDA has nothing below it.

    Where the provider has no priorities, it is 0 and, for "high", a warning says so.
    """
    if not raw.has_priorities:
        if priority == "high":
            warnings.warn(
                f"{raw.name} makes no streams of high priority: other work on this GPU is served as soon as ours. "
                "cuda-bindings does: MOTEDGE_CUDA_PROVIDER=cuda-bindings",
                RuntimeWarning,
                stacklevel=4,
            )
        return 0
    least, greatest = raw.priorities()
    return {"high": greatest, "normal": least - (least - greatest) // 2, "low": least}[priority]
