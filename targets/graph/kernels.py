"""Which operators run as one kernel, and with that which values exist in memory at all.

Two ways of running a graph are modelled. `one_each`: every operator writes its result, as onnxruntime does for most.
`fused`: as TensorRT does. Elementwise operators, norms and rotations that follow each other are one kernel; those that
follow matrix work elementwise are its epilogue; attention is one kernel, its scores are never in memory, be it one
operator or spelled out. A value that is needed later than in its own kernel is written.

Which fusions TensorRT finds is not documented as a whole; what is modelled here is in its developer guide ("Types of
fusions": pointwise, reduction, multi-head attention) and in the architecture of its graph compiler. Values are counted
as written where it is in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from motedge.targets.graph.attention import spelled_attention
from motedge.targets.graph.model import Node
from motedge.targets.graph.operators import HEAVY, ROWS, STENCILS
from motedge.targets.graph.values import Values


@dataclass(frozen=True)
class Kernel:
    """Operators that run as one."""

    nodes: tuple[Node, ...]
    # Position of each in the graph
    positions: tuple[int, ...]
    # (Activation that has memory, bytes read), each once; inputs of the graph among them
    reads: tuple[tuple[str, int], ...]
    # Activations that it writes to memory
    writes: tuple[str, ...]
    # Initializers that it reads
    weights: tuple[str, ...]

    @property
    def heavy(self) -> tuple[Node, ...]:
        """Its matrix work: none, one operator, or the two products of an attention."""
        return tuple(node for node in self.nodes if node.op in HEAVY)


def one_each(values: Values) -> list[Kernel]:
    """Every operator its own kernel."""
    groups = [[index] for index, node in enumerate(values.graph.nodes) if not values.is_free(node)]
    return _kernels(values, groups)


def fused(values: Values, *, epilogues: bool = True) -> list[Kernel]:
    """Kernels as TensorRT makes them; without `epilogues`, matrix work always writes its own result."""
    return _kernels(values, _Fusion(values).groups(epilogues))


class _Fusion:
    """Works out which operators share a kernel; operators by their position."""

    def __init__(self, values: Values) -> None:
        self._values, self._graph = values, values.graph
        self._running = [i for i, node in enumerate(self._graph.nodes) if not values.is_free(node)]
        position = {id(node): index for index, node in enumerate(self._graph.nodes)}
        self._attention: dict[int, int] = {}
        for number, nodes in enumerate(spelled_attention(values)):
            self._attention.update({position[id(node)]: number for node in nodes})
        self._maker = {name: i for i in self._running for name in self._graph.nodes[i].outputs}
        self._takers: dict[str, list[int]] = {}
        for index in self._running:
            for name in self._sources(index):
                self._takers.setdefault(name, []).append(index)
        self._stage = self._stages()
        self._parent = {index: index for index in self._running}

    def groups(self, epilogues: bool) -> list[list[int]]:
        """Positions of the operators of each kernel."""
        for index, number in self._attention.items():
            first = next(other for other, same in self._attention.items() if same == number)
            if index in self._parent and first in self._parent:
                self._parent[self._find(index)] = self._find(first)
        light = [i for i in self._running if not self._is_heavy(i)]
        for index in light:
            for name in self._graph.nodes[index].outputs:
                if self._stays_inside(name, index):
                    self._join(index, self._takers[name])
        members = self._members()
        for index in reversed(self._running):
            if epilogues and self._is_heavy(index):
                self._take_epilogue(index, members)
        return list(self._members().values())

    def _members(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for index in self._running:
            found.setdefault(self._find(index), []).append(index)
        return found

    def _take_epilogue(self, index: int, members: dict[int, list[int]]) -> None:
        """What follows matrix work elementwise joins it, unless it follows other matrix work already."""
        for name in self._graph.nodes[index].outputs:
            if not self._stays_inside(name, index):
                continue
            after = {self._find(taker) for taker in self._takers[name]} - {self._find(index)}
            light = [i for root in after for i in members.get(root, ())]
            if light and not any(self._is_heavy(i) or self._graph.nodes[i].op in ROWS for i in light):
                own = members.pop(self._find(index))
                for root in after:
                    own = own + members.pop(root)
                self._join(index, light)
                members[self._find(index)] = own

    def _stays_inside(self, name: str, maker: int) -> bool:
        """Whether a value may live in registers: every taker is light and runs before the next matrix work."""
        takers = self._takers.get(name, ())
        if not takers or name in self._graph.outputs or self._graph.nodes[maker].op in STENCILS:
            return False
        return not any(
            self._is_heavy(taker) or self._graph.nodes[taker].op in STENCILS or self._stage[taker] > self._stage[maker]
            for taker in takers
        )

    def _is_heavy(self, index: int) -> bool:
        return self._graph.nodes[index].op in HEAVY or index in self._attention

    def _stages(self) -> dict[int, int]:
        """How much matrix work comes before an operator, on the longest way."""
        stage: dict[int, int] = {}
        for index in self._running:
            before = max((stage[self._maker[name]] for name in self._sources(index) if name in self._maker), default=0)
            inner = index in self._attention and any(
                self._maker.get(name) in self._attention for name in self._sources(index)
            )
            stage[index] = before + (self._is_heavy(index) and not inner)
        return stage

    def _sources(self, index: int) -> Iterable[str]:
        node = self._graph.nodes[index]
        names = (name for name in node.inputs if self._values.is_activation(name))
        return dict.fromkeys(root for name in names for root, _ in self._values.roots(name))

    def _find(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def _join(self, index: int, others: Iterable[int]) -> None:
        for other in others:
            self._parent[self._find(other)] = self._find(index)


def _kernels(values: Values, groups: Iterable[list[int]]) -> list[Kernel]:
    graph = values.graph
    owner = {name: number for number, group in enumerate(groups) for i in group for name in graph.nodes[i].outputs}
    needed = _needed(values, owner)
    made = []
    for number, group in enumerate(groups):
        nodes = tuple(graph.nodes[i] for i in group)
        reads: dict[str, int] = {}
        weights: dict[str, None] = {}
        for node in nodes:
            for name in filter(None, node.inputs):
                if name in values.constant:
                    weights.update(_stored(values, name))
                elif values.is_activation(name):
                    weights.update(_scales(values, name))
                    for root, size in values.roots(name):
                        if owner.get(root) != number:
                            reads[root] = max(size, reads.get(root, 0))
        writes = [name for node in nodes for name in node.outputs if values.is_activation(name) and name in needed]
        made.append(Kernel(nodes, tuple(group), tuple(reads.items()), tuple(writes), tuple(weights)))
    return sorted(made, key=lambda kernel: kernel.positions[-1])


def _needed(values: Values, owner: dict[str, int]) -> frozenset[str]:
    """Values that must be written: outputs of the graph, and what another kernel reads."""
    graph = values.graph
    needed = {root for name in graph.outputs if values.is_activation(name) for root, _ in values.roots(name)}
    for node in graph.nodes:
        if values.is_free(node):
            continue
        number = owner[node.outputs[0]]
        for name in node.inputs:
            if values.is_activation(name):
                needed.update(root for root, _ in values.roots(name) if owner.get(root) != number)
    return frozenset(needed)


def _scales(values: Values, name: str) -> dict[str, None]:
    """Initializers with which a dequantized activation is scaled: its kernel reads them."""
    node = values.producer.get(name)
    if node is None or not values.is_free(node):
        return {}
    found: dict[str, None] = {}
    for source in filter(None, node.inputs):
        if source in values.constant:
            found.update(_stored(values, source))
        elif values.is_activation(source):
            found.update(_scales(values, source))
    return found


def _stored(values: Values, name: str) -> dict[str, None]:
    """The initializers behind a weight; none for shapes and indices."""
    return {} if values.is_index(name) else dict.fromkeys(sorted(values.weights(name)))
