"""The understanding tower on a GPU: K and V stay there, and a token of the reply is one CUDA graph and one copy.

The graph uploads the token's embedding and angles, runs the tower, and downloads the logits; its addresses are fixed,
and what changes, the number of tokens held, is an input. The token's own K and V are then copied to their place behind
the others, which moves from token to token and so can't be in the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Optional

import numpy as np

from motedge.errors import ContractError
from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.device.captured import Captured
from motedge.runtime.device.planned import PlannedBlock
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import ITEM_BYTES, DeviceContext, DeviceEngine, tensor_bytes
from motedge.runtime.engine import FloatArray
from motedge.runtime.finite import check_finite
from motedge.runtime.reasoner.device_inputs import StepInputs
from motedge.runtime.reasoner.und_engine import PIECE

_KV, _ROWS, _LOGITS, _KEY = "past_kv", "kv", "logits", "k_for_gen"


class DeviceUnd:
    """See `motedge.runtime.reasoner.ports.UndStep`. To be made, used and closed inside `cuda.current()`."""

    def __init__(
        self,
        cuda: Cuda,
        engine: DeviceEngine,
        workspace: Workspace,
        stream: Stream,
        *,
        capacity: Optional[int] = None,
        refusal: Optional[str] = None,
    ) -> None:
        """Allocates everything that a prompt and its reply need.

        Args:
            cuda: where.
            engine: of graph und; stays the caller's.
            workspace: activation memory, shared with the caller's other engines.
            stream: on which everything runs.
            capacity: tokens of prompt and reply together; None: the optimum of the graph's profile. Their memory is
                taken now, and every step reads it whole.
            refusal: why not to capture; None asks the engine.

        Raises:
            ContractError: a capacity outside the graph's profile.
            OutOfDeviceMemoryError: the GPU has no room for it.
        """
        self._cuda, self._engine, self._workspace, self._stream = cuda, engine, workspace, stream
        contract, self._refusal = engine.contract, refusal
        (self._least, best, _), (_, _, new) = contract.profile["P"], contract.profile["S"]
        self.capacity = best if capacity is None else capacity
        contract.check_dims({"P": self.capacity})
        self.max_new = min(new, PIECE, self.capacity)
        sizes = contract.sizes
        self._row_bytes, self._layers, self._heads = sizes["D"] * ITEM_BYTES[engine.dtype], sizes["L"], sizes["K"]
        # Where the generator sees another key than the tower itself
        self._own_key = any(spec.name == _KEY for spec in contract.outputs)
        # Page-locked memory lives until the context is closed
        self._logits: FloatArray = cuda.pinned((sizes["V"],), np.float32)
        self._held, self._clean = 0, False
        self._one: Optional[DeviceContext] = None
        self._decode: Optional[Captured] = None
        self._generation = -1
        nbytes = tensor_bytes(contract, engine.dtype, {"S": self.max_new, "P": self.capacity})
        outputs = {spec.name: nbytes[spec.name] for spec in contract.outputs}
        with contextlib.ExitStack() as made:
            self._buffer = PlannedBlock(cuda, {_KV: nbytes[_KV]}, "the reasoner's K and V")
            made.callback(self._buffer.free)
            self._outputs = PlannedBlock(cuda, outputs, "the reasoner's outputs")
            made.callback(self._outputs.free)
            self._inputs = StepInputs(cuda, engine, self.max_new)
            made.callback(self._inputs.free)
            self._cover_workspace()
            self._freeing = made.pop_all()

    @property
    def launch(self) -> str:
        """How a token of the reply is launched: "one CUDA graph", or "piece by piece" and why."""
        if self._decode is not None and self._decode.captured:
            return "one CUDA graph"
        refusal = self._refusal if self._decode is None else self._decode.refusal
        return f"piece by piece: {refusal or 'the first of its kind'}"

    def step(
        self,
        embeddings: FloatArray,
        cos: FloatArray,
        sin: FloatArray,
        start: int,
        deepstack: Optional[FloatArray],
    ) -> FloatArray:
        """See `UndStep.step`.

        Raises:
            ContractError: more tokens than fit, or a start beyond what is held.
            NonFiniteError: logits are NaN or infinity; what was held is forgotten.
            CudaError: the GPU or an engine library failed; likewise.
        """
        count = len(embeddings)
        if not 0 <= start <= self._held or not 0 < count <= min(self.max_new, self.capacity - start):
            raise ContractError(
                "the reasoner's K and V don't reach from there to there",
                expected=f"a start of 0 to {self._held}, {self.max_new} new tokens, {self.capacity} in all, at most",
                got=f"{count} tokens from {start}",
            )
        past_length = np.array([start], np.float32)
        values = {"embeddings": embeddings, "cos": cos, "sin": sin, "past_length": past_length}
        try:
            self._make_clean()
            self._inputs.fill(values, deepstack)
            if count == 1 and start and deepstack is None:
                self._decoding().launch(self._stream)
                self._stream.synchronize()
            else:
                self._prefill(count, start, features=deepstack is not None)
            # Before they are kept: a slot that is hidden must be finite all the same. NaN in them is in the logits too
            check_finite(self._logits, f"graph 'und' returned NaN or infinity after {start + count} tokens")
            self._keep(start, count)
        except BaseException:
            self._settle()
            raise
        return self._logits

    def warm_up(self) -> None:
        """Reads three tokens that mean nothing, so that a token is captured before anybody waits or works beside it.

        Raises:
            NonFiniteError, CudaError: as `step`; the engine is of no use.
        """
        sizes = self._engine.contract.sizes
        nothing, angle = np.zeros((1, sizes["H"]), np.float32), np.zeros((1, sizes["R"]), np.float32)
        for start in range(min(3, self.capacity)):
            self.step(nothing, angle + 1, angle, start, None)

    def read_prompt(self, embeddings: FloatArray, cos: FloatArray, sin: FloatArray, pointer: int) -> None:
        """Fills device memory with K and V of a text as the generator sees them; what is held of a reply stays.

        Args:
            embeddings: fp32 [n, H].
            cos: fp32 [n, R].
            sin: fp32 [n, R].
            pointer: room for [L, 2, K, n, D] in the graph's type; it is filled when this returns.

        Raises:
            CudaError: the GPU or an engine library failed.
        """
        count = len(embeddings)
        with contextlib.ExitStack() as made:
            # After a failure too, nothing may be under way in what is freed here
            made.callback(self._wait)
            self._make_clean()
            past, slots = self._buffer.pointer(_KV), self._least
            if count > self.max_new:
                past, slots = self._past_of_prompt(count, made)
            for start in range(0, count, self.max_new):
                part = slice(start, min(start + self.max_new, count))
                values = {"embeddings": embeddings[part], "cos": cos[part], "sin": sin[part]}
                self._read_piece(values, start, past, slots if start else self._least)
                width = (part.stop - start) * self._row_bytes
                self._place_prompt(pointer, start, width, count * self._row_bytes)
                if part.stop < count:
                    self._copy_rows(past, start, slots * self._row_bytes, width)
                # Its inputs and outputs are the next piece's
                self._stream.synchronize()

    def drop(self) -> None:
        """Frees the context and the graph of a token; the next one makes them anew."""
        if self._decode is not None:
            self._decode.close()
            self._decode = None
        if self._one is not None:
            self._one.close()
            self._one = None

    def close(self) -> None:
        """Frees everything but the engine; harmless when repeated."""
        self.drop()
        self._freeing.close()

    def _cover_workspace(self) -> None:
        """Sizes the workspace for the largest steps, so that it does not move later for want of room."""
        for count, slots in ((1, self.capacity), (self.max_new, self.capacity), (self.max_new, self._least)):
            context = self._engine.context({"S": count, "P": slots})
            try:
                self._workspace.cover(context.activation_bytes)
            finally:
                context.close()

    def _make_clean(self) -> None:
        """Zeros over memory that may hold anything yet: what is hidden is multiplied by zero, and NaN would stay."""
        if not self._clean:
            self._cuda.zero(self._buffer.pointer(_KV), self._buffer.size_bytes(_KV), self._stream)
            self._clean = True

    def _prefill(self, count: int, start: int, *, features: bool) -> None:
        """Tokens of a prompt, in a context of their own; waits for them."""
        # A prompt's first piece sees no slot, and so is given as few as there may be
        context = self._engine.context({"S": count, "P": self.capacity if start else self._least})
        try:
            self._bind(context, count)
            self._inputs.upload(count, self._stream, features=features)
            self._run(context, self._stream)
            self._stream.synchronize()
        finally:
            context.close()

    def _past_of_prompt(self, count: int, made: contextlib.ExitStack) -> tuple[int, int]:
        """Address and slots of a buffer for K and V of a prompt that is read in pieces."""
        slots = max(self._least, count)
        nbytes = self._layers * 2 * self._heads * slots * self._row_bytes
        block = PlannedBlock(self._cuda, {_KV: nbytes}, "K and V of a long prompt")
        made.callback(block.free)
        made.callback(self._wait)
        self._cuda.zero(block.pointer(_KV), nbytes, self._stream)
        return block.pointer(_KV), slots

    def _read_piece(self, values: Mapping[str, FloatArray], start: int, past: int, slots: int) -> None:
        """Enqueues the tower on a piece of a prompt, without its logits: those on the host may be in use."""
        count = len(values["embeddings"])
        context = self._engine.context({"S": count, "P": slots})
        try:
            self._bind(context, count, past)
            self._inputs.fill({**values, "past_length": np.array([start], np.float32)}, None)
            self._inputs.upload(count, self._stream, features=False)
            context.enqueue(self._stream)
            self._stream.synchronize()
        finally:
            context.close()

    def _place_prompt(self, pointer: int, start: int, width: int, pitch: int) -> None:
        """Enqueues the copies of new rows into [L, 2, K, n, D]; `width`: bytes of the new ones, `pitch`: of all n."""
        self._copy_rows(pointer, start, pitch, width)
        if not self._own_key:
            return
        keys, heads = self._outputs.pointer(_KEY), self._heads
        for layer in range(self._layers):
            target = pointer + 2 * layer * heads * pitch + start * self._row_bytes
            self._cuda.copy_rows(target, pitch, keys + layer * heads * width, width, width, heads, self._stream)

    def _decoding(self) -> Captured:
        """The work of one token, made anew where the workspace has moved."""
        if self._decode is None or self._generation != self._workspace.generation:
            self.drop()
            context = self._one = self._engine.context({"S": 1, "P": self.capacity})
            self._bind(context, 1)
            self._generation = self._workspace.generation

            def enqueue(stream: Stream) -> None:
                self._inputs.upload(1, stream, features=False)
                self._run(context, stream)

            refusal = self._refusal or context.capture_refusal
            self._decode = Captured(self._cuda, "the reasoner's token", enqueue, refusal)
        return self._decode

    def _bind(self, context: DeviceContext, count: int, past: Optional[int] = None) -> None:
        self._workspace.lend(context)
        for name, pointer in self._inputs.pointers(count).items():
            context.bind(name, pointer)
        context.bind(_KV, self._buffer.pointer(_KV) if past is None else past)
        for spec in self._engine.contract.outputs:
            context.bind(spec.name, self._outputs.pointer(spec.name))

    def _run(self, context: DeviceContext, stream: Stream) -> None:
        """The tower, and its logits to the host."""
        context.enqueue(stream)
        self._cuda.copy(self._logits.ctypes.data, self._outputs.pointer(_LOGITS), self._logits.nbytes, stream)

    def _keep(self, start: int, count: int) -> None:
        """Enqueues the copy of the new rows to their slots; it runs while the host chooses the next token."""
        pitch = self.capacity * self._row_bytes
        self._copy_rows(self._buffer.pointer(_KV), start, pitch, count * self._row_bytes)
        self._held = start + count

    def _copy_rows(self, buffer: int, start: int, pitch: int, width: int) -> None:
        """Enqueues the copy of the new rows into a buffer of K and V, from row `start` on."""
        target, blocks = buffer + start * self._row_bytes, self._layers * 2 * self._heads
        self._cuda.copy_rows(target, pitch, self._outputs.pointer(_ROWS), width, width, blocks, self._stream)

    def _wait(self) -> None:
        # The first failure is the one that is told
        with contextlib.suppress(CudaError):
            self._stream.synchronize()

    def _settle(self) -> None:
        """After a failure: waits for what was enqueued, and forgets everything whose content is no longer certain."""
        self._held, self._clean = 0, False
        self._wait()
        with contextlib.suppress(CudaError):
            self.drop()
