"""One quantized variant of a graph: what it will be, and writing it.

The clean graph keeps its operators and names. Beside each named MatMul, Q/DQ operators are put; codes and scales go to
a data file of the variant's own, together with what stays unquantized.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from motedge.bundle import Bundle
from motedge.errors import BundleError, ExportError
from motedge.export.onnx_file import WEIGHTS_FOLDER, check_model
from motedge.export.weights import DTYPES
from motedge.files import atomic_open, atomic_path, copy_file, sha256_file
from motedge.quant.emission.checks import check_parameters
from motedge.quant.emission.data_file import DataFile
from motedge.quant.emission.lent import LentTensors
from motedge.quant.emission.nodes import (
    TRT_DOMAIN,
    TRT_VERSION,
    NodeList,
    emulate_nvfp4,
    quantize_nvfp4,
    quantize_static,
)
from motedge.quant.emission.weights import add_weight
from motedge.quant.numerics.activation import activation_scale
from motedge.quant.numerics.weight import quantize_weight
from motedge.quant.parameters import SiteParameters, parameters_digest
from motedge.quant.schemes import FP8, INT8, NVFP4, OPSET_FP4, quantized_opset
from motedge.quant.source import BundleWeights, best_variant

# FLOAT4E2M1 came with it
_IR_FP4 = 11
_KEPT = ".kept-fp32.data"
METADATA = "motedge.quantization"


@dataclass(frozen=True)
class Emission:
    """One quantized variant to be written."""

    graph: str
    # The unquantized variant that it follows, such as "fused-fp16"
    base: str
    # Id of the recipe
    recipe: str
    parameters: Mapping[str, SiteParameters]
    opset: int
    # Data files of the base that are taken as they are, names below graphs/weights/
    kept: tuple[str, ...]
    # ONNX file in the new bundle of a quantized graph with weights in common, written before; None: there is none
    lender: str | None = None

    @property
    def id(self) -> str:
        """`<dialect>-<dtype>-<recipe>`."""
        return f"{self.base}-{self.recipe}"

    @property
    def dtype(self) -> str:
        """ "fp32", "fp16" or "bf16"."""
        return self.base.rpartition("-")[2]

    @property
    def emulated(self) -> bool:
        """Whether NVFP4 is computed in standard operators, because onnxruntime has no such type."""
        used = any(known.scheme.weight == NVFP4 for known in self.parameters.values())
        return used and self.base == "primitive-fp32"

    @property
    def file(self) -> str:
        """Path in the bundle."""
        return f"graphs/{self.graph}.{self.id}.onnx"

    @property
    def data_file(self) -> str:
        """Path in the bundle of the variant's own data."""
        return f"graphs/{WEIGHTS_FOLDER}/{self.graph}.{self.id}.data"

    def weight_files(self, root: Path) -> tuple[str, ...]:
        """Paths in the bundle of all data that it refers to, once it has been written below `root`."""
        own = (self.data_file, *(f"graphs/{WEIGHTS_FOLDER}/{name}" for name in self.kept))
        model = onnx.load(str(root / self.file), load_external_data=False)
        named = {f"graphs/{location}" for tensor in model.graph.initializer if (location := _location(tensor))}
        return (*own, *sorted(named - set(own)))


def plan_emission(
    bundle: Bundle,
    graph: str,
    base: str,
    recipe: str,
    parameters: Mapping[str, SiteParameters],
    lender: Emission | None = None,
) -> Emission:
    """Plans one variant; reads the graph, no weights. `lender`: of the graph with weights in common, written before.

    Raises:
        BundleError: the graph, or the variant that is to be followed, is quantized already.
        ExportError: the graph has no such site, or its parameters make no sound graph (see `check_parameters`).
    """
    best_variant(bundle, graph)
    entry = bundle.variant(graph, base)
    if entry.recipe is not None:
        raise BundleError(
            f"variant {base!r} of graph {graph!r} is quantized already",
            expected="a variant that export wrote",
            got=f"recipe {entry.recipe}",
            fix="give the variant that it was made from",
        )
    known = {site.name: site for site in BundleWeights(bundle, graph, base).sites()}
    for name, wanted in parameters.items():
        if name not in known:
            raise ExportError(
                f"graph {graph!r} has no projection {name}", fix="calibrate again: the graph is another one"
            )
        check_parameters(known[name], wanted, DTYPES[entry.dtype])
    opset = quantized_opset(entry.opset, entry.dialect, entry.dtype, (p.scheme for p in parameters.values()))
    kept = tuple(Path(name).name for name in entry.weights if name.endswith(_KEPT))
    return Emission(graph, base, recipe, dict(parameters), opset, kept, lender.file if lender else None)


def write_quantized(bundle: Bundle, emission: Emission, root: Path) -> None:
    """Writes the ONNX file and its data below `root`, one tensor at a time; checks the result.

    Raises:
        ExportError: a weight that can't be quantized, or a projection without its MatMul.
        BundleError: a weight that holds NaN or infinity.
        HostError: the disk is full; nothing half-written is left.
    """
    model = onnx.load(str(bundle.path(bundle.variant(emission.graph, emission.base).file)), load_external_data=False)
    target = root / emission.data_file
    target.parent.mkdir(parents=True, exist_ok=True)
    lent = None if emission.lender is None else LentTensors(root / emission.lender)
    with atomic_open(target) as stream:
        data = DataFile(stream, f"{WEIGHTS_FOLDER}/{target.name}", lent)
        _rewrite(bundle, emission, model, data)
    for name in emission.kept:
        kept = root / f"graphs/{WEIGHTS_FOLDER}/{name}"
        known = bundle.manifest.files[f"graphs/{WEIGHTS_FOLDER}/{name}"]
        if not kept.is_file() or sha256_file(kept) != known.sha256:
            copy_file(bundle.path(f"graphs/{WEIGHTS_FOLDER}/{name}"), kept)
    onnx.helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, METADATA: _note(emission)})
    with atomic_path(root / emission.file) as partial:
        with open(partial, "wb") as stream:
            stream.write(model.SerializeToString(deterministic=True))
            stream.flush()
            os.fsync(stream.fileno())
        # Before it gets its name: a graph that fails never looks finished
        check_model(partial)


def emission_facts(emission: Emission, root: Path) -> dict[str, Any]:
    """Facts about a variant that has been written, for the manifest."""
    model = onnx.load(str(root / emission.file), load_external_data=False)
    schemes = collections.Counter(known.scheme.id for known in emission.parameters.values())
    return {
        "nodes": len(model.graph.node),
        "operators": dict(collections.Counter(node.op_type for node in model.graph.node).most_common()),
        "sites": dict(schemes),
        "emulated": emission.emulated,
        "weight_bytes": sum((root / name).stat().st_size for name in emission.weight_files(root)),
    }


def _rewrite(bundle: Bundle, emission: Emission, model: onnx.ModelProto, data: DataFile) -> None:
    graph = model.graph
    own = BundleWeights(bundle, emission.graph, emission.base)
    source = BundleWeights.open(bundle, emission.graph)
    nodes = NodeList(DTYPES[emission.dtype], emission.opset)
    ranges = _relu2_scales(graph)
    shared: dict[tuple[str, str], str] = {}
    waiting = dict(emission.parameters)
    for node in graph.node:
        site = node.name.removesuffix("/MatMul")
        known = waiting.pop(site, None) if node.name.endswith("/MatMul") else None
        if known is not None:
            scale = ranges.get(site.rpartition(".")[0], 1.0) ** 2 if site.endswith(".down_proj") else 1.0
            if known.input_amax is not None:
                known = dataclasses.replace(known, input_amax=known.input_amax * scale)
            weight = quantize_weight(site, source.tensor(f"{site}.weight"), known, nodes.dtype)
            key = (node.input[0], _activation_key(known))
            if key not in shared:
                shared[key] = _activation(nodes, node.input[0], site, known, own.shape(f"{site}.weight")[0], emission)
            dequantized = add_weight(nodes, data, site, weight, known.scheme, emulated=emission.emulated)
            node.input[:] = [shared[key], dequantized]
        nodes.nodes.append(node)
    if waiting:
        raise ExportError(f"graph {emission.graph!r} has no MatMul of {next(iter(waiting))}", fix="export again")
    quantized = {f"{site}.weight" for site in emission.parameters}
    rest = [
        _kept_initializer(tensor, own, data, emission) for tensor in graph.initializer if tensor.name not in quantized
    ]
    _replace(graph.node, nodes.nodes)
    # The weights' types are others now
    _replace(graph.value_info, [value for value in graph.value_info if value.name not in quantized])
    _replace(graph.initializer, [*rest, *nodes.initializers])
    _set_versions(model, emission, uses_trt=any(node.domain == TRT_DOMAIN for node in nodes.nodes))


def _activation(nodes: NodeList, x: str, site: str, known: SiteParameters, width: int, emission: Emission) -> str:
    """The site's input after smoothing and quantization; x itself where there is neither."""
    if known.pre_quant_scale is not None:
        factor = nodes.value(f"{site}.pre_quant_scale", known.pre_quant_scale.to(nodes.dtype))
        x = nodes.one("Mul", [x, factor], f"{site}/Smooth")
    kind = known.scheme.activation
    if kind is None:
        return x
    scale = activation_scale(known, nodes.dtype)
    if kind == FP8:
        return quantize_static(nodes, x, site, scale, torch.float8_e4m3fn)
    if kind == INT8:
        return quantize_static(nodes, x, site, scale, torch.int8)
    if emission.emulated:
        return emulate_nvfp4(nodes, x, site, scale, width)
    return quantize_nvfp4(nodes, x, site, scale)


def _activation_key(known: SiteParameters) -> str:
    """Equal where two projections of one input can share its quantization."""
    return f"{known.scheme.activation} {parameters_digest({'': dataclasses.replace(known, weight_amax=None)})}"


def _relu2_scales(graph: onnx.GraphProto) -> dict[str, float]:
    """MLP -> power of two by which an fp16 graph scales its activations before squaring them."""
    suffix = ".relu2_scale"
    return {
        tensor.name.removesuffix(suffix): float(numpy_helper.to_array(tensor).item())
        for tensor in graph.initializer
        if tensor.name.endswith(suffix)
    }


def _kept_initializer(tensor: TensorProto, own: BundleWeights, data: DataFile, emission: Emission) -> TensorProto:
    """An initializer that stays as it is; what lay in the base's own data file moves to the new one."""
    location = _location(tensor)
    if location is None or Path(location).name in emission.kept:
        return tensor
    return data.add(tensor.name, own.tensor(tensor.name))


def _location(tensor: TensorProto) -> str | None:
    """The data file of an external initializer, relative to the ONNX file; None for one inside it."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    return next(str(entry.value) for entry in tensor.external_data if entry.key == "location")


def _replace(field_of_proto: Any, values: list[Any]) -> None:
    # Copies first: the values may be elements of the field itself
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field_of_proto[:]
    field_of_proto.extend(copies)


def _set_versions(model: onnx.ModelProto, emission: Emission, *, uses_trt: bool) -> None:
    imports = {entry.domain: entry.version for entry in model.opset_import}
    imports[""] = emission.opset
    if uses_trt:
        imports[TRT_DOMAIN] = TRT_VERSION
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in imports.items())
    if emission.opset >= OPSET_FP4 and any(k.scheme.weight == NVFP4 for k in emission.parameters.values()):
        model.ir_version = max(model.ir_version, _IR_FP4)


def _note(emission: Emission) -> str:
    form = "NVFP4 emulated in standard operators" if emission.emulated else "quantized"
    return f"{emission.recipe}: {form}"
