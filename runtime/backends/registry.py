"""Which backend runs which variants, and opening an engine on one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from motedge.bundle import WEIGHTLESS_GRAPHS, Bundle, Contract, Variant
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
    refuses: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # None: tensors lie on the GPU; see device_registry.py
    load: Optional[Loader] = None
    # Runs engines that this builder made from the graphs, not the graphs themselves
    builder: Optional[str] = None


def _load_onnxruntime(model: Path, contract: Contract, dtype: str, options: EngineOptions) -> Engine:
    from motedge.runtime.backends.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, contract, dtype, options)


_ANY = tuple((dialect, dtype) for dialect in ("fused", "primitive") for dtype in ("fp16", "bf16", "fp32"))
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
    # bf16 last, until a run has shown that the provider has every kernel in it; what it lacks is refused on loading
    "onnxruntime-cuda": BackendCapability(
        name="onnxruntime-cuda",
        runs=(
            ("fused", "fp16"),
            ("primitive", "fp16"),
            ("primitive", "fp32"),
            ("fused", "bf16"),
            ("primitive", "bf16"),
        ),
    ),
    # Whatever an engine was built from
    "tensorrt": BackendCapability(name="tensorrt", runs=_ANY, builder="tensorrt"),
    "tensorrt-rtx": BackendCapability(name="tensorrt-rtx", runs=_ANY, builder="tensorrt-rtx"),
}
# Backends whose tensors lie on the GPU
DEVICE_BACKENDS = tuple(name for name, capability in BACKENDS.items() if capability.load is None)


def open_engine(
    bundle: Bundle,
    graph: str,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
    options: Optional[EngineOptions] = None,
) -> Engine:
    """Checks the files of one variant of a graph and loads it, on numpy arrays.

    A backend of the GPU copies them there and back in every run; `open_device_engine` opens it without.

    Args:
        bundle: the bundle.
        graph: "und_prefill", "gen_step", "vae_encoder" or "solver_step".
        backend: one of BACKENDS.
        variant: an id such as "primitive-fp32"; None takes the backend's first choice that the bundle has.
        recipe: quantization recipe, such as "fp8"; graphs that it leaves alone run unquantized. None: unquantized,
            unless the bundle has the graph in one recipe only.
        options: threads and how thoroughly files are checked.

    Raises:
        UsageError: no such backend, the backend can't run the variant that was asked for, or several recipes to choose
            from.
        BundleError: no such graph or variant, a changed or missing file, a graph that is not as its contract says.
        HostError: the library is missing, too old, or out of memory.
    """
    options = options or EngineOptions()
    capability = _capability(backend)
    if capability.load is None:
        from motedge.runtime.backends.device_registry import open_host_engine

        return open_host_engine(bundle, graph, backend=backend, variant=variant, recipe=recipe, options=options)
    chosen = choose_variant(bundle, graph, backend=backend, variant=variant, recipe=recipe)
    model = bundle.check_variant(graph, chosen, content=options.check_content)
    return capability.load(model, bundle.contract(graph), bundle.variant(graph, chosen).dtype, options)


def choose_variant(
    bundle: Bundle,
    graph: str,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    recipe: Optional[str] = None,
) -> str:
    """The id of the variant that `open_engine` would load; see there for arguments and errors."""
    capability, variants = _capability(backend), bundle.graph(graph).variants
    if capability.builder is not None:
        variants = _built(bundle, graph, capability.builder)
    if graph in WEIGHTLESS_GRAPHS and variant not in variants:
        # It has one for all: what is asked for is meant for the others
        variant = None
    if variant is not None and variant in variants and recipe is None:
        return _require_runnable(capability, bundle, graph, variant)
    wanted = _of_recipe(graph, variants, recipe)
    if variant is not None:
        if f"{variant}-{recipe}" in wanted:
            return _require_runnable(capability, bundle, graph, f"{variant}-{recipe}")
        matching = [name for name in wanted if variant in (name, _base(wanted[name]))]
        # Raises, naming the closest, where the graph has nothing of the kind
        return _require_runnable(capability, bundle, graph, matching[0] if matching else variant)
    for kind in capability.runs:
        for name, entry in wanted.items():
            if (entry.dialect, entry.dtype) == kind:
                return name
    reasons = {capability.refuses.get((entry.dialect, entry.dtype)) for entry in wanted.values()} - {None}
    raise BundleError(
        f"the bundle has no variant of graph {graph!r} that {backend} can run",
        expected=" or ".join("-".join(pair) for pair in capability.runs),
        got=", ".join(variants) or "no variants",
        why="; ".join(sorted(reason for reason in reasons if reason)) or None,
        fix="export again with --variants primitive-fp32",
    )


def _built(bundle: Bundle, graph: str, builder: str) -> dict[str, Variant]:
    """The variants of which a builder made engines, for whichever target."""
    from motedge.runtime.engine_files.record import BUILD_FILE, ENGINES_FOLDER, EngineFiles

    records = [EngineFiles.read(path.parent) for path in sorted(bundle.root.glob(f"{ENGINES_FOLDER}/*/{BUILD_FILE}"))]
    made = {e.variant for record in records for e in record.engines if e.graph == graph and e.builder == builder}
    built = {name: entry for name, entry in bundle.graph(graph).variants.items() if name in made}
    if not built:
        others = sorted({engine.builder for record in records for engine in record.engines})
        raise BundleError(
            f"the bundle has no engine of graph {graph!r} for {builder}",
            got=f"engines for {', '.join(others)}" if others else "no engines at all",
            fix="motedge build BUNDLE --target TARGET",
        )
    return built


def _of_recipe(graph: str, variants: Mapping[str, Variant], recipe: Optional[str]) -> dict[str, Variant]:
    """The variants of a recipe; graphs that it leaves alone have unquantized ones. Without a recipe: the unquantized
    ones, or, where a bundle has none of those, the ones of its only recipe."""
    plain = {name: entry for name, entry in variants.items() if entry.recipe is None}
    quantized = {name: entry for name, entry in variants.items() if entry.recipe is not None}
    recipes = sorted({str(entry.recipe) for entry in quantized.values()})
    if recipe is None and not plain and len(recipes) > 1:
        raise UsageError(
            f"graph {graph!r} is quantized in several ways", expected="a recipe", got=", ".join(recipes), fix="--recipe"
        )
    if recipe is None:
        return plain or quantized
    return {name: entry for name, entry in quantized.items() if entry.recipe == recipe} or plain


def require_recipe(bundle: Bundle, recipe: Optional[str]) -> None:
    """UsageError if no graph of the bundle was quantized with this recipe; None passes."""
    known = {str(v.recipe) for graph in bundle.manifest.graphs.values() for v in graph.variants.values() if v.recipe}
    if recipe is not None and recipe not in known:
        raise UsageError(
            f"no graph of the bundle is quantized with recipe {recipe!r}",
            fix=closest(recipe, known) if known else "motedge quantize BUNDLE --recipe NAME --out BUNDLE2",
        )


def _require_runnable(capability: BackendCapability, bundle: Bundle, graph: str, variant: str) -> str:
    entry = bundle.variant(graph, variant)
    kind = (entry.dialect, entry.dtype)
    if kind not in capability.runs:
        raise UsageError(
            f"{capability.name} can't run variant {variant!r} of graph {graph!r}",
            expected=" or ".join("-".join(pair) for pair in capability.runs),
            got=variant,
            why=capability.refuses.get(kind),
            fix="leave the variant out to take the first that this backend runs, or choose another backend",
        )
    return variant


def _base(entry: Variant) -> str:
    return f"{entry.dialect}-{entry.dtype}"


def _capability(backend: str) -> BackendCapability:
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}", fix=closest(backend, BACKENDS))
    return BACKENDS[backend]
