"""Holds an engine's tensors against its graph's contract: names, directions, types, shapes, places and profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motedge.bundle import Contract, TensorSpec
from motedge.errors import BundleError, ContractError
from motedge.runtime.backends.tensorrt.library import Library

Shape = tuple[int, ...]
# Names of DataType
_TYPES: Mapping[str, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int64": "INT64"}
_DYNAMIC = -1


@dataclass(frozen=True)
class EngineTensors:
    """What of the engine's tensors is needed to run it."""

    # Inputs with a size that the caller chooses
    dynamic: tuple[str, ...]
    # Of each profile: input -> (smallest, largest) shape; dynamic inputs alone
    profiles: tuple[Mapping[str, tuple[Shape, Shape]], ...]

    def profile_for(self, contract: Contract, shapes: Mapping[str, Shape]) -> int:
        """The number of the narrowest profile that covers the shapes; 0 where nothing is dynamic.

        Raises:
            ContractError: none does.
        """
        fitting = [
            index
            for index, profile in enumerate(self.profiles)
            if all(_within(shapes[name], *profile[name]) for name in self.dynamic)
        ]
        if not fitting:
            profile = self.profiles[-1]
            name = next((n for n in self.dynamic if not _within(shapes[n], *profile[n])), self.dynamic[0])
            ranges = " or ".join(f"{list(p[name][0])} to {list(p[name][1])}" for p in self.profiles)
            raise ContractError(
                f"the engine of graph {contract.graph!r} was built for other shapes of {name!r}",
                expected=ranges,
                got=list(shapes[name]),
                fix="build it again from a bundle whose shape set has room, or shorten the request",
            )
        return min(fitting, key=lambda index: sum(_count(high) for _, high in self.profiles[index].values()))


def read_tensors(engine: Any, library: Library, contract: Contract, dtype: str, file: str) -> EngineTensors:
    """Checks every tensor, and that the profiles reach as far as the contract.

    Args:
        engine: has the ICudaEngine as `raw`, which no frame of a failure's traceback shall hold on to.
        library: that loaded it.
        contract: of the graph.
        dtype: the graph's own type.
        file: name of the engine's file.

    Raises:
        BundleError: it is the engine of another graph, variant or range of shapes.
    """
    modes, reader = library.api.TensorIOMode, _Reader(engine, library, contract, dtype, file)
    for mode, specs in ((modes.INPUT, contract.inputs), (modes.OUTPUT, contract.outputs)):
        expected = {spec.name for spec in specs}
        got = {name for name in reader.names() if engine.raw.get_tensor_mode(name) == mode}
        if expected != got:
            which = "inputs" if mode == modes.INPUT else "outputs"
            raise reader.mismatch(which, ", ".join(sorted(expected)), ", ".join(sorted(got)) or "none")
    for spec in (*contract.inputs, *contract.outputs):
        reader.check_place(spec.name)
        reader.check_shape(spec)
        reader.check_type(spec)
    dynamic = tuple(s.name for s in contract.inputs if _DYNAMIC in tuple(engine.raw.get_tensor_shape(s.name)))
    tensors = EngineTensors(dynamic, tuple(reader.profiles(dynamic)))
    for corner in (0, 2):
        sizes = {**contract.sizes, **{letter: span[corner] for letter, span in contract.profile.items()}}
        shapes = {spec.name: spec.shape(sizes) for spec in contract.inputs}
        try:
            tensors.profile_for(contract, shapes)
        except ContractError as error:
            raise reader.mismatch("range of shapes", f"up to {error.got}", str(error.expected)) from error
    return tensors


class _Reader:
    """Asks an engine about its tensors, and says what differs."""

    def __init__(self, engine: Any, library: Library, contract: Contract, dtype: str, file: str) -> None:
        self.engine, self.library, self.contract, self.dtype, self.file = engine, library, contract, dtype, file

    def names(self) -> list[str]:
        return [self.engine.raw.get_tensor_name(index) for index in range(self.engine.raw.num_io_tensors)]

    def check_place(self, name: str) -> None:
        api = self.library.api
        if self.engine.raw.is_shape_inference_io(name) or (
            self.engine.raw.get_tensor_location(name) != api.TensorLocation.DEVICE
        ):
            raise self.mismatch(f"place of {name!r}", "the GPU's memory", "the host's: shapes depend on its values")
        if self.engine.raw.get_tensor_format(name) != api.TensorFormat.LINEAR:
            raise self.mismatch(
                f"layout of {name!r}", "row-major, without gaps", str(self.engine.raw.get_tensor_format(name))
            )

    def check_shape(self, spec: TensorSpec) -> None:
        shape = tuple(self.engine.raw.get_tensor_shape(spec.name))
        fixed = {**self.contract.sizes, **{k: v[0] for k, v in self.contract.profile.items() if v[0] == v[2]}}
        expected = [fixed.get(dim, _DYNAMIC) if isinstance(dim, str) else dim for dim in spec.dims]
        if len(shape) != len(expected) or any(
            b != _DYNAMIC and a not in (b, _DYNAMIC) for a, b in zip(shape, expected)
        ):
            raise self.mismatch(f"shape of {spec.name!r}", str(expected), str(list(shape)))

    def check_type(self, spec: TensorSpec) -> None:
        name = _TYPES[self.dtype if spec.dtype == "graph" else spec.dtype]
        found = self.engine.raw.get_tensor_dtype(spec.name).name
        if found != name:
            raise self.mismatch(f"type of {spec.name!r}", name, found)

    def profiles(self, dynamic: tuple[str, ...]) -> list[Mapping[str, tuple[Shape, Shape]]]:
        found: list[Mapping[str, tuple[Shape, Shape]]] = []
        for index in range(self.engine.raw.num_optimization_profiles):
            spans = {name: self.engine.raw.get_tensor_profile_shape(name, index) for name in dynamic}
            found.append({name: (tuple(span[0]), tuple(span[2])) for name, span in spans.items()})
        return found

    def mismatch(self, what: str, expected: str, got: str) -> BundleError:
        return BundleError(
            f"{self.file} is not an engine of graph {self.contract.graph!r} as its contract says: {what}",
            expected=expected,
            got=got,
            fix="build it again: motedge build BUNDLE --target TARGET",
        )


def _within(shape: Shape, low: Shape, high: Shape) -> bool:
    return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high))


def _count(shape: Shape) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
