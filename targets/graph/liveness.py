"""How much memory activations take at once: a value lives from the kernel that writes it to the last that reads it.

Inputs and outputs of the graph are not counted: they lie in buffers that the caller binds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from motedge.targets.graph.kernels import Kernel
from motedge.targets.graph.values import Values

# Engines place values at multiples of this
_ALIGNMENT = 512


@dataclass(frozen=True)
class ActivationPeak:
    """The fullest moment."""

    bytes: int
    # Operator that runs then
    node: str
    # What lives then, largest first: (value, bytes)
    alive: tuple[tuple[str, int], ...]


def activation_peak(values: Values, kernels: Sequence[Kernel], *, in_place: bool) -> ActivationPeak:
    """The peak over a run of the kernels in the graph's order.

    Args:
        values: of the graph.
        kernels: of the graph.
        in_place: whether what works elementwise may write over an input that nobody reads afterwards.
    """
    graph = values.graph
    bound = frozenset((*graph.inputs, *graph.outputs))
    born: dict[str, int] = {}
    dies: dict[str, int] = {}
    for kernel in kernels:
        position = dict(zip(kernel.nodes, kernel.positions))
        for node in kernel.nodes:
            born.update({name: position[node] for name in node.outputs if name in kernel.writes})
        for name, _ in kernel.reads:
            dies[name] = max(kernel.positions[-1], dies.get(name, 0))
    for name, position_born in born.items():
        dies[name] = max(dies.get(name, 0), position_born)
    for kernel in kernels if in_place else ():
        _write_over(values, kernel, bound, born, dies)
    sizes = {name: _aligned(graph.tensors[name].bytes) for name in born if name not in bound}
    at, most = _fullest(sizes, born, dies)
    alive = sorted(((n, size) for n, size in sizes.items() if born[n] <= at <= dies[n]), key=lambda entry: -entry[1])
    return ActivationPeak(most, graph.nodes[at].name, tuple(alive))


def _write_over(
    values: Values, kernel: Kernel, bound: frozenset[str], born: dict[str, int], dies: dict[str, int]
) -> None:
    """Ends the life of an input where an output takes its place."""
    heavy = {
        root
        for node in kernel.heavy
        for name in node.inputs
        if values.is_activation(name)
        for root in (entry for entry, _ in values.roots(name))
    }
    tensors, taken = values.graph.tensors, set()
    for name in kernel.writes:
        if name in bound:
            continue
        for source, _ in kernel.reads:
            # What matrix work reads is needed until its last value is written
            fits = source not in bound and source not in taken and source not in heavy
            if fits and dies[source] == kernel.positions[-1] and tensors[source].bytes >= tensors[name].bytes:
                dies[source] = born[name] - 1
                taken.add(source)
                break


def _fullest(sizes: dict[str, int], born: dict[str, int], dies: dict[str, int]) -> tuple[int, int]:
    change: dict[int, int] = {}
    for name, size in sizes.items():
        if dies[name] >= born[name]:
            change[born[name]] = change.get(born[name], 0) + size
            change[dies[name] + 1] = change.get(dies[name] + 1, 0) - size
    now = most = at = 0
    for position in sorted(change):
        now += change[position]
        if now > most:
            most, at = now, position
    return at, most


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
