"""Weights that lie in the files as direction and length, read as one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from motedge.checkpoint.tensor_store import TensorStore
from motedge.errors import CheckpointError

if TYPE_CHECKING:
    import torch


class WeightNormStore(TensorStore):
    """A component whose convolutions have `weight_g` and `weight_v`; `tensor` and `finite_tensor` also take `weight`.

    As torch.nn.utils.weight_norm defines it: weight = weight_g * weight_v / |weight_v|, with one length for each slice
    along the first dimension.
    """

    def tensor(self, key: str) -> torch.Tensor:
        """A stored tensor, or a joined weight in fp32.

        Raises:
            CheckpointError: no such tensor, one of a dtype that torch has no name for, or a direction of length 0.
        """
        if key in self or f"{key}_v" not in self:
            return super().tensor(key)
        direction, length = super().tensor(f"{key}_v").float(), super().tensor(f"{key}_g").float()
        size = direction.flatten(1).norm(dim=1).reshape(length.shape)
        if bool((size == 0).any()):
            raise CheckpointError(
                f"a weight has no direction: {key}_v",
                expected="no slice that is all zero",
                got=f"{int((size == 0).sum())} of {size.numel()}",
                why="it is divided by its length",
                fix="fetch the checkpoint again",
            )
        joined: torch.Tensor = direction * (length / size)
        return joined
