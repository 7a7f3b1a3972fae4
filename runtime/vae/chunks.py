"""The two engines of a video that goes through the VAE in chunks: for the first one, and for every other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from motedge.bundle import Contract
from motedge.runtime.engine import Array, Engine, FloatArray
from motedge.runtime.vae.stream import ChunkStream


class ChunkRuns(Protocol):
    """Runs videos, one after the other."""

    @property
    def buffer_bytes(self) -> int:
        """Memory of results and caches between two chunks."""
        ...

    def run(self, chunks: Iterable[Array]) -> Iterator[FloatArray]:
        """The results of a video's chunks, each a buffer that the next chunk but one overwrites."""
        ...


class Chunks(Protocol):
    """Both engines."""

    @property
    def contract(self) -> Contract:
        """Of the first chunk's graph."""
        ...

    def open(self, given: str, result: str) -> ChunkRuns:
        """`given`, `result`: names of the tensors that go in and come out, beside the caches."""
        ...

    def close(self) -> None:
        """Frees the engines."""
        ...


class HostChunks:
    """`Chunks` on numpy arrays."""

    def __init__(self, first: Engine, following: Engine) -> None:
        self._first, self._following = first, following

    @property
    def contract(self) -> Contract:
        """See `Chunks.contract`."""
        return self._first.contract

    def open(self, given: str, result: str) -> ChunkRuns:
        """See `Chunks.open`."""
        return ChunkStream(self._first, self._following, given, result)

    def close(self) -> None:
        """See `Chunks.close`."""
        self._first.close()
        self._following.close()
