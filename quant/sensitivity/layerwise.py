"""Towers run from a layer on. The layers before a quantized site compute what they always do, so they run once.

The state x of each forward is rolled on from layer to layer as the search goes up the tower: one x a forward is in
memory, and a search over all layers runs each layer's predecessors once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motedge.export.modules.gen import GenStep
from motedge.export.modules.und import UndPrefill
from motedge.runtime.engine import Array

# The input of gen_step in the graph's own type; the others are fp32 in every variant
_IN_OWN_TYPE = "und_kv"
# Inputs of GenStep.back
_BACK = ("vision_noisy", "action_noisy", "action_out_weight", "action_out_bias")


@dataclass
class _GenState:
    inputs: dict[str, Tensor]
    cos: Tensor
    sin: Tensor
    # After front
    first: Tensor
    # Input of the layer at which the tower stands
    x: Tensor


class LayerwiseGen:
    """The generator on a set of forwards."""

    def __init__(self, module: GenStep, forwards: Sequence[Mapping[str, Array]], dtype: torch.dtype) -> None:
        """`forwards`: the graph's inputs by name; `dtype`: the type that the module computes in."""
        self._module, self.layers = module, len(module.layers)
        self._at = 0
        device = next(module.parameters()).device
        shared: dict[int, Tensor] = {}
        with torch.inference_mode():
            self._states = [self._begin(inputs, dtype, device, shared) for inputs in forwards]

    def __len__(self) -> int:
        return len(self._states)

    def und_kv(self, number: int) -> Tensor:
        """K and V that a forward was given, [L, 2, K, U, D]."""
        return self._states[number].inputs[_IN_OWN_TYPE]

    @torch.inference_mode()
    def stand_at(self, layer: int) -> None:
        """Rolls every forward on to a layer's input; goes back to the front for an earlier layer.

        The module must be unquantized meanwhile.
        """
        if layer < self._at:
            self._at = 0
            for state in self._states:
                state.x = state.first
        for index in range(self._at, layer):
            for state in self._states:
                state.x = self._layer(index, state.x, state, state.inputs[_IN_OWN_TYPE])
        self._at = layer

    @torch.inference_mode()
    def finish(self, number: int, und_kv: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the rest of the tower as the module is now.

        Args:
            number: of the forward.
            und_kv: other K and V, [L, 2, K, U, D], the same as before below the layer at which the tower stands.

        Returns:
            Velocities fp32 of vision [C, T, h, w] and action [A, Z].
        """
        state = self._states[number]
        kv = state.inputs[_IN_OWN_TYPE] if und_kv is None else und_kv
        x = state.x
        for index in range(self._at, self.layers):
            x = self._layer(index, x, state, kv)
        vision, action = self._module.back(x, *(state.inputs[name] for name in _BACK))
        return vision, action

    def _layer(self, index: int, x: Tensor, state: _GenState, und_kv: Tensor) -> Tensor:
        result: Tensor = self._module.layers[index](x, state.cos, state.sin, und_kv[index : index + 1])
        return result

    def _begin(
        self, inputs: Mapping[str, Array], dtype: torch.dtype, device: torch.device, shared: dict[int, Tensor]
    ) -> _GenState:
        tensors = {}
        for name, value in inputs.items():
            if id(value) not in shared:
                shared[id(value)] = own_tensor(value, dtype if name == _IN_OWN_TYPE else torch.float32, device)
            tensors[name] = shared[id(value)]
        fed = {name: value for name, value in tensors.items() if name not in (_IN_OWN_TYPE, *_BACK[2:])}
        first, cos, sin = self._module.front(**fed)
        return _GenState(tensors, cos, sin, first, first)


class LayerwiseUnd:
    """The reasoner on a set of prompts."""

    def __init__(self, module: UndPrefill, prompts: Sequence[tuple[Array, Array, Array]]) -> None:
        """`prompts`: embeddings [S, H], cos and sin [S, R], fp32."""
        self._module, self.layers = module, len(module.layers)
        self._at = 0
        device = next(module.parameters()).device
        with torch.inference_mode():
            self._fronts = [
                module.front(*(own_tensor(value, torch.float32, device) for value in prompt)) for prompt in prompts
            ]
        self._x = [front[0] for front in self._fronts]

    def __len__(self) -> int:
        return len(self._x)

    @torch.inference_mode()
    def stand_at(self, layer: int) -> None:
        """As LayerwiseGen.stand_at."""
        if layer < self._at:
            self._at, self._x = 0, [front[0] for front in self._fronts]
        for index in range(self._at, layer):
            for number in range(len(self)):
                self._x[number] = self._layer(index, number, self._x[number])[1]
        self._at = layer

    @torch.inference_mode()
    def finish(self, number: int) -> Tensor:
        """K and V of one prompt as the module is now, from the layer at which it stands on: [L - layer, 2, K, S, D]."""
        pairs, x = [], self._x[number]
        for index in range(self._at, self.layers):
            kv, x = self._layer(index, number, x)
            pairs.append(kv)
        return torch.cat(pairs, dim=0)

    def _layer(self, index: int, number: int, x: Tensor) -> tuple[Tensor, Tensor]:
        _, cos, sin = self._fronts[number]
        kv, *rest = self._module.layers[index](x, cos, sin)
        return kv, rest[0] if rest else x


def own_tensor(value: Array, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A copy in torch's own memory: its alignment, and with it the last bits of a product, is the same everywhere."""
    return torch.from_numpy(value).to(dtype=dtype, device=device, copy=True)
