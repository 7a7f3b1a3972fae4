"""onnx's own reference evaluator, which rounds after every operator as a 16-bit device does.

onnxruntime has few 16-bit kernels for the CPU: it computes fp16 graphs in fp32 and drops the casts between operators,
so that neither their rounding nor an overflow shows; and it can't run bf16 at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from motedge.bundle import Bundle
from motedge.runtime.comparison import Comparison, compare
from motedge.runtime.samples import Sample

DTYPES: Mapping[str, Any] = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
# Half the distance of two neighbouring numbers, relative: 11 and 8 significant bits
UNIT_ROUNDOFF = {"fp16": 2.0**-11, "bf16": 2.0**-8}


class RMSNormalization(OpRun):
    """As the standard says; onnx 1.23's own ignores stash_type and takes the mean of squares in 16 bits."""

    op_domain = ""

    def _run(self, x: Any, scale: Any, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> tuple[Any]:
        assert (axis, stash_type) in ((-1, 1), (x.ndim - 1, 1))
        wide = x.astype(np.float32)
        normed = wide / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + np.float32(epsilon))
        return (normed.astype(x.dtype) * scale,)


class LayerNormalization(OpRun):
    """As the standard says; onnx 1.23's own ignores stash_type too."""

    op_domain = ""

    def _run(
        self, x: Any, scale: Any, bias: Any, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
    ) -> tuple[Any]:
        assert (axis, stash_type) in ((-1, 1), (x.ndim - 1, 1))
        wide = x.astype(np.float32)
        wide -= np.mean(wide, axis=-1, keepdims=True)
        normed = wide / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + np.float32(epsilon))
        return (normed.astype(x.dtype) * scale + bias,)


def run_sample(root: Path, graph: str, variant: str) -> list[Comparison]:
    """Runs a graph on its recorded sample; each output against the recorded fp32 one."""
    bundle = Bundle.open(root)
    entry, contract = bundle.variant(graph, variant), bundle.contract(graph)
    arrays = Sample.of(bundle, graph).arrays(bundle)
    inputs = {
        spec.name: arrays[f"in.{spec.name}"].astype(DTYPES[entry.dtype if spec.dtype == "graph" else spec.dtype])
        for spec in contract.inputs
    }
    evaluator = ReferenceEvaluator(str(bundle.path(entry.file)), new_ops=[RMSNormalization, LayerNormalization])
    with np.errstate(all="ignore"):
        outputs = evaluator.run(None, inputs)
    for spec, value in zip(contract.outputs, outputs, strict=True):
        assert value.dtype == DTYPES[entry.dtype if spec.dtype == "graph" else spec.dtype], spec.name
    return [
        compare(spec.name, value.astype(np.float32), arrays[f"out.{spec.name}"])
        for spec, value in zip(contract.outputs, outputs, strict=True)
    ]
