"""Error of every quantized activation on held-out data, taken from the unquantized torch towers as they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motedge.quant.fidelity.figures import ErrorSum
from motedge.quant.fidelity.weights import SiteError
from motedge.quant.numerics.activation import fake_quantize
from motedge.quant.parameters import SiteParameters
from motedge.quant.sites import module_sites

# Rows of an input that are looked at in each forward, evenly spread
_ROWS = 512


class ActivationObserver:
    """Listens to the inputs of a module's sites."""

    def __init__(self, module: nn.Module, parameters: Mapping[str, SiteParameters], dtype: torch.dtype) -> None:
        self._parameters, self._dtype = parameters, dtype
        self._errors = {name: ErrorSum() for name in parameters}
        self._largest = dict.fromkeys(parameters, 0.0)
        self._clipped = dict.fromkeys(parameters, 0)
        self._seen = dict.fromkeys(parameters, 0)
        sites = module_sites(module)
        self._hooks = [
            sites[name][1].register_forward_pre_hook(self._listen(name))
            for name, known in parameters.items()
            if known.scheme.activation
        ]

    def close(self) -> None:
        """Stops listening."""
        for hook in self._hooks:
            hook.remove()

    def complete(self, errors: Sequence[SiteError]) -> list[SiteError]:
        """The given errors with what was heard."""
        return [self._completed(error) for error in errors]

    def _completed(self, error: SiteError) -> SiteError:
        known, seen = self._parameters.get(error.site), self._seen.get(error.site, 0)
        if known is None or not seen or not known.input_amax:
            return error
        return dataclasses.replace(
            error,
            activation=self._errors[error.site].figures(),
            range_ratio=self._largest[error.site] / known.input_amax,
            clipped=self._clipped[error.site] / seen,
        )

    def _listen(self, name: str) -> Any:
        known = self._parameters[name]

        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            x = x[:: max(1, len(x) // _ROWS)]
            smoothed = x if known.pre_quant_scale is None else x * known.pre_quant_scale.to(self._dtype).to(x)
            self._errors[name].add(fake_quantize(x, known, self._dtype).cpu().numpy(), smoothed.cpu().numpy())
            magnitude = smoothed.abs()
            self._largest[name] = max(self._largest[name], float(magnitude.max()))
            self._clipped[name] += int((magnitude > (known.input_amax or 0.0)).sum())
            self._seen[name] += magnitude.numel()

        return hook
