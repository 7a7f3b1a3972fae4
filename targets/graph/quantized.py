"""A recipe applied to a clean graph, in sizes alone: what `motedge quantize` will write, before it has.

The operators are those of motedge.quant.emission: a smoothing vector, Q and DQ of the activation (one pair for
projections that share input and scheme, and smooth nothing), DQ of the weight. A test holds sizes and work against
quantized graphs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from motedge.errors import BundleError
from motedge.quant.recipe import Recipe
from motedge.quant.schemes import INT4, NVFP4, Scheme
from motedge.targets.graph.model import Graph, Node, Tensor
from motedge.targets.graph.operators import DEQUANTIZE, MATMUL

# As motedge.quant.sites, which needs torch: projections inside the towers' layers
_SITE = re.compile(r"(layers\.\d+\..+)/MatMul")
_BLOCK_SCALE_BITS = 8


def sites(graph: Graph) -> list[str]:
    """Projections that may be quantized, by the names of their MatMuls, in the graph's order."""
    found = (_SITE.fullmatch(node.name) for node in graph.nodes if node.op == MATMUL)
    return [match.group(1) for match in found if match]


def apply_recipe(graph: Graph, recipe: Recipe) -> Graph:
    """The graph as the recipe makes it; the graph itself where the recipe leaves it alone.

    Raises:
        UsageError: a rule of the recipe matches no projection.
        BundleError: the graph is quantized already.
    """
    schemes = recipe.resolve(graph.name, sites(graph))
    if not schemes:
        return graph
    if any(node.op == DEQUANTIZE for node in graph.nodes):
        raise BundleError(f"graph {graph.name!r} is quantized already", fix="plan from an unquantized variant")
    return _Rewrite(graph, schemes).graph()


class _Rewrite:
    """Puts operators in front of the projections."""

    def __init__(self, graph: Graph, schemes: Mapping[str, Scheme]) -> None:
        self._old, self._schemes = graph, schemes
        self._tensors, self._nodes = dict(graph.tensors), list[Node]()
        self._initializers = set(graph.initializers)
        # (Input, scheme, site that has it alone) -> what the projection reads instead
        self._shared: dict[tuple[str, str, str], str] = {}

    def graph(self) -> Graph:
        """The result."""
        for node in self._old.nodes:
            match = _SITE.fullmatch(node.name)
            scheme = self._schemes.get(match.group(1)) if match and node.op == MATMUL else None
            if match is None or scheme is None:
                self._nodes.append(node)
                continue
            site = match.group(1)
            x, weight = self._activation(site, node.inputs[0], scheme), self._weight(site, node.inputs[1], scheme)
            self._nodes.append(Node(node.name, node.op, (x, weight), node.outputs, node.attributes))
        old = self._old
        return Graph(
            old.name,
            old.dtype,
            tuple(self._nodes),
            self._tensors,
            old.inputs,
            old.outputs,
            frozenset(self._initializers),
        )

    def _activation(self, site: str, name: str, scheme: Scheme) -> str:
        # A smoothing vector depends on the weight, so that each projection has its own
        key = (name, scheme.id, site if scheme.smoothing is not None else "")
        if key not in self._shared:
            x = self._old.tensors[name]
            value = name
            if scheme.smoothing is not None:
                vector = self._initial(Tensor(f"{site}.pre_quant_scale", x.shape[-1:], x.type))
                value = self._add("Mul", (value, vector), Tensor(f"{site}/Smooth:0", x.shape, x.type))
            if scheme.activation is not None:
                bits = 4 + _BLOCK_SCALE_BITS / 16 if scheme.activation == NVFP4 else None
                step = self._initial(Tensor(f"{site}.input_scale", (), x.type))
                codes = Tensor(f"{site}/QuantizeLinear:0", x.shape, scheme.activation, bits)
                value = self._add("QuantizeLinear", (value, step), codes)
                value = self._add(DEQUANTIZE, (value, step), Tensor(f"{site}/DequantizeLinear:0", x.shape, x.type))
            self._shared[key] = value
        return self._shared[key]

    def _weight(self, site: str, name: str, scheme: Scheme) -> str:
        old = self._old.tensors[name]
        # Block scales are counted with the codes: `weight_bits` holds them
        bits = scheme.weight_bits if scheme.weight in (INT4, NVFP4) else None
        self._tensors[name] = Tensor(name, old.shape, scheme.weight, bits)
        scales = old.shape[1:] if scheme.block is None and scheme.weight == "int8" else ()
        step = self._initial(Tensor(f"{site}.weight_scale", scales, old.type))
        return self._add(DEQUANTIZE, (name, step), Tensor(f"{site}/WeightDequantize:0", old.shape, old.type))

    def _initial(self, tensor: Tensor) -> str:
        self._tensors[tensor.name] = tensor
        self._initializers.add(tensor.name)
        return tensor.name

    def _add(self, op: str, inputs: tuple[str, ...], result: Tensor) -> str:
        self._tensors[result.name] = result
        self._nodes.append(Node(result.name.rpartition(":")[0], op, inputs, (result.name,)))
        return result.name
