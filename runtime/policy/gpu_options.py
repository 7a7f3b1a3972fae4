"""How a policy uses a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from motedge.errors import UsageError
from motedge.runtime.cuda.interface import PRIORITIES


@dataclass(frozen=True)
class GpuOptions:
    """Counts where the backend runs on a GPU."""

    # Folder of the bundle's engines/ to take; None: the one that fits this GPU
    target: Optional[str] = None
    # Number of the GPU
    ordinal: int = 0
    # Of the stream: "high" before other work on the GPU, "normal", or "low" after it
    priority: str = "high"
    # Whether work is captured in CUDA graphs
    cuda_graph: bool = True
    # Whether the compiled kernels are used where they are there
    kernels: bool = True

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise UsageError("unknown stream priority", expected=" or ".join(PRIORITIES), got=self.priority)
        if self.ordinal < 0:
            raise UsageError("a GPU has no such number", expected="0 or above", got=self.ordinal)
