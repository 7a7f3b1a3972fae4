"""Variants of a graph: dialect and floating type, and which targets each is for."""

from __future__ import annotations

from dataclasses import dataclass

from motedge.errors import UsageError, closest

# The fused operators came together at opset 23; later opsets lose the fused norm in the exporter's rewriter.
# 20 is the newest opset of TensorRT 10.3, and onnxruntime 1.19 (Python 3.9) reads it.
OPSETS = {"fused": 23, "primitive": 20}


@dataclass(frozen=True)
class VariantSpec:
    """One way of writing a graph."""

    # "fused": TensorRT >= 10.16, 11 and TensorRT-RTX; "primitive": everything older, and onnxruntime on a CPU
    dialect: str
    # "fp32", "fp16" or "bf16"
    dtype: str

    @property
    def id(self) -> str:
        """`<dialect>-<dtype>`, part of file names."""
        return f"{self.dialect}-{self.dtype}"

    @property
    def opset(self) -> int:
        """The ONNX opset of the dialect."""
        return OPSETS[self.dialect]


# fused-fp32 is missing on purpose: TensorRT has no fused fp32 attention. So is primitive-bf16: the versions that need
# the primitive dialect run it in fp16.
VARIANTS = {
    spec.id: spec
    for spec in (
        VariantSpec("primitive", "fp32"),
        VariantSpec("primitive", "fp16"),
        VariantSpec("fused", "fp16"),
        VariantSpec("fused", "bf16"),
    )
}
# What runs on the machine that exports: the CPU's variant
DEFAULT_VARIANTS = ("primitive-fp32",)
REFERENCE = VARIANTS["primitive-fp32"]


def parse_variants(text: str) -> list[VariantSpec]:
    """Parses "all" or a comma-separated list of ids; UsageError names the closest for an unknown one."""
    if text == "all":
        return list(VARIANTS.values())
    chosen = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in VARIANTS:
            raise UsageError(f"unknown variant {name!r}", fix=f"{closest(name, VARIANTS)}; or all")
        if VARIANTS[name] not in chosen:
            chosen.append(VARIANTS[name])
    if not chosen:
        raise UsageError("no variant given", fix=closest("", VARIANTS))
    return chosen
