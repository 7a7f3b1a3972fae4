"""What a build will take, before it is started: the engine's size and the highest memory, from the weights alone.

Fitted to builds of full-size Edge graphs in six recipes with TensorRT-RTX 1.7.1 (benchmarks/results/engine_build.json,
which a test holds this against within 15 %). The library copies every weight once, and FP4 ones unpacked, a byte each.
"""

from __future__ import annotations

from dataclasses import dataclass

from motedge.bundle import Bundle
from motedge.quant.schemes import NVFP4
from motedge.runtime.backends.tensorrt.versions import find_version
from motedge.targets.builders.ort.builder import ONNXRUNTIME
from motedge.targets.builders.selection import Choice, recipe_of
from motedge.targets.builders.trt.library import TENSORRT_RTX

# Kernels, tables and the graph, beside the weights: 15 to 36 MB in Edge's towers
ENGINE_BASE_BYTES = 25_000_000
# The library itself, and what it works with
PROCESS_BYTES = 350_000_000
# A copy of each weight and what is made of it before it is written: times the weights' bytes
WEIGHT_COPIES, FP4_COPIES = 1.3, 2.5
# Where external data is read into memory and the plan is held as a whole, as in TensorRT 10.3: the naive builds of the
# benchmark, 3.2 to 3.4 times the weights. Not measured with TensorRT itself
_HELD_COPIES, _HELD_FP4_COPIES = 3.3, 4.1


@dataclass(frozen=True)
class ExpectedBuild:
    """Of one graph in one variant."""

    weight_bytes: int
    engine_bytes: int
    # Highest resident memory of the process that builds
    peak_bytes: int


def expect_build(bundle: Bundle, choice: Choice, builder: str, version: str) -> ExpectedBuild:
    """What building a variant takes.

    Args:
        bundle: the bundle; sizes come from its manifest.
        choice: the graph and its variant.
        builder: name of the builder.
        version: of its library.
    """
    weights = sum(bundle.manifest.files[name].bytes for name in choice.entry.weights)
    return expect_of_weights(weights, _fp4_bytes(bundle, choice), builder, version)


def expect_of_weights(weights: int, fp4: int, builder: str, version: str) -> ExpectedBuild:
    """The same from sizes alone, for a graph that the bundle need not have.

    Args:
        weights: bytes of all weights.
        fp4: bytes of those in FP4.
        builder: name of the builder.
        version: of its library.
    """
    packed = min(fp4, weights)
    mapped = builder in (TENSORRT_RTX, ONNXRUNTIME) or find_version(version).stream_plan
    plain, per_fp4 = (WEIGHT_COPIES, FP4_COPIES) if mapped else (_HELD_COPIES, _HELD_FP4_COPIES)
    peak = PROCESS_BYTES + plain * (weights - packed) + per_fp4 * packed
    return ExpectedBuild(weights, weights + ENGINE_BASE_BYTES, int(peak))


def _fp4_bytes(bundle: Bundle, choice: Choice) -> int:
    """Bytes of FP4 weights in a variant; all of them where the recipe has any and the graph can't be read."""
    recipe = recipe_of(bundle, choice.entry)
    if recipe is None or not any(scheme.weight == NVFP4 for scheme in recipe.schemes()):
        return 0
    try:
        import onnx
    except ImportError:
        return sum(bundle.manifest.files[name].bytes for name in choice.entry.weights)
    model = onnx.load(str(bundle.path(choice.entry.file)), load_external_data=False)
    total = 0
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT4E2M1:
            values = 1
            for size in tensor.dims:
                values *= size
            total += (values + 1) // 2
    return total
