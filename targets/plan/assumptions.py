"""Figures that a plan rests on and no graph tells, each with its mark and source."""

from __future__ import annotations

from collections.abc import Mapping

from motedge.targets.catalog import Figure, Target
from motedge.targets.catalog.model import COMMUNITY, DERIVED, MEASURED, UNVERIFIED

_GB = 1e9
# Scratch of matrix kernels beside the values between operators. TensorRT-RTX states an engine's activation memory when
# it has built it, without a GPU. With this added, liveness plans 0.92 to 1.0 of that for the tiny graphs, 0.79 to 1.0
# for full-size towers and 0.58 for the VAE encoder, whose norms run across channels: 82 MB too little at the most
WORKSPACE = Figure(
    8_388_608.0,
    MEASURED,
    "benchmarks/results/plan_scale.json: TensorRT-RTX 1.7.1's own figure, less what lives at once",
)
# A GPU with memory of its own: the catalogue's available_gb is without the context
_NO_CONTEXT = Figure(0.0, DERIVED, "taken off in the catalogue's available_gb already")
_CONTEXTS: Mapping[str, Figure] = {
    "unified": Figure(
        0.9 * _GB,
        DERIVED,
        "a report of Cosmos 3's reasoner in INT4 on an Orin Nano: 3.70 GB resident, less its engine (0.82), a vision "
        "encoder of 0.43 billion fp16 weights (0.86), the fp16 embedding table (0.54), 4,096 tokens of K/V (0.47) and "
        "activations (0.1)",
    ),
    "cpu": Figure(0.1 * _GB, MEASURED, "prototype of the torch-free loop: 92 MB resident with two small models open"),
}
# Interpreter, numpy, tokenizer: what the runtime takes of the host beside engines
HOST_PROCESS = Figure(
    0.1 * _GB, MEASURED, "prototype of the torch-free loop: 92 MB resident with two small models open"
)
# While TensorRT loads an engine from a file, the file's pages and the engine are both in a Jetson's one memory. The
# kernel can take mapped pages back, but allocations for the GPU often fail before it does
LOADING_COPIES = Figure(
    1.0, COMMUNITY, "Jetson users' reports: NvMapMemAlloc error 12 until the page cache is dropped by hand"
)
# Less than this share left: the plan says so
TIGHT_SHARE = 0.05
# Solver and guidance on the host, a value and step; preparing the image, a pixel of the canvas
SOLVER_S = Figure(4.0e-9, MEASURED, "benchmarks/results/policy_tick.json: solver_ms 9.08 of the warm tick, 4 steps")
IMAGE_S = Figure(9.7e-9, MEASURED, "benchmarks/results/policy_tick.json: image_ms 3.88 of the warm tick, 544 x 736")
# How much slower the host of a small device may be than the two Xeon cores that measured the above
HOST_SLOWER = Figure(4.0, UNVERIFIED, "a guess for the Arm cores of a Jetson; nothing was run on one")
# A mapped table is resident by pages
PAGE_BYTES = 4096


def context_bytes(target: Target) -> Figure:
    """What a CUDA context and the engine library take before any engine is loaded."""
    if target.compute_capability is None:
        return _CONTEXTS["cpu"]
    return _CONTEXTS["unified"] if target.unified_memory else _NO_CONTEXT
