"""ModelOpt's max calibrators on the inputs of a module's sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from motedge.errors import ExportError, InternalError, MissingPackageError
from motedge.quant.sites import module_sites


class RangeObserver:
    """Collects the largest |x| of each channel of each site's input while the module runs."""

    def __init__(self, graph: str, module: nn.Module, sites: Iterable[str]) -> None:
        """`sites`: names; MissingPackageError without ModelOpt."""
        self._graph = graph
        # Where the run is, for messages
        self.place = "the first forward"
        known = module_sites(module)
        self._calibrators: dict[str, Any] = {}
        self._widths: dict[str, int] = {}
        self._hooks = []
        for name in sites:
            if name not in known:
                raise InternalError(f"graph {graph!r} has no site {name}")
            site, layer = known[name]
            self._calibrators[name], self._widths[name] = _max_calibrator(), site.inputs
            self._hooks.append(layer.register_forward_pre_hook(self._listen(name)))

    def close(self) -> None:
        """Stops listening."""
        for hook in self._hooks:
            hook.remove()

    def amax(self) -> dict[str, Tensor]:
        """fp32 [in] by site, on the CPU; only sites that have run."""
        found = {name: calibrator.compute_amax() for name, calibrator in self._calibrators.items()}
        return {name: value.float().flatten().cpu() for name, value in found.items() if value is not None}

    def restore(self, amax: Mapping[str, Tensor]) -> None:
        """Goes on from ranges that an earlier run found."""
        for name, value in amax.items():
            if name in self._calibrators:
                # The calibrator's own method, so that its state is whatever it makes of such an input
                self._calibrators[name].collect(value.reshape(1, -1))

    def _listen(self, name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach()
            if not torch.isfinite(x).all():
                raise ExportError(
                    f"the input of {name} holds NaN or infinity in {self._graph}, {self.place}",
                    why="a range can't be taken from it",
                    fix="check the weights (motedge checkpoint inspect --values) and the observation",
                )
            self._calibrators[name].collect(x.reshape(-1, x.shape[-1]))

        return hook


def require_ranges(graph: str, module: nn.Module, amax: Mapping[str, Tensor], sites: Iterable[str]) -> None:
    """ExportError for a site whose input was zero in every forward, or that never ran: the first one of the graph.

    What follows a dead projection is dead too, so that only the first says where to look.
    """
    wanted = set(sites)
    for name in filter(wanted.__contains__, module_sites(module)):
        if name not in amax or not bool(amax[name].max() > 0):
            raise ExportError(
                f"graph {graph!r}: the input of {name} was zero in all of calibration",
                why="it has no range to quantize to; a part of the model is dead, or the weights are damaged",
                fix='give this projection "none" in the recipe, or check the checkpoint',
            )


def require_modelopt() -> Any:
    """ModelOpt's quantization package; MissingPackageError without it.

    To be called before a tower is loaded: on import ModelOpt keeps exceptions of its own, and with their tracebacks
    everything that the frames on the stack hold.
    """
    try:
        import modelopt.torch.quantization as quantization
    except ImportError as error:
        raise MissingPackageError(error.name or "nvidia-modelopt", extra="quant", purpose="to calibrate") from error
    return quantization


def _max_calibrator() -> Any:
    return require_modelopt().calib.MaxCalibrator(num_bits=8, axis=-1, unsigned=False)
