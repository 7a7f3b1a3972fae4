"""The K and V of prompts on the device: one prefill a new prompt, kept across ticks, never copied to the host."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motedge.errors import ContractError, UsageError
from motedge.runtime.cuda import Cuda, DeviceMemory, Stream
from motedge.runtime.cuda.errors import OutOfDeviceMemoryError
from motedge.runtime.device.prefill import GRAPH, PromptReader
from motedge.runtime.engine import IntArray
from motedge.runtime.rope import RotaryTable
from motedge.runtime.tables import Tables


@dataclass(frozen=True, eq=False)
class DevicePrompt:
    """One prompt's K and V, [L, 2, K, U, D] in the generator's dtype."""

    memory: DeviceMemory
    und_len: int
    # Bytes used of the memory
    nbytes: int
    # That made them
    graph: str = GRAPH


class DevicePrompts:
    """A reader of prompts behind a cache of device memory; the least recently used prompts go first.

    `prepare` may run in another thread beside `encode` where the reader may: what it has read joins the cache with the
    next `encode`, so that nothing changes under a request.

    Args:
        cuda: where.
        reader: makes K and V, in the generator's dtype: they go from one to the other as they are. Freed with this.
        gen_dtype: that dtype.
        max_entries: prompts kept; at least 2, for both branches of a request.
    """

    def __init__(
        self,
        cuda: Cuda,
        reader: PromptReader,
        gen_dtype: str,
        tables: Tables,
        rotary: RotaryTable,
        *,
        max_entries: int = 8,
    ) -> None:
        if max_entries < 2:
            raise UsageError("a prompt cache without room", expected="at least 2 entries", got=max_entries)
        if reader.dtype != gen_dtype:
            raise ContractError(
                f"{reader.graph} and gen_step are loaded in different types",
                expected=f"both in {gen_dtype}, the generator's",
                got=f"{reader.graph} in {reader.dtype}",
                why="its K and V stay on the device and are read as they lie",
                fix="choose one variant for both: --variant",
            )
        self._cuda, self._reader, self._tables, self._rotary = cuda, reader, tables, rotary
        self._max_entries = max_entries
        self._kept: OrderedDict[bytes, DevicePrompt] = OrderedDict()
        # Of the two below
        self._lock = threading.Lock()
        self._ready: list[tuple[bytes, DevicePrompt]] = []
        # Not freed by requests that find what they need: freeing waits for whatever runs on the GPU
        self._dropped: list[DevicePrompt] = []
        # Of `encode`
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def aside(self) -> bool:
        """Whether `prepare` may run in another thread beside `encode`."""
        return self._reader.aside

    @property
    def kept_bytes(self) -> int:
        """Device memory of all K and V kept."""
        return sum(prompt.memory.nbytes for prompt in self._kept.values())

    def encode(self, token_ids: IntArray, stream: Stream, needed: Sequence[DevicePrompt] = ()) -> DevicePrompt:
        """K and V of a prompt; reads it if they are not kept. `needed`: others that must stay.

        K and V are there when it returns: a reading is waited for.

        Raises:
            ContractError: more or fewer tokens than the graph was exported for, or an id outside the vocabulary.
            OutOfDeviceMemoryError: no room even after others were dropped.
        """
        self._take_ready()
        key = _key(token_ids)
        kept = self._kept.get(key)
        if kept is not None:
            self.hits += 1
            self._kept.move_to_end(key)
            return kept
        self.misses += 1
        self._make_room()
        # A reading is waited for in any case
        self._free_dropped()
        while True:
            try:
                prompt = self._read(token_ids, stream)
                break
            except OutOfDeviceMemoryError:
                oldest = next((k for k, kept in self._kept.items() if kept not in needed), None)
                if oldest is None:
                    raise
                self._kept.pop(oldest).memory.free()
        self._kept[key] = prompt
        return prompt

    def prepare(self, token_ids: IntArray, stream: Stream) -> None:
        """Reads a prompt ahead, so that its `encode` finds it; counts neither hit nor miss where it runs aside.

        Raises:
            ContractError, OutOfDeviceMemoryError: as `encode`; aside, no prompt is dropped to make room.
        """
        if not self.aside:
            self.encode(token_ids, stream)
            return
        self._free_dropped()
        key = _key(token_ids)
        with self._lock:
            known = key in self._kept or any(key == ready for ready, _ in self._ready)
        if not known:
            prompt = self._read(token_ids, stream)
            with self._lock:
                self._ready.append((key, prompt))

    def free(self) -> None:
        """Gives everything back, the reader's buffers included; harmless when repeated."""
        self._take_ready()
        self._free_dropped()
        while self._kept:
            self._kept.popitem()[1].memory.free()
        self._reader.free()

    def _take_ready(self) -> None:
        """What was read aside joins the cache."""
        with self._lock:
            ready, self._ready = self._ready, []
        for key, prompt in ready:
            if key in self._kept:
                self._drop(prompt)
                continue
            self._make_room()
            self._kept[key] = prompt

    def _make_room(self) -> None:
        while len(self._kept) >= self._max_entries:
            self._drop(self._kept.popitem(last=False)[1])

    def _drop(self, prompt: DevicePrompt) -> None:
        if not self.aside:
            prompt.memory.free()
            return
        with self._lock:
            self._dropped.append(prompt)

    def _free_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, []
        for prompt in dropped:
            prompt.memory.free()

    def _read(self, token_ids: IntArray, stream: Stream) -> DevicePrompt:
        count = int(token_ids.size)
        nbytes = self._reader.nbytes(count)
        # Reads the table first: it refuses ids outside the vocabulary before anything is allocated
        values = (self._tables.embeddings(token_ids), *self._rotary.text(count))
        memory = self._cuda.allocate(nbytes, "prompt K and V")
        try:
            self._reader.read(values, memory.pointer, stream)
        except BaseException:
            memory.free()
            raise
        return DevicePrompt(memory, count, nbytes, self._reader.graph)


def _key(token_ids: IntArray) -> bytes:
    return np.ascontiguousarray(token_ids, dtype="<i8").tobytes()
