"""Which nodes of a graph the library left on the CPU, and whether that is harmless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import HostError

CPU_PROVIDER = "CPUExecutionProvider"
# Session option that makes `get_provider_graph_assignment_info` answer; older releases ignore it
RECORD_KEY = "session.record_ep_graph_assignment_info"
# Operators that work out shapes from sizes that the host knows anyway; the library prefers the CPU for them
# (GetCpuPreferredNodes in its fallback_cpu_capability.cc). They touch no tensor of the graph
_ON_SHAPES = (
    "Shape Size Constant ConstantOfShape Range Gather Concat Slice Squeeze Unsqueeze Cast Identity Reshape Add Sub Mul "
    "Div Mod Min Max Floor Ceil Equal Less Greater And Or Not Where ReduceProd ReduceSum ReduceMax ReduceMin"
)
SHAPE_OPERATORS = frozenset(_ON_SHAPES.split())
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Placement:
    """Nodes on the CPU as "Operator name"; None where the library does not tell."""

    on_cpu: Optional[tuple[str, ...]]


def read_placement(session: Any, expected_provider: str, graph: str) -> Placement:
    """Where the session's nodes lie.

    Raises:
        HostError: work, not shapes alone, is left to the CPU: each run would copy tensors to the host and back.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Placement(None)
    if expected_provider == CPU_PROVIDER:
        return Placement(())
    nodes = [
        (node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != expected_provider
        for node in part.get_nodes()
    ]
    working = [f"{kind} {name}".strip() for kind, name in nodes if kind not in SHAPE_OPERATORS]
    if working:
        rest = f" and {len(working) - _NAMED_AT_MOST} more" if len(working) > _NAMED_AT_MOST else ""
        raise HostError(
            f"onnxruntime has no CUDA kernel for {len(working)} nodes of graph {graph!r}",
            got=", ".join(working[:_NAMED_AT_MOST]) + rest,
            why="they would run on the CPU, with copies to the host and back in every run",
            fix="upgrade onnxruntime-gpu, or take another variant: fused-fp16, primitive-fp16, primitive-fp32",
        )
    return Placement(tuple(f"{kind} {name}".strip() for kind, name in nodes))
