"""Which backend runs which variants, and opening an engine on one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from motedge.bundle import Bundle, Contract
from motedge.errors import BundleError, UsageError, closest
from motedge.runtime.engine import Engine, EngineOptions

# Model file, contract, the graph's dtype, options -> engine
Loader = Callable[[Path, Contract, str, EngineOptions], Engine]


@dataclass(frozen=True)
class BackendCapability:
    """What one backend can run."""

    name: str
    # (dialect, dtype), the preferred first
    runs: tuple[tuple[str, str], ...]
    # (dialect, dtype) -> why not, for what a bundle may well hold
    refuses: Mapping[tuple[str, str], str]
    load: Loader


def _load_onnxruntime(model: Path, contract: Contract, dtype: str, options: EngineOptions) -> Engine:
    from motedge.runtime.backends.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, contract, dtype, options)


BACKENDS: Mapping[str, BackendCapability] = {
    "onnxruntime": BackendCapability(
        name="onnxruntime",
        runs=(("primitive", "fp32"), ("primitive", "fp16"), ("fused", "fp16")),
        refuses={
            ("fused", "bf16"): "onnxruntime has no bf16 kernels for the CPU (MatMul, Add, Softmax and others)",
            ("primitive", "bf16"): "onnxruntime has no bf16 kernels for the CPU (MatMul, Add, Softmax and others)",
        },
        load=_load_onnxruntime,
    ),
}


def open_engine(
    bundle: Bundle,
    graph: str,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    options: Optional[EngineOptions] = None,
) -> Engine:
    """Checks the files of one variant of a graph and loads it.

    Args:
        bundle: the bundle.
        graph: "und_prefill", "gen_step" or "vae_encoder".
        backend: one of BACKENDS.
        variant: an id such as "primitive-fp32"; None takes the backend's first choice that the bundle has.
        options: threads and how thoroughly files are checked.

    Raises:
        UsageError: no such backend, or the backend can't run the variant that was asked for.
        BundleError: no such graph or variant, a changed or missing file, a graph that is not as its contract says.
        HostError: the library is missing, too old, or out of memory.
    """
    options = options or EngineOptions()
    capability = _capability(backend)
    chosen = choose_variant(bundle, graph, backend=backend, variant=variant)
    model = bundle.check_variant(graph, chosen, content=options.check_content)
    return capability.load(model, bundle.contract(graph), bundle.variant(graph, chosen).dtype, options)


def choose_variant(bundle: Bundle, graph: str, *, backend: str = "onnxruntime", variant: Optional[str] = None) -> str:
    """The id of the variant that `open_engine` would load; see there. Without `variant`, never a quantized one."""
    capability = _capability(backend)
    if variant is not None:
        entry = bundle.variant(graph, variant)
        kind = (entry.dialect, entry.dtype)
        if kind not in capability.runs:
            raise UsageError(
                f"{backend} can't run variant {variant!r} of graph {graph!r}",
                expected=" or ".join("-".join(pair) for pair in capability.runs),
                got=variant,
                why=capability.refuses.get(kind),
                fix="leave the variant out to take the first that this backend runs, or choose another backend",
            )
        return variant
    variants = bundle.graph(graph).variants
    for kind in capability.runs:
        for name, entry in variants.items():
            if (entry.dialect, entry.dtype) == kind and entry.recipe is None:
                return name
    reasons = {capability.refuses.get((entry.dialect, entry.dtype)) for entry in variants.values()} - {None}
    raise BundleError(
        f"the bundle has no variant of graph {graph!r} that {backend} can run",
        expected=" or ".join("-".join(pair) for pair in capability.runs),
        got=", ".join(variants) or "no variants",
        why="; ".join(sorted(reason for reason in reasons if reason)) or None,
        fix="export again with --variants primitive-fp32",
    )


def _capability(backend: str) -> BackendCapability:
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}", fix=closest(backend, BACKENDS))
    return BACKENDS[backend]
