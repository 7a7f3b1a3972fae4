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
    # An older opset than the dialect's, for a library that reads no newer one; None: the dialect's
    lowered: int | None = None

    @property
    def id(self) -> str:
        """`<dialect>-<dtype>`, part of file names; `primitive17-fp16` in an older opset."""
        return f"{self.dialect}{self.lowered or ''}-{self.dtype}"

    @property
    def traced_opset(self) -> int:
        """The opset of the dialect, in which the exporter writes it."""
        return OPSETS[self.dialect]

    @property
    def opset(self) -> int:
        """The ONNX opset of the file."""
        return self.lowered or self.traced_opset


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
# For TensorRT 8.6, with which code is tested and nothing is built for a device: written only when asked for by name
TEST_VARIANTS = {spec.id: spec for spec in (VariantSpec("primitive", "fp32", 17), VariantSpec("primitive", "fp16", 17))}
# What runs on the machine that exports: the CPU's variant
DEFAULT_VARIANTS = ("primitive-fp32",)
REFERENCE = VARIANTS["primitive-fp32"]


def find_variant(name: str) -> VariantSpec | None:
    """The variant of that id, one for tests included; None if there is none."""
    return {**VARIANTS, **TEST_VARIANTS}.get(name)


def parse_variants(text: str) -> list[VariantSpec]:
    """Parses "all" (of VARIANTS) or a list of ids with commas; UsageError names the closest for an unknown one."""
    if text == "all":
        return list(VARIANTS.values())
    chosen = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        spec = find_variant(name)
        if spec is None:
            raise UsageError(f"unknown variant {name!r}", fix=f"{closest(name, VARIANTS)}; or all")
        if spec not in chosen:
            chosen.append(spec)
    if not chosen:
        raise UsageError("no variant given", fix=closest("", VARIANTS))
    return chosen
