"""Error of every quantized activation on held-out data, taken from the unquantized torch towers as they run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motedge.quant.fidelity.figures import ErrorSum
from motedge.quant.fidelity.weights import SiteError
from motedge.quant.numerics.activation import fake_quantize
from motedge.quant.parameters import SiteParameters
from motedge.quant.replay import BRANCHES, Forward
from motedge.quant.sites import module_sites

# Rows of an input whose error is measured in each forward, evenly spread; the largest value is of all rows
_ROWS = 512


def spread_forwards(forwards: Sequence[Forward], count: int) -> list[Forward]:
    """About `count` forwards: each step and branch at least once, and different requests by turns."""
    groups: dict[tuple[int, str], list[Forward]] = {}
    for forward in forwards:
        groups.setdefault((forward.step, forward.branch), []).append(forward)
    rounds = max(1, round(count / max(1, len(groups))))
    chosen = []
    for (step, branch), group in groups.items():
        first = step + BRANCHES.index(branch)
        chosen += [group[(first + turn) % len(group)] for turn in range(min(rounds, len(group)))]
    return chosen


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
        ratio = self._largest[error.site] / known.input_amax
        return dataclasses.replace(
            error,
            activation=self._errors[error.site].figures(),
            range_ratio=ratio if math.isfinite(ratio) else None,
            clipped=self._clipped[error.site] / seen,
        )

    def _listen(self, name: str) -> Any:
        known = self._parameters[name]

        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
            largest = _smoothed(x.abs().amax(0).float(), known, self._dtype).max()
            self._largest[name] = max(self._largest[name], float(largest))
            x = x[:: max(1, len(x) // _ROWS)].float()
            smoothed = _smoothed(x, known, self._dtype)
            self._errors[name].add(fake_quantize(x, known, self._dtype).cpu().numpy(), smoothed.cpu().numpy())
            magnitude = smoothed.abs()
            self._clipped[name] += int((magnitude > (known.input_amax or 0.0)).sum())
            self._seen[name] += magnitude.numel()

        return hook


def _smoothed(x: Tensor, parameters: SiteParameters, dtype: torch.dtype) -> Tensor:
    """x [..., in] as it is before it is quantized."""
    return x if parameters.pre_quant_scale is None else x * parameters.pre_quant_scale.to(dtype).to(x)
