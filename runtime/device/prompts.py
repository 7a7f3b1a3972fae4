"""The K and V of prompts on the device: one prefill a new prompt, kept across ticks, never copied to the host."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motedge.errors import ContractError, UsageError
from motedge.runtime.cuda import Cuda, DeviceMemory, Stream
from motedge.runtime.cuda.errors import OutOfDeviceMemoryError
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine, tensor_bytes
from motedge.runtime.engine import IntArray
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables

GRAPH = "und_prefill"
_INPUTS = ("embeddings", "cos", "sin")


@dataclass(frozen=True, eq=False)
class DevicePrompt:
    """One prompt's K and V, [L, 2, K, U, D] in the generator's dtype."""

    memory: DeviceMemory
    und_len: int
    # Bytes used of the memory
    nbytes: int


class DevicePrompts:
    """und_prefill behind a cache of device memory; the least recently used prompts go first.

    Args:
        cuda: where.
        und: engine of und_prefill, in the generator's dtype: K and V go from one to the other as they are.
        gen_dtype: that dtype.
        max_entries: prompts kept; at least 2, for both branches of a request.
    """

    def __init__(
        self,
        cuda: Cuda,
        und: DeviceEngine,
        gen_dtype: str,
        tables: Tables,
        rotary: RotaryTable,
        workspace: Workspace,
        *,
        max_entries: int = 8,
    ) -> None:
        if max_entries < 2:
            raise UsageError("a prompt cache without room", expected="at least 2 entries", got=max_entries)
        if und.dtype != gen_dtype:
            raise ContractError(
                "und_prefill and gen_step are loaded in different types",
                expected=f"both in {gen_dtype}, the generator's",
                got=f"und_prefill in {und.dtype}",
                why="its K and V stay on the device and are read as they lie",
                fix="choose one variant for both: --variant",
            )
        self._cuda, self._und, self._tables, self._rotary = cuda, und, tables, rotary
        self._workspace, self._max_entries = workspace, max_entries
        self._kept: OrderedDict[bytes, DevicePrompt] = OrderedDict()
        longest = und.contract.profile["S"][2]
        sizes = tensor_bytes(und.contract, und.dtype, {"S": longest})
        self._inputs = PlannedBlock(cuda, {name: sizes[name] for name in _INPUTS}, "prompt inputs")
        self._staging = {name: cuda.pinned((sizes[name] // 4,), np.float32) for name in _INPUTS}
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def kept_bytes(self) -> int:
        """Device memory of all K and V kept."""
        return sum(prompt.memory.nbytes for prompt in self._kept.values())

    def encode(self, token_ids: IntArray, stream: Stream, needed: Sequence[DevicePrompt] = ()) -> DevicePrompt:
        """K and V of a prompt; enqueues a prefill if they are not kept. `needed`: others that must stay.

        The stream is waited for after a prefill, for its inputs lie in arrays that are used again.

        Raises:
            ContractError: more or fewer tokens than the graph was exported for, or an id outside the vocabulary.
            OutOfDeviceMemoryError: no room even after others were dropped.
        """
        key = np.ascontiguousarray(token_ids, dtype="<i8").tobytes()
        kept = self._kept.get(key)
        if kept is not None:
            self.hits += 1
            self._kept.move_to_end(key)
            return kept
        self.misses += 1
        while len(self._kept) >= self._max_entries:
            self._kept.popitem(last=False)[1].memory.free()
        while True:
            try:
                prompt = self._prefill(token_ids, stream)
                break
            except OutOfDeviceMemoryError:
                oldest = next((k for k, kept in self._kept.items() if kept not in needed), None)
                if oldest is None:
                    raise
                self._kept.pop(oldest).memory.free()
        self._kept[key] = prompt
        return prompt

    def free(self) -> None:
        """Gives everything back; harmless when repeated."""
        while self._kept:
            self._kept.popitem()[1].memory.free()
        self._inputs.free()

    def _prefill(self, token_ids: IntArray, stream: Stream) -> DevicePrompt:
        count = int(token_ids.size)
        dims = {"S": count}
        nbytes = tensor_bytes(self._und.contract, self._und.dtype, dims)["und_kv"]
        # Reads the table first: it refuses ids outside the vocabulary before anything is allocated
        values = (self._tables.embeddings(token_ids), *self._rotary.text(count))
        context = self._und.context(dims)
        try:
            self._workspace.lend(context)
            memory = self._cuda.allocate(nbytes, "prompt K and V")
            try:
                for name, value in zip(_INPUTS, values):
                    staging, target = self._staging[name][: value.size], self._inputs.pointer(name)
                    staging[...] = value.reshape(-1)
                    self._cuda.copy(target, staging.ctypes.data, staging.nbytes, stream)
                    context.bind(name, target)
                context.bind("und_kv", memory.pointer)
                context.enqueue(stream)
                stream.synchronize()
            except BaseException:
                memory.free()
                raise
        finally:
            context.close()
        return DevicePrompt(memory, count, nbytes)
