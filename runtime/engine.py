"""What a backend offers: an `Engine` (the weights of one graph) and its `Context`s (shapes and bound buffers).

The loop, the policy and the reasoner are written against these two protocols alone, so that onnxruntime, TensorRT and
the exporter's own torch modules run the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Protocol

import numpy as np
from numpy.typing import NDArray

from motedge.bundle import Contract
from motedge.errors import UsageError

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class EngineOptions:
    """How a backend loads and runs a graph."""

    # CPU threads of one operator; None: the backend's choice, one per physical core
    threads: Optional[int] = None
    # Compare the sha256 of every file with the manifest before loading; sizes are compared in any case
    check_content: bool = True

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError("the number of threads is wrong", expected="at least 1, or none given", got=self.threads)


class Context(Protocol):
    """One set of shapes of an engine, with its buffers. Not for use by two threads at once."""

    def set_input(self, name: str, value: Array) -> None:
        """Binds `value` as an input: no copy is made, the memory is read at each `run`.

        Giving the same array again costs nothing; changing its content between two runs is allowed.

        Raises:
            ContractError: unknown name, or another shape, dtype or memory order than the contract's.
        """
        ...

    def output(self, name: str) -> Array:
        """The buffer into which every `run` writes this output. Copy it to keep it beyond the next run.

        Raises:
            ContractError: unknown name.
        """
        ...

    def run(self) -> None:
        """Runs the graph on the bound inputs.

        Raises:
            ContractError: an input was never bound.
        """
        ...


class Engine(Protocol):
    """The weights of one graph in one variant, loaded by one backend."""

    @property
    def contract(self) -> Contract:
        """Names, dims, dtypes and profile of the graph's tensors."""
        ...

    @property
    def dtype(self) -> str:
        """The graph's own floating type: "fp32", "fp16" or "bf16"."""
        ...

    def context(self, dims: Mapping[str, int]) -> Context:
        """Makes a context for these sizes of the dynamic letters, for example `{"T": 9, "A": 33, "U": 158}`.

        Raises:
            ContractError: a size lies outside the graph's profile, or a letter has none.
        """
        ...

    def close(self) -> None:
        """Frees the weights. Contexts must not be used afterwards."""
        ...
