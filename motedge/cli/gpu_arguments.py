"""Arguments that say how a GPU is used, of every verb that runs engines on one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from motedge.runtime.policy import GpuOptions


def add_gpu_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds them, as a group of their own, which is returned."""
    gpu = parser.add_argument_group("on a GPU: --engine tensorrt, tensorrt-rtx or onnxruntime-cuda")
    gpu.add_argument("--target", metavar="ID", help="folder of BUNDLE/engines to take; default: what fits this GPU")
    gpu.add_argument("--gpu", type=int, default=0, metavar="N", help="which one (default: %(default)s)")
    gpu.add_argument("--priority", default="high", choices=("high", "normal", "low"), help="beside other work on it")
    gpu.add_argument("--no-cuda-graph", action="store_true", help="launch the work piece by piece")
    gpu.add_argument("--trust-engines", action="store_true", help="load engines that hold host code; it runs as you")
    gpu.add_argument(
        "--weight-budget-gb",
        type=float,
        metavar="N",
        help="of each tower's weights, what stays on the GPU; for engines built with --weight-streaming",
    )
    return gpu


def gpu_options(args: argparse.Namespace, *, kernels: bool = True) -> GpuOptions:
    """What was given; `kernels`: whether compiled kernels may be used.

    Raises:
        UsageError: a value out of range.
    """
    from motedge.runtime.policy import GpuOptions

    return GpuOptions(
        target=args.target,
        ordinal=args.gpu,
        priority=args.priority,
        cuda_graph=not args.no_cuda_graph,
        kernels=kernels,
        trust_host_code=args.trust_engines,
        weight_budget_gb=args.weight_budget_gb,
    )
