"""Memory of a policy on a target: engines, values between operators, K and V of the prompts, buffers, the libraries.

Engines of one policy run one after the other, so that their activations share one memory of the largest's size, which
holds for each context of gen_step too (one a guidance branch). onnxruntime keeps an arena a session: there they add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from motedge.bundle import Bundle, Contract
from motedge.targets.catalog import Target
from motedge.targets.graph.model import BITS
from motedge.targets.graph.sizes import MAX, sizes_at
from motedge.targets.plan.assumptions import HOST_PROCESS, LOADING_COPIES, PAGE_BYTES, context_bytes
from motedge.targets.plan.model import DEVICE, HOST, GraphPlan, MemoryItem, MemoryPlan

_GB = 1e9
_SEEN = "TensorRT-RTX reserved up to 82 MB more (benchmarks/results/plan_scale.json)"
UND_KV, PREFILL, GENERATOR = "und_kv", "und_prefill", "gen_step"
_REASONER = ("und", "vision_encoder")


def plan_memory(
    bundle: Bundle,
    target: Target,
    graphs: Sequence[GraphPlan],
    *,
    branches: int,
    keep_prefill: bool = True,
    stream_weights: bool = False,
) -> MemoryPlan:
    """The memory plan.

    Args:
        bundle: for contracts and tables.
        target: the device.
        graphs: planned graphs of the policy.
        branches: prompts whose K and V are kept: 2 with guidance.
        keep_prefill: whether und_prefill's engine stays loaded once the prompts are known.
        stream_weights: whether gen_step's weights lie in the host's memory and are copied as they are needed; two
            layers' worth of them are then on the device.
    """
    cpu = target.compute_capability is None
    resident = [graph for graph in graphs if keep_prefill or graph.graph != PREFILL]
    place = HOST if cpu else DEVICE
    items = [_engine(graph, place, stream_weights and graph.graph == GENERATOR, bundle) for graph in resident]
    if stream_weights:
        items += [
            MemoryItem("gen_step's weights", g.weight_bytes, HOST, "streamed") for g in resident if g.graph == GENERATOR
        ]
    items += _activations(resident, cpu, place)
    items += _prompts(bundle, graphs, branches, place)
    items += _buffers(bundle, branches, target, {graph.graph: graph.dtype for graph in graphs})
    context = context_bytes(target)
    note = f"{context.mark}: {context.source}"
    items.append(
        MemoryItem("CUDA context and libraries" if not cpu else "engine library", int(context.value or 0), place, note)
    )
    items.append(
        MemoryItem(
            "runtime on the host", int(HOST_PROCESS.value or 0), HOST, f"{HOST_PROCESS.mark}: {HOST_PROCESS.source}"
        )
    )
    items += _table(bundle, branches)
    return _judged(target, items, resident, int(context.value or 0))


def _judged(target: Target, items: Sequence[MemoryItem], resident: Sequence[GraphPlan], context: int) -> MemoryPlan:
    counted = [item.bytes for item in items if target.unified_memory or item.place == DEVICE]
    loading = 0
    if target.unified_memory and target.compute_capability is not None:
        host = sum(item.bytes for item in items if item.name == "runtime on the host")
        loading = _loading([graph.engine_bytes for graph in resident]) + context + host
    needed, available = max(sum(counted), loading), target.available_gb.value
    limit = None if available is None else int(available * _GB)
    fits = None if limit is None else needed <= limit
    return MemoryPlan(tuple(items), loading, needed, limit, target.available_gb.mark, fits)


def _loading(engines: Sequence[int]) -> int:
    """Fullest moment while engines are loaded one after the other, largest first."""
    loaded = most = 0
    for size in sorted(engines, reverse=True):
        most = max(most, int(loaded + size + (LOADING_COPIES.value or 0) * size))
        loaded += size
    return most


def _engine(graph: GraphPlan, place: str, streamed: bool, bundle: Bundle) -> MemoryItem:
    if not streamed:
        return MemoryItem(f"{graph.graph} engine", graph.engine_bytes, place, "weights as stored, kernels")
    layers = int(bundle.contract(GENERATOR).sizes.get("L", 1))
    size = graph.engine_bytes - graph.weight_bytes + 2 * graph.weight_bytes // layers
    return MemoryItem(f"{graph.graph} engine", size, place, "kernels, and the weights of two layers at a time")


def _activations(graphs: Sequence[GraphPlan], cpu: bool, place: str) -> list[MemoryItem]:
    sizes = {graph.graph: graph.activation_bytes for graph in graphs}
    if cpu:
        note = "each session has an arena of its own; every operator writes its result"
        return [MemoryItem("activations", sum(sizes.values()), place, note)]
    items = []
    # The reasoner's engines run beside the policy's, in a memory of their own
    for name, part in (
        ("activations and workspace", [graph for graph in sizes if graph not in _REASONER]),
        ("the reasoner's activations", [graph for graph in sizes if graph in _REASONER]),
    ):
        if part:
            largest = max(part, key=lambda graph: sizes[graph])
            note = f"one memory for all engines, as large as {largest} needs at the end of its profile; {_SEEN}"
            items.append(MemoryItem(name, sizes[largest], place, note))
    return items


def _prompts(bundle: Bundle, graphs: Sequence[GraphPlan], branches: int, place: str) -> list[MemoryItem]:
    generator = next((graph for graph in graphs if graph.graph == GENERATOR), None)
    if generator is None:
        return []
    contract = bundle.contract(GENERATOR)
    sizes = sizes_at(contract, MAX)
    kept = branches * tensor_bytes(contract, UND_KV, sizes, generator.dtype)
    note = f"{branches} prompt{'s' * (branches != 1)} of up to {sizes['U']} tokens"
    return [MemoryItem("K and V of the prompts", kept, place, note)]


def _buffers(bundle: Bundle, branches: int, target: Target, dtypes: Mapping[str, str]) -> list[MemoryItem]:
    """Inputs and outputs of every graph, of these types; gen_step's angles and outputs once a branch."""
    total, on_host = 0, target.compute_capability is None
    for graph in bundle.manifest.graphs:
        contract = bundle.contract(graph)
        sizes = sizes_at(contract, MAX, host=on_host)
        for spec in (*contract.inputs, *contract.outputs):
            if spec.name != UND_KV:
                twice = graph == GENERATOR and (spec in contract.outputs or spec.name in ("cos", "sin"))
                dtype = dtypes.get(graph, "fp32")
                total += tensor_bytes(contract, spec.name, sizes, dtype) * (branches if twice else 1)
    host = MemoryItem("input and output buffers, host", total, HOST, "arrays of the loop")
    if on_host:
        return [host]
    return [MemoryItem("input and output buffers", total, DEVICE, "what engines are bound to"), host]


def _table(bundle: Bundle, branches: int) -> list[MemoryItem]:
    table = bundle.manifest.tables.get("embed_tokens")
    if table is None or PREFILL not in bundle.manifest.graphs:
        return []
    tokens = bundle.contract(PREFILL).profile["S"][2]
    row = int(table["shape"][1]) * BITS[str(table["dtype"])] // 8
    whole = bundle.manifest.files[str(table["file"])].bytes
    size = min(branches * tokens * -(-row // PAGE_BYTES) * PAGE_BYTES, whole)
    return [MemoryItem("embedding table", size, HOST, f"mapped: rows of the prompts, of {whole / _GB:.2f} GB on disk")]


def tensor_bytes(contract: Contract, name: str, sizes: dict[str, int], dtype: str) -> int:
    """Bytes of an input or output; `dtype` is the graph's own type."""
    spec = contract.tensor(name)
    count = 1
    for size in spec.shape(sizes):
        count *= size
    return count * BITS[dtype if spec.dtype == "graph" else spec.dtype] // 8
