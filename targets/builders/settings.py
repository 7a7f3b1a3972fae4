"""What a builder is told, apart from the graph: the user's choices, validated, as they go into build.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError

# TensorRT: 0 compiles fastest, 5 searches longest; 3 is its default
LEVELS = range(6)


@dataclass(frozen=True)
class BuildSettings:
    """One set for all graphs of a build."""

    # IBuilderConfig.builder_optimization_level; None: the library's own
    optimization_level: Optional[int] = None
    # Scratch memory that tactics may take, in 1e9 bytes; None: the library's own limit, all of the GPU's memory
    workspace_gb: Optional[float] = None
    # Weights go to the GPU as they are needed: fits more, runs slower
    weight_streaming: bool = False
    # Weights can be exchanged in the built engine (motedge refit)
    refittable: bool = False
    # The plan holds no weights that a refit can bring: small to ship, not runnable before
    strip_weights: bool = False
    # The plan holds a lean runtime, so that a later version can run it; that is host code
    version_compatible: bool = False

    def __post_init__(self) -> None:
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise UsageError(
                "the optimization level does not fit", expected=f"0 to {LEVELS[-1]}", got=self.optimization_level
            )
        if self.workspace_gb is not None and not 0 < self.workspace_gb < 1e4:
            raise UsageError(
                "the workspace does not fit", expected="more than 0, in GB (1e9 bytes)", got=self.workspace_gb
            )

    def without_weights(self) -> BuildSettings:
        """What is left of them for a graph that has no weights."""
        return dataclasses.replace(self, weight_streaming=False, refittable=False, strip_weights=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)
