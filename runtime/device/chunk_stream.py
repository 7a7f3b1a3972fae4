"""A video in chunks on a GPU: the caches between chunks stay there, and each engine reads what the other one wrote."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from motedge.bundle import Contract
from motedge.errors import ContractError
from motedge.runtime.contract_check import check_array
from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceContext, DeviceEngine, tensor_bytes
from motedge.runtime.engine import Array, FloatArray

# Names of cache tensors (motedge.export.vae_caches): what a chunk takes, and what it leaves for the next
_INPUT, _OUTPUT = "cache_", "next_cache_"
_FLOAT = np.dtype(np.float32)


class DeviceChunks:
    """`motedge.runtime.vae.chunks.Chunks` on a GPU. Takes over the engines.

    Buffers are made for each video that is under way, and kept for the next one.
    """

    def __init__(
        self, cuda: Cuda, first: DeviceEngine, following: DeviceEngine, workspace: Workspace, stream: Stream
    ) -> None:
        """`workspace`, `stream`: shared with other engines, and the caller's.

        Raises:
            ContractError: the engines' types differ: what one leaves, the other reads as it lies.
        """
        if first.dtype != following.dtype:
            raise ContractError(
                f"{first.contract.graph} and {following.contract.graph} are loaded in different types",
                expected=f"both in {first.dtype}",
                got=following.dtype,
                fix="choose one variant for both: --variant",
            )
        self.cuda, self.first, self.following = cuda, first, following
        self.workspace, self.stream = workspace, stream
        self._lanes: list[_Lane] = []
        # Lanes without a video. An iterator that is dropped gives its own back, in whichever thread collects it
        self._free: list[_Lane] = []

    @property
    def contract(self) -> Contract:
        """See `Chunks.contract`."""
        return self.first.contract

    @property
    def buffer_bytes(self) -> int:
        """Device memory of all buffers."""
        return sum(lane.nbytes for lane in self._lanes)

    def open(self, given: str, result: str) -> DeviceChunkStream:
        """See `Chunks.open`."""
        return DeviceChunkStream(self, given, result)

    def take(self, given: str, result: str) -> _Lane:
        """Buffers for one video; to be given back. OutOfDeviceMemoryError where there is no room."""
        if self._free:
            return self._free.pop()
        lane = _Lane(self, given, result)
        self._lanes.append(lane)
        return lane

    def give_back(self, lane: _Lane) -> None:
        """Calls nothing of CUDA."""
        self._free.append(lane)

    def close(self) -> None:
        """See `Chunks.close`."""
        with self.cuda.current(), contextlib.ExitStack() as steps:
            for engine in (self.first, self.following):
                steps.callback(engine.close)
            for lane in self._lanes:
                steps.callback(lane.close)
            self._lanes, self._free = [], []


class DeviceChunkStream:
    """`motedge.runtime.vae.chunks.ChunkRuns`. Several videos may be under way: each has buffers of its own."""

    def __init__(self, owner: DeviceChunks, given: str, result: str) -> None:
        self._owner, self._given, self._result = owner, given, result

    @property
    def buffer_bytes(self) -> int:
        """See `ChunkRuns.buffer_bytes`."""
        return self._owner.buffer_bytes

    def run(self, chunks: Iterable[Array]) -> Iterator[FloatArray]:
        """See `ChunkRuns.run`."""
        owner = self._owner
        with owner.cuda.current():
            lane = owner.take(self._given, self._result)
        try:
            for index, chunk in enumerate(chunks):
                with owner.cuda.current():
                    result = lane.run(index, chunk)
                yield result
        finally:
            owner.give_back(lane)


class _Lane:
    """Contexts and buffers of one video: two sets of caches, of which each chunk reads one and writes the other."""

    def __init__(self, owner: DeviceChunks, given: str, result: str) -> None:
        self._owner, self._given, self._result = owner, given, result
        first, following = owner.first.contract, owner.following.contract
        sizes = tensor_bytes(following, owner.following.dtype, {})
        other = tensor_bytes(first, owner.first.dtype, {})
        self._sizes_bytes: Mapping[str, int] = sizes
        self._caches = [s.name[len(_INPUT) :] for s in following.inputs if s.name.startswith(_INPUT)]
        written = {s.name for s in first.outputs}
        self._unwritten = [name for name in self._caches if _OUTPUT + name not in written]
        self._contexts: list[DeviceContext] = []
        # Page-locked first: it lives as long as the CUDA context
        self._chunk: Array = owner.cuda.pinned((max(sizes[given], other[given]) // 4,), np.float32)
        self._results: list[Array] = [
            owner.cuda.pinned((max(sizes[result], other[result]) // 4,), np.float32) for _ in range(2)
        ]
        plan = {given: self._chunk.nbytes, result: self._results[0].nbytes}
        plan.update({f"{which}_{name}": sizes[_INPUT + name] for which in "ab" for name in self._caches})
        self._block = PlannedBlock(owner.cuda, plan, f"chunks of {first.graph}")
        try:
            # Of the first chunk; of the second, fourth, ...; of the third, fifth, ...
            self._add(owner.first, "", "b")
            self._add(owner.following, "b", "a")
            self._add(owner.following, "a", "b")
        except BaseException:
            self.close()
            raise

    @property
    def nbytes(self) -> int:
        """Device memory."""
        return self._block.nbytes

    def run(self, index: int, chunk: Array) -> FloatArray:
        """The result of chunk `index`. Waits for it."""
        owner = self._owner
        contract = (owner.following if index else owner.first).contract
        given, result = contract.tensor(self._given), contract.tensor(self._result)
        check_array(contract.graph, given.name, chunk, given.shape(contract.sizes), _FLOAT)
        if not index:
            for name in self._unwritten:
                # A layer that the first chunk does not pass finds zeros
                owner.cuda.zero(self._block.pointer(f"b_{name}"), self._sizes_bytes[_INPUT + name], owner.stream)
        staged = self._chunk[: chunk.size]
        staged[...] = chunk.reshape(-1)
        owner.cuda.copy(self._block.pointer(given.name), staged.ctypes.data, staged.nbytes, owner.stream)
        context = self._contexts[0 if not index else 1 if index % 2 else 2]
        # Others may have moved it since
        owner.workspace.lend(context)
        context.enqueue(owner.stream)
        shape = result.shape(contract.sizes)
        made = self._results[index % 2][: int(np.prod(shape))]
        owner.cuda.copy(made.ctypes.data, self._block.pointer(result.name), made.nbytes, owner.stream)
        owner.stream.synchronize()
        shaped: FloatArray = made.reshape(shape)
        return shaped

    def close(self) -> None:
        """Frees contexts and buffers; harmless when repeated."""
        with contextlib.ExitStack() as steps:
            steps.callback(self._block.free)
            for context in self._contexts:
                steps.callback(context.close)

    def _add(self, engine: DeviceEngine, reads: str, writes: str) -> None:
        """A context that reads one set of caches and writes another."""
        context = engine.context({})
        self._contexts.append(context)
        self._owner.workspace.lend(context)
        for spec in (*engine.contract.inputs, *engine.contract.outputs):
            if spec.name.startswith(_OUTPUT):
                place = f"{writes}_{spec.name[len(_OUTPUT) :]}"
            elif spec.name.startswith(_INPUT):
                place = f"{reads}_{spec.name[len(_INPUT) :]}"
            else:
                place = spec.name
            context.bind(spec.name, self._block.pointer(place))
