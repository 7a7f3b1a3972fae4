"""Whether a graph of one bundle may take another's place in a built engine: all but its weights must be equal."""

from __future__ import annotations

import hashlib
from pathlib import Path

from motedge.bundle import Bundle
from motedge.errors import BundleError, MissingPackageError


def require_same_model(old: Bundle, new: Bundle) -> None:
    """BundleError unless both bundles are of one architecture and one shape set."""
    for what, before, after in (
        ("model configuration", old.manifest.model.get("config", {}), new.manifest.model.get("config", {})),
        ("shape set", old.manifest.shape_set, new.manifest.shape_set),
    ):
        differing = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        if differing:
            key = differing[0]
            raise BundleError(
                f"{new.root} has another {what} than {old.root}: {', '.join(differing[:4])}",
                expected=f"{key} = {before.get(key)!r}",
                got=f"{key} = {after.get(key)!r}",
                why="an engine is code for its shapes: only weights can be exchanged",
                fix="build new engines: motedge build",
            )


def require_same_graph(old: Bundle, new: Bundle, graph: str, variant: str) -> Path:
    """The new bundle's ONNX file, checked to be the old one but for its weights.

    Raises:
        BundleError: the new bundle lacks the variant, its files are damaged, or its graph is another one.
        MissingPackageError: the files differ and the package onnx is not here to say in what.
    """
    if variant not in new.graph(graph).variants:
        quantized = old.variant(graph, variant).recipe
        way = (
            f"motedge quantize {new.root} --recipe {quantized} --calibration DATA --out BUNDLE3, and --weights BUNDLE3"
            if quantized
            else f"motedge export --variants {variant}"
        )
        raise BundleError(
            f"{new.root} has no variant {variant!r} of graph {graph!r}",
            expected=f"what the engine was built from: {variant}",
            got=", ".join(new.graph(graph).variants),
            fix=way,
        )
    if old.contract(graph) != new.contract(graph):
        raise BundleError(f"graph {graph!r} has another contract in {new.root}", fix="build new engines: motedge build")
    model = new.check_variant(graph, variant)
    names = [bundle.variant(graph, variant).file for bundle in (old, new)]
    if old.manifest.files[names[0]].sha256 == new.manifest.files[names[1]].sha256:
        return model
    if structure(old.path(names[0])) != structure(model):
        raise BundleError(
            f"graph {graph!r} ({variant}) of {new.root} is not the one that the engine was built from",
            why="its operators, names or shapes differ, not its weights alone",
            fix="export both with the same version of motedge, or build new engines: motedge build",
        )
    return model


def structure(model: Path) -> str:
    """sha256 over an ONNX file without the values of its weights and where they lie.

    Values of whole numbers stay: they are shapes and axes, which an engine has in its code and no refit reaches.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError("onnx", extra="export", purpose="to compare two graphs") from error
    proto = onnx.load(str(model), load_external_data=False)
    lasting = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    for tensor in proto.graph.initializer:
        if tensor.data_type in lasting:
            continue
        bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        tensor.CopyFrom(bare)
    del proto.metadata_props[:]
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
