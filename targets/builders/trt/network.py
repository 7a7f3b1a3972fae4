"""ONNX file -> network and optimisation profile, with refusals in our words: graph, node, tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from motedge.bundle import Contract
from motedge.errors import BundleError, MotedgeError
from motedge.targets.builders.builder import BuildError, BuildRequest
from motedge.targets.builders.trt.library import Library

_DYNAMIC = -1
# Graph -> letter that is 1 in most of its runs, and the range of a profile for them. TensorRT-RTX 1.7.1 has no kernel
# for attention of one row where that is fixed, and has one where it may be two
_SINGLE = {"und": ("S", (1, 1, 2))}


def create_network(library: Library, builder: Any) -> Any:
    """A strongly typed network: a layer has the types that the graph gives it, and no other."""
    flags = 0
    names = library.api.NetworkDefinitionCreationFlag
    if library.row.explicit_batch:
        flags |= 1 << int(names.EXPLICIT_BATCH)
    if library.row.strongly_typed == "set":
        flags |= 1 << int(names.STRONGLY_TYPED)
    return builder.create_network(flags)


def parse_model(library: Library, parser: Any, request: BuildRequest) -> None:
    """Reads the ONNX file and its external data into the parser's network.

    By path and not as bytes: from 10.13 on the parser maps external data, so that weights are not held a second time.

    Raises:
        BuildError: the parser refused; names the node.
    """
    if parser.parse_from_file(str(request.model)):
        return
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    where = [_node_of(error) for error in found]
    raise BuildError(
        f"{library.name} {library.version} can't read graph {request.graph!r} ({request.model.name})",
        expected=f"operators and types of opset <= {library.row.max_opset} that it knows",
        got="; ".join(f"{node}: {error.desc()}" if node else error.desc() for node, error in zip(where, found)),
        fix="take a variant of another dialect or recipe: motedge plan says which are legal",
    )


def add_profiles(builder: Any, network: Any, config: Any, request: BuildRequest) -> None:
    """Adds the optimisation profiles: the contract's, and one for the runs that a graph spends most of its time on.

    Of und those are single tokens, for which kernels that were chosen for a prompt are slow. Weights are shared.

    Raises:
        BundleError: the graph's inputs are not those of its contract.
        BuildError: the library refuses the shapes.
    """
    contract = request.contract
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    names, wanted = {tensor.name for tensor in inputs}, {spec.name for spec in contract.inputs}
    if names != wanted:
        raise _mismatch(request, "inputs", ", ".join(sorted(wanted)), ", ".join(sorted(names)))
    ranges = [contract.profile]
    if request.graph in _SINGLE:
        letter, span = _SINGLE[request.graph]
        ranges.append({**contract.profile, letter: span})
    for spans in ranges:
        profile = _make_profile(builder, inputs, request, spans)
        if dynamic_letters(contract):
            config.add_optimization_profile(profile)


def _make_profile(
    builder: Any, inputs: Sequence[Any], request: BuildRequest, ranges: Mapping[str, tuple[int, int, int]]
) -> Any:
    """Minimum, optimum and maximum of every dynamic input."""
    contract = request.contract
    profile = builder.create_optimization_profile()
    sizes = [{**contract.sizes, **{name: span[i] for name, span in ranges.items()}} for i in range(3)]
    for tensor in inputs:
        spans = [contract.tensor(tensor.name).shape(size) for size in sizes]
        shape = tuple(tensor.shape)
        _check_shape(request, tensor.name, shape, spans)
        if _DYNAMIC in shape:
            try:
                profile.set_shape(tensor.name, *spans)
            except (ValueError, TypeError, RuntimeError) as error:
                raise BuildError(
                    f"the profile of {tensor.name!r} in graph {request.graph!r} is refused",
                    got=f"{spans}: {error}",
                ) from error
    return profile


def dynamic_letters(contract: Contract) -> tuple[str, ...]:
    """Letters whose size varies within the profile."""
    return tuple(name for name, (low, _, high) in contract.profile.items() if low != high)


def refusal(library: Library, request: BuildRequest, errors: list[str]) -> MotedgeError:
    """Why the builder gave no engine, from its own log."""
    text = "; ".join(dict.fromkeys(errors)) or "it gave no reason"
    what = f"{library.name} {library.version} built no engine of graph {request.graph!r} ({request.variant})"
    if "HW-specific datatypes" in text:
        return BuildError(
            what,
            got=text,
            why=f"compute capability {', '.join(request.capabilities)} lacks a number format of this recipe",
            fix="take another recipe: motedge targets show says which formats the device has",
        )
    return BuildError(what, got=text, fix="try another variant or recipe; --verbose shows the library's log")


def too_little_memory(request: BuildRequest, errors: list[str]) -> BuildError:
    """The library ran out of memory by its own account."""
    return BuildError(
        f"graph {request.graph!r} ({request.variant}) ran out of memory while building",
        got="; ".join(errors),
        fix="close other programs, give --workspace-gb or --optimization-level 0, or take a smaller recipe",
    )


def _check_shape(request: BuildRequest, name: str, shape: tuple[int, ...], spans: list[tuple[int, ...]]) -> None:
    for size in spans:
        same = len(shape) == len(size) and all(a in (_DYNAMIC, b) for a, b in zip(shape, size))
        if not same:
            raise _mismatch(request, f"shape of {name!r}", str(size), str(shape))


def _mismatch(request: BuildRequest, what: str, expected: str, got: str) -> BundleError:
    return BundleError(
        f"graph {request.graph!r} ({request.model.name}) is not as its contract says: {what}",
        expected=expected,
        got=got,
        fix="export again from the checkpoint",
    )


def _node_of(error: Any) -> str:
    """Name and operator of the node that an error is about, as far as this version tells."""
    parts = [str(getattr(error, name)()) for name in ("node_name", "node_operator") if hasattr(error, name)]
    return " ".join(part for part in parts if part)
