"""One tick of a policy below its words: images, latents and the loop, on the host or on a device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from motedge.runtime.engine import Engine, FloatArray, IntArray
from motedge.runtime.finite import check_finite
from motedge.runtime.policy.canvas import normalise, pad_canvas, seen_image
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.serving_protocol import ServingProtocol
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.request import GenInputs, GenResult, LoopCounters, LoopTimings, SamplerSettings
from motedge.runtime.spans import span


@dataclass(frozen=True)
class TickRequest:
    """What the loop is asked for beside the image, which is frame 0."""

    # fp32 [A, Z]: the state if there is one, then committed actions, zeros elsewhere
    action_clean: FloatArray
    # int64 [n] each, special tokens included
    cond_tokens: IntArray
    uncond_tokens: IntArray
    # Row of the embodiment tables, and used channels of an action row
    domain_id: int
    raw_dim: int
    # Of the noise
    seed: int
    # Leading rows that are given: the state, and actions that will be executed in any case
    clean_rows: int = 1
    # When row 0 happens: 0 where it is the current state, 1 where it leads to frame 1
    start_offset: int = 0


@dataclass(frozen=True)
class TickResult:
    """What came of it."""

    # fp32 [A, Z], denoised, the state included; belongs to the caller
    action: FloatArray
    timings: LoopTimings
    counters: LoopCounters
    # Wall time before the loop by stage, ms: "vae_ms", and what else the runner tells apart
    stages_ms: Mapping[str, float]


class PolicyTick(Protocol):
    """Runs ticks on one set of engines. Not for two threads at once."""

    def see(self, observation: Observation) -> tuple[str, ...]:
        """Takes the images of the next `run`; returns the views that are missing and seen as black.

        Raises:
            ObservationError: an image that can't be brought into the model's shape.
        """
        ...

    def seen(self) -> Image:
        """What the last `see` took, as the model is given it: uint8 [content rows, columns, 3]."""
        ...

    def run(self, request: TickRequest, settings: SamplerSettings) -> TickResult:
        """Denoises the actions that follow what was seen.

        Raises:
            NonFiniteError: a graph returned NaN or infinity; names the graph, the step and the branch.
        """
        ...

    @property
    def prepares_aside(self) -> bool:
        """Whether `prepare` may be called in another thread while a request runs, and hinders it no more than other
        work on the GPU does."""
        ...

    def prepare(self, token_ids: IntArray) -> None:
        """Makes K and V of a prompt ready, so that the tick that first uses it costs no prefill.

        Raises:
            ContractError: more or fewer tokens than the graph was exported for.
            NonFiniteError: the graph returned NaN or infinity.
        """
        ...

    def rehearse(self, token_ids: IntArray) -> Iterator[None]:
        """Makes the last request ready for another prompt, that was prepared: so that its first tick is as the later
        ones. In steps, of which none takes longer than a forward; no request may run during one.

        Raises:
            OutOfDeviceMemoryError and others: what its first tick would raise.
        """
        ...

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of a GPU's memory, by purpose; empty on the host."""
        ...

    def close(self) -> None:
        """Frees what it holds, the engines included; harmless when repeated."""
        ...


class Loop(Protocol):
    """What a tick on the host needs of `motedge.runtime.denoise.DenoiseLoop`."""

    def run(self, inputs: GenInputs, settings: SamplerSettings) -> GenResult:
        """Denoises one request."""
        ...

    def prepare(self, token_ids: IntArray) -> None:
        """Makes K and V of a prompt ready."""
        ...

    def close(self) -> None:
        """Stops what runs in the background."""
        ...


def gen_inputs(request: TickRequest, vision_clean: FloatArray, shape: PolicyShape) -> GenInputs:
    """The loop's request; `vision_clean`: fp32 [C, T, h, w], read in frame 0 alone."""
    noisy = np.ones(vision_clean.shape[1], np.float32), np.ones(len(request.action_clean), np.float32)
    noisy[0][0], noisy[1][: request.clean_rows] = 0.0, 0.0
    return GenInputs(
        vision_clean=vision_clean,
        vision_noisy=noisy[0],
        action_clean=request.action_clean,
        action_noisy=noisy[1],
        cond_tokens=request.cond_tokens,
        uncond_tokens=request.uncond_tokens,
        fps=shape.fps,
        domain_id=request.domain_id,
        raw_dim=request.raw_dim,
        seed=request.seed,
        action_start_offset=request.start_offset,
    )


class HostTick:
    """Images and loop by numpy, graphs by engines with host arrays."""

    prepares_aside = False

    def __init__(
        self,
        vae: Engine,
        loop: Loop,
        shape: PolicyShape,
        protocol: ServingProtocol,
        engines: tuple[Engine, ...] = (),
    ) -> None:
        """Takes over what it is given; `engines` are closed with it."""
        self._loop, self._shape, self._protocol, self._engines = loop, shape, protocol, (*engines, vae)
        self._vae = vae.context({})
        self._canvas = np.zeros((1, 3, *shape.canvas), np.float32)
        self._vae.set_input("image", self._canvas)

    def see(self, observation: Observation) -> tuple[str, ...]:
        """See `PolicyTick.see`."""
        image, missing = self._protocol.image(observation, self._shape)
        normalise(pad_canvas(image, self._shape.canvas), out=self._canvas)
        return missing

    def seen(self) -> Image:
        """See `PolicyTick.seen`."""
        return seen_image(self._canvas, self._shape.content)

    def run(self, request: TickRequest, settings: SamplerSettings) -> TickResult:
        """See `PolicyTick.run`."""
        start = time.perf_counter()
        with span("vae_encoder"):
            self._vae.run()
        latent: FloatArray = self._vae.output("latent")
        check_finite(latent, "vae_encoder returned NaN or infinity")
        vae_ms = 1e3 * (time.perf_counter() - start)
        frames, height, width = self._shape.latent
        vision = np.zeros((latent.shape[0], frames, height, width), np.float32)
        vision[:, :1] = latent
        result = self._loop.run(gen_inputs(request, vision, self._shape), settings)
        return TickResult(result.action, result.timings, result.counters, {"vae_ms": vae_ms})

    def prepare(self, token_ids: IntArray) -> None:
        """See `PolicyTick.prepare`."""
        self._loop.prepare(token_ids)

    def rehearse(self, token_ids: IntArray) -> Iterator[None]:
        """See `PolicyTick.rehearse`. There is nothing to make ready."""
        yield from ()

    def memory_bytes(self) -> dict[str, int]:
        """See `PolicyTick.memory_bytes`."""
        return {}

    def close(self) -> None:
        """See `PolicyTick.close`."""
        self._loop.close()
        for engine in self._engines:
            engine.close()
