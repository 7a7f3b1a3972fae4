"""How a policy uses a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.runtime.cuda.interface import PRIORITIES

# Nearly all of the weights, as matrices. The VAE's are small, and few of them can be streamed
_TOWERS = ("und_prefill", "und", "gen_step")


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
    # Load TensorRT's engines that hold host code, which runs with the user's rights
    trust_host_code: bool = False
    # Of each tower's weights (und_prefill, und, gen_step), what stays on the GPU, in 1e9 bytes; the rest is streamed
    # from the host in every run. For engines that were built with --weight-streaming; None: all stays
    weight_budget_gb: Optional[float] = None

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise UsageError("unknown stream priority", expected=" or ".join(PRIORITIES), got=self.priority)
        if self.ordinal < 0:
            raise UsageError("a GPU has no such number", expected="0 or above", got=self.ordinal)
        if self.weight_budget_gb is not None and not 0 <= self.weight_budget_gb < 1e4:
            raise UsageError(
                "the budget for weights does not fit",
                expected="0 or more, in GB (1e9 bytes)",
                got=self.weight_budget_gb,
            )

    def engine_options(self, graph: str) -> dict[str, Any]:
        """What `open_device_engine` is told of it for one graph."""
        # Only the towers' engines stream: for the others, all weights stay
        streams = self.weight_budget_gb is not None and graph in _TOWERS
        return {
            "target": self.target,
            "trust_host_code": self.trust_host_code,
            "weight_streaming_budget": round((self.weight_budget_gb or 0) * 1e9) if streams else None,
        }
