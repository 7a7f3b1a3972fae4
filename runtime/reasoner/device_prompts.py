"""The generator's prompts read on a GPU by the reasoner's tower, so that its weights stand in memory once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from motedge.bundle import Contract
from motedge.runtime.cuda import Stream
from motedge.runtime.device_engine import tensor_bytes
from motedge.runtime.engine import FloatArray
from motedge.runtime.reasoner.shared_prefill import require_same_model

if TYPE_CHECKING:
    from motedge.runtime.reasoner.device_loader import Towers


class UndReader:
    """A `motedge.runtime.device.prefill.PromptReader` over towers that stay their owner's, and must outlive it.

    They work on a stream and in a workspace of their own. The primary CUDA context is one for the whole process, so
    that what they write is where the generator reads it; the host waits between the two.
    """

    graph = "und"

    def __init__(self, towers: Towers, prefill: Contract) -> None:
        """Takes the towers; `prefill`: contract of und_prefill, for which they stand in.

        Raises:
            ContractError: the graphs are of different models.
        """
        require_same_model(towers.host_und.contract, prefill)
        self._towers, self._contract = towers, prefill

    @property
    def dtype(self) -> str:
        """See `PromptReader.dtype`."""
        return self._towers.host_und.dtype

    @property
    def aside(self) -> bool:
        """See `PromptReader.aside`."""
        return self._towers.aside

    def nbytes(self, count: int) -> int:
        """See `PromptReader.nbytes`."""
        self._contract.check_dims({"S": count})
        return tensor_bytes(self._contract, self.dtype, {"S": count})["und_kv"]

    def read(self, values: Sequence[FloatArray], pointer: int, stream: Stream) -> None:
        """See `PromptReader.read`; `stream` is not used."""
        embeddings, cos, sin = values
        self._towers.read_prompt(embeddings, cos, sin, pointer)

    def free(self) -> None:
        """Nothing: the buffers are the towers'."""
