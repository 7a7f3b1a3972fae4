"""The runtime's Engine protocol over our torch modules: the reference that graphs are checked against.

The same denoising loop that runs on engines runs on these, so that a reference tick differs in the graphs alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from motedge.bundle import Contract
from motedge.errors import ContractError
from motedge.runtime.engine import Array


class TorchContext:
    """Shapes and buffers of one caller; see motedge.runtime.engine.Context."""

    def __init__(self, module: nn.Module, contract: Contract, dims: Mapping[str, int], dtype: torch.dtype) -> None:
        self._module, self._contract, self._dtype = module, contract, dtype
        sizes = {**contract.sizes, **dims}
        self._inputs: dict[str, Array] = {}
        self._outputs = {spec.name: np.zeros(spec.shape(sizes), np.float32) for spec in contract.outputs}

    def set_input(self, name: str, value: Array) -> None:
        """Binds an array; it is read at `run`."""
        self._contract.tensor(name)
        self._inputs[name] = value

    def output(self, name: str) -> Array:
        """The output buffer."""
        self._contract.tensor(name)
        return self._outputs[name]

    def run(self) -> None:
        """One forward."""
        missing = [spec.name for spec in self._contract.inputs if spec.name not in self._inputs]
        if missing:
            raise ContractError(f"graph {self._contract.graph!r}: inputs are not bound", got=", ".join(missing))
        with torch.inference_mode():
            arguments = {spec.name: self._argument(spec.name, spec.dtype) for spec in self._contract.inputs}
            results = self._module(**arguments)
        for buffer, result in zip(
            self._outputs.values(), (results,) if torch.is_tensor(results) else results, strict=True
        ):
            np.copyto(buffer, result.float().cpu().numpy())

    def _argument(self, name: str, dtype: str) -> Tensor:
        like = next(self._module.parameters())
        value = torch.from_numpy(np.ascontiguousarray(self._inputs[name])).to(like.device)
        # Other inputs are fp32 in every variant, and cast inside
        return value.to(self._dtype) if dtype == "graph" else value


class TorchEngine:
    """A torch module as an engine; see motedge.runtime.engine.Engine. Arrays are fp32, whatever it computes in."""

    dtype = "fp32"

    def __init__(self, module: nn.Module, contract: Contract, compute: torch.dtype = torch.float32) -> None:
        """`compute`: the module's own type; it may lie on any torch device."""
        self.module, self.contract, self._compute = module, contract, compute

    def context(self, dims: Mapping[str, int]) -> TorchContext:
        """A context for these sizes; ContractError outside the profile."""
        self.contract.check_dims(dims)
        return TorchContext(self.module, self.contract, dims, self._compute)

    def close(self) -> None:
        """Nothing to free before the module itself is dropped."""
