"""A policy's tick on a GPU: the image goes up, the actions come down, everything between stays there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from motedge.runtime.cuda import Cuda, Stream
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.device.image_encoder import ImageEncoder
from motedge.runtime.device.loop import DeviceLoop
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.policy.canvas import normalise, pad_canvas, seen_image
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.serving_protocol import ServingProtocol
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.tick import TickRequest, TickResult, gen_inputs
from motedge.runtime.request import SamplerSettings
from motedge.runtime.spans import device_span, span

# The second tick of a kind captures; by then every kernel has been needed
_WARM_TICKS = 3


class Sight(Protocol):
    """Brings an observation's images onto the encoder's canvas on the device."""

    def see(self, observation: Observation, stream: Stream) -> tuple[str, ...]:
        """Enqueues it; returns the missing views. ObservationError where that can't be done."""
        ...

    def close(self) -> None:
        """Frees its own memory; harmless when repeated."""
        ...


class HostSight:
    """Composes and normalises with numpy, then uploads: without the compiled kernels, or where they don't know how."""

    def __init__(self, encoder: ImageEncoder, shape: PolicyShape, protocol: ServingProtocol) -> None:
        self._encoder, self._shape, self._protocol = encoder, shape, protocol

    def see(self, observation: Observation, stream: Stream) -> tuple[str, ...]:
        """See `Sight.see`."""
        image, missing = self._protocol.image(observation, self._shape)
        # The canvas may still be on its way up, if the last observation was never acted on
        stream.synchronize()
        normalise(pad_canvas(image, self._shape.canvas), out=self._encoder.canvas)
        self._encoder.upload(stream)
        return missing

    def close(self) -> None:
        """Nothing to free."""


class DeviceTick:
    """A `PolicyTick`. Takes over everything it is given and closes it in order, the CUDA context last."""

    def __init__(
        self,
        cuda: Cuda,
        engines: Sequence[DeviceEngine],
        workspace: Workspace,
        encoder: ImageEncoder,
        loop: DeviceLoop,
        sight: Sight,
        shape: PolicyShape,
        keep_compiled: Sequence[Callable[[], object]] = (),
    ) -> None:
        """`engines`: all that must be closed; `keep_compiled`: called once warm, so that what libraries compiled by
        then outlives a process that is killed. To be made inside `cuda.current()`."""
        self._cuda, self._engines, self._workspace = cuda, tuple(engines), workspace
        self._encoder, self._loop, self._sight, self._shape = encoder, loop, sight, shape
        channels = encoder.latent_channels
        # Gives the shape alone; the clean frame is put in place on the device
        self._no_vision: FloatArray = np.zeros((channels, *shape.latent), np.float32)
        self._keep_compiled, self._ticks = tuple(keep_compiled), 0
        self._marks = cuda.event(), cuda.event()
        self._closed = False

    def see(self, observation: Observation) -> tuple[str, ...]:
        """See `PolicyTick.see`. The upload is not waited for."""
        with self._cuda.current():
            return self._sight.see(observation, self._loop.stream)

    def seen(self) -> Image:
        """See `PolicyTick.seen`. Comes from the GPU: frames need not have been on the host."""
        with self._cuda.current():
            self._encoder.download(self._loop.stream)
        return seen_image(self._encoder.canvas, self._shape.content)

    def run(self, request: TickRequest, settings: SamplerSettings) -> TickResult:
        """See `PolicyTick.run`."""
        inputs = gen_inputs(request, self._no_vision, self._shape)
        with self._cuda.current():
            stream = self._loop.stream
            self._marks[0].record(stream)
            with span("enqueue"):
                self._encoder.encode(stream)
            self._marks[1].record(stream)
            result = self._loop.denoise(
                inputs, settings, lambda buffers: self._encoder.place(buffers, stream), vision=False
            )
            self._ticks += 1
            if self._ticks == _WARM_TICKS:
                for keep in self._keep_compiled:
                    keep()
            # By the GPU's clock: the loop is enqueued meanwhile
            stages = {"vae_ms": self._marks[1].elapsed_ms(self._marks[0])}
            before_ms = self._loop.finished.elapsed_ms(self._marks[0])
            device_span("vae_encoder", -before_ms, stages["vae_ms"] - before_ms)
            device_span("denoise", -(result.timings.graph_ms or 0.0), 0.0)
        counters = result.counters
        if self._encoder.refusal:
            counters = dataclasses.replace(
                counters, launch=f"{counters.launch}; image encoder: {self._encoder.refusal}"
            )
        return TickResult(result.action, result.timings, counters, stages)

    @property
    def prepares_aside(self) -> bool:
        """See `PolicyTick.prepares_aside`."""
        return self._loop.prompts.aside

    def prepare(self, token_ids: IntArray) -> None:
        """See `PolicyTick.prepare`."""
        with self._cuda.current():
            self._loop.prepare(token_ids)

    def rehearse(self, token_ids: IntArray) -> Iterator[None]:
        """See `PolicyTick.rehearse`."""
        steps = self._loop.rehearse(token_ids)
        while True:
            with self._cuda.current():
                if next(steps, self) is self:
                    return
            yield

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of the GPU's memory, by purpose; weights as near as the libraries tell."""
        weights = {f"weights of {engine.contract.graph}": engine.weight_bytes for engine in self._engines}
        return {**weights, **self._cuda.ledger}

    def close(self) -> None:
        """See `PolicyTick.close`."""
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as stack:
            # Called in reverse, each even if another fails
            stack.callback(self._cuda.close)
            # Of a lost context nothing can be freed, but what the objects hold of the host can
            with contextlib.suppress(CudaError):
                stack.enter_context(self._cuda.current())
            for engine in self._engines:
                stack.callback(engine.close)
            for part in (self._workspace.free, self._encoder.close, self._sight.close, self._loop.close):
                stack.callback(part)
