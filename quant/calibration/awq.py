"""AWQ's search, by ModelOpt, one layer at a time.

ModelOpt runs the unquantized forward while it searches, so a layer's inputs do not depend on what was found for the
layers before it: layer by layer gives what the whole model at once would, in the memory of one layer, and can be
stopped after any.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motedge.quant.calibration.observers import require_modelopt
from motedge.quant.sites import module_sites

# Arguments of a layer after x
LayerInputs = tuple[Tensor, ...]
_log = logging.getLogger(__name__)


def search_layer(
    layer: nn.Module, prefix: str, wanted: Iterable[str], xs: Sequence[Tensor], rest: Sequence[LayerInputs]
) -> dict[str, Tensor]:
    """AWQ's scales of one layer's sites.

    Args:
        layer: the layer; as before afterwards.
        prefix: "layers.3.", what comes before the names of its sites.
        wanted: site names, some of which may belong to other layers.
        xs: inputs [N, H], one a forward.
        rest: the other arguments of each forward.

    Returns:
        Site -> fp32 [in], what the weight's rows are multiplied by.
    """
    quantization = require_modelopt()
    names = [name for name in wanted if name.startswith(prefix)]
    originals = {name: _swap(layer, name.removeprefix(prefix)) for name in names}

    def forward_loop(model: nn.Module) -> None:
        for x, others in zip(xs, rest, strict=True):
            model(x, *others)

    try:
        with torch.no_grad(), _quiet():
            quantization.quantize(layer, copy.deepcopy(quantization.INT4_AWQ_CFG), forward_loop)
        found = {}
        for name in names:
            quantizer: Any = layer.get_submodule(name.removeprefix(prefix)).input_quantizer
            found[name] = 1.0 / quantizer.pre_quant_scale.float().flatten().cpu()
        return found
    finally:
        for name, original in originals.items():
            _put(layer, name.removeprefix(prefix), original)


def walk_layers(
    layers: Sequence[nn.Module],
    xs: list[Tensor],
    rest: Callable[[int], Sequence[LayerInputs]],
    visit: Callable[[int, list[Tensor]], None],
) -> None:
    """Runs a tower's layers over several inputs; `visit` sees each layer's number and inputs before it runs."""
    for index, layer in enumerate(layers):
        visit(index, xs)
        if index + 1 < len(layers):
            with torch.no_grad():
                outputs = [layer(x, *others) for x, others in zip(xs, rest(index), strict=True)]
            xs = [output[-1] if isinstance(output, tuple) else output for output in outputs]


def _swap(layer: nn.Module, path: str) -> nn.Module:
    """Puts torch's own Linear, which ModelOpt knows, in place of ours; returns ours."""
    ours = layer.get_submodule(path)
    weight = ours.get_parameter("weight")
    inputs, outputs = weight.shape
    theirs = nn.Linear(inputs, outputs, bias=False, device="meta")
    theirs.weight = nn.Parameter(weight.t().contiguous(), requires_grad=False)
    _put(layer, path, theirs)
    return ours


def _put(layer: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(layer.get_submodule(parent), name, module)


@contextlib.contextmanager
def _quiet() -> Any:
    """Keeps ModelOpt's progress prints off stdout, which belongs to results."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        yield
    for line in filter(None, said.getvalue().splitlines()):
        _log.debug("modelopt: %s", line)


def layer_numbers(module: nn.Module, wanted: Iterable[str]) -> set[int]:
    """The layers to which the wanted sites belong."""
    known = module_sites(module)
    return {known[name][0].layer for name in wanted}
