"""A video through two engines, one for its first chunk and one for every other, with the caches between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.engine import Array, Context, Engine, FloatArray

# Names of cache tensors (motedge.export.vae_caches): what a chunk takes, and what it leaves for the next
_INPUT, _OUTPUT = "cache_", "next_cache_"


class ChunkStream:
    """Two contexts of the engine for further chunks, each of which reads the caches that the other wrote.

    So nothing is copied between chunks, and the memory is the same for a video of any length.
    """

    def __init__(self, first: Engine, following: Engine, given: str, result: str) -> None:
        """`given`, `result`: names of the tensors that go in and come out, beside the caches."""
        self._first, self._following, self._given, self._result = first, following, given, result
        self._caches = [s.name[len(_INPUT) :] for s in following.contract.inputs if s.name.startswith(_INPUT)]
        self._written = {s.name for s in first.contract.outputs}
        self._pair = (following.context({}), following.context({}))
        for index, context in enumerate(self._pair):
            other = self._pair[1 - index]
            for name in self._caches:
                context.set_input(_INPUT + name, other.output(_OUTPUT + name))
        self._video = 0

    @property
    def buffer_bytes(self) -> int:
        """Memory of results and caches between two chunks."""
        names = [self._result, *(_OUTPUT + name for name in self._caches)]
        return sum(context.output(name).nbytes for context in self._pair for name in names)

    def run(self, chunks: Iterable[Array]) -> Iterator[FloatArray]:
        """The results of a video's chunks, each a buffer that the next chunk but one overwrites.

        Raises:
            ContractError: another video was started meanwhile.
        """
        self._video += 1
        video = self._video
        for index, chunk in enumerate(chunks):
            if video != self._video:
                raise ContractError("another video was started before this one ended", fix="one video at a time")
            yield self._run(self._pair[1 - index % 2], chunk) if index else self._start(chunk)

    def _start(self, chunk: Array) -> FloatArray:
        context = self._first.context({})
        result = self._run(context, chunk)
        for name in self._caches:
            # A layer that the first chunk does not pass finds zeros
            earlier = context.output(_OUTPUT + name) if _OUTPUT + name in self._written else np.zeros(1, np.float32)
            np.copyto(self._pair[1].output(_OUTPUT + name), earlier)
        return result

    def _run(self, context: Context, chunk: Array) -> FloatArray:
        context.set_input(self._given, chunk)
        context.run()
        result: FloatArray = context.output(self._result)
        return result
