"""The denoising loop on a GPU: the same requests and results as `motedge.runtime.denoise`, nothing on the host between.

What stays across ticks: K and V of prompts, rotary tables, contexts, buffers, captured graphs. A tick in which only
image, state and seed differ is a handful of uploads, one launch, and one download.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np

from motedge.runtime.cuda import Cuda, Event, Stream
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.device.branch_pair import BranchPair
from motedge.runtime.device.buffers import BRANCHES, TickBuffers
from motedge.runtime.device.launchable import host_reason
from motedge.runtime.device.launcher import Launch, Launcher, Outcome
from motedge.runtime.device.layout import StateLayout
from motedge.runtime.device.pinned_arena import PinnedArena
from motedge.runtime.device.prefill import PrefillReader, PromptReader
from motedge.runtime.device.program import TickProgram
from motedge.runtime.device.programs import Programs
from motedge.runtime.device.prompts import DevicePrompt, DevicePrompts
from motedge.runtime.device.solvers import SolverSource
from motedge.runtime.device.staging import Staging
from motedge.runtime.device.workspace import Workspace
from motedge.runtime.device_engine import DeviceEngine
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.finite import check_finite
from motedge.runtime.noise import NoiseAhead
from motedge.runtime.request import GenInputs, GenResult, LoopCounters, LoopTimings, SamplerSettings
from motedge.runtime.request_plan import check_request, gen_dims, prompts_of
from motedge.runtime.rope import RotaryTable
from motedge.runtime.spans import span
from motedge.runtime.step_view import StepWatch
from motedge.runtime.tables import Tables

# Fills the clean vision frames in `buffers.clean`; enqueues only
FillVision = Callable[[TickBuffers], None]


class DeviceLoop:
    """Runs requests on engines whose tensors live on the GPU. Not for two threads at once.

    Args:
        cuda: the context; belongs to the caller, who makes it current.
        und: engine of und_prefill, or what else reads prompts; it is freed with the loop, an engine is the caller's.
        gen: engine of gen_step, or of gen_step_sound for requests with sound.
        solvers: where solvers come from.
        tables: the bundle's tables.
        model_config: transformer/config.json (`manifest.model["config"]`).
        workspace: activation memory shared with the caller's other engines.
        stream: on which everything runs.
        noise: draws the noise ahead, if it knows the next seed.
        capture: whether the loop is captured in a CUDA graph.
        max_programs: kinds of requests (prompt lengths, schedule, guidance) whose contexts and graphs are kept.
    """

    def __init__(
        self,
        cuda: Cuda,
        und: Union[DeviceEngine, PromptReader],
        gen: DeviceEngine,
        solvers: SolverSource,
        tables: Tables,
        model_config: Mapping[str, Any],
        workspace: Workspace,
        stream: Stream,
        *,
        noise: Optional[NoiseAhead] = None,
        capture: bool = True,
        max_programs: int = 8,
    ) -> None:
        self._cuda, self._gen = cuda, gen
        self._noise = NoiseAhead() if noise is None else noise
        self._patch = int(model_config.get("latent_patch_size", 2))
        rotary = RotaryTable(tables.inv_freq(), model_config)
        self._weights = functools.lru_cache(maxsize=4)(tables.embodiment_weights)
        self.stream = stream
        self._staging = Staging(cuda)
        self._arena = PinnedArena(cuda)
        reader = und if isinstance(und, PromptReader) else PrefillReader(cuda, und, workspace)
        self._prompts = DevicePrompts(cuda, reader, gen.dtype, tables, rotary)
        self._buffers: Optional[TickBuffers] = None
        self._last: Optional[tuple[GenInputs, SamplerSettings]] = None
        self._in_slot: dict[str, Optional[DevicePrompt]] = dict.fromkeys(BRANCHES)
        self._programs = Programs(
            cuda,
            gen,
            solvers,
            rotary,
            workspace,
            self._staging,
            self.stream,
            patch=self._patch,
            capture=capture,
            max_programs=max_programs,
        )
        self._launcher = Launcher(cuda, self._programs, self._staging, stream)

    @property
    def prompts(self) -> DevicePrompts:
        """The prompts kept, with hits and misses over the loop's life."""
        return self._prompts

    @property
    def finished(self) -> Event:
        """Recorded behind the last step of each request."""
        return self._launcher.finished

    @property
    def programs(self) -> tuple[Union[TickProgram, BranchPair], ...]:
        """The kinds of requests kept, the oldest first."""
        return self._programs.kept()

    def run(self, inputs: GenInputs, settings: SamplerSettings, watch: Optional[StepWatch] = None) -> GenResult:
        """Denoises one request from host arrays; as `DenoiseLoop.run`, with the same errors and CudaError."""
        return self.denoise(
            inputs, settings, lambda buffers: self._upload_vision(buffers, inputs), vision=True, watch=watch
        )

    def denoise(
        self,
        inputs: GenInputs,
        settings: SamplerSettings,
        fill_vision: FillVision,
        *,
        vision: bool,
        watch: Optional[StepWatch] = None,
    ) -> GenResult:
        """Denoises one request whose clean frames may already be on the device.

        Args:
            inputs: the request; `vision_clean` gives the shape alone.
            settings: the sampler's.
            fill_vision: puts the clean frames in place, called once buffers and prompts are ready.
            vision: whether the latents are downloaded; without, `GenResult.vision` is empty.
            watch: called at each step, which is then launched and waited for by itself.

        Raises:
            ContractError, UsageError: as `DenoiseLoop.run`.
            NonFiniteError: NaN or infinity; names the graph, the step and the branch.
            CudaError: the GPU or an engine library failed; nothing is left running.
        """
        start = time.perf_counter()
        tokens = prompts_of(inputs, settings.guidance_plan(), settings.schedule())
        check_request(inputs, tokens, self._gen.contract)
        weights = self._weights(inputs.domain_id, inputs.raw_dim)
        hits, misses = self._prompts.hits, self._prompts.misses
        try:
            with span("prefill"):
                buffers = self._buffers_for(inputs)
                prompts = self._prompts_of(tokens)
            prefill_ms = _since_ms(start)
            noise_start = time.perf_counter()
            with span("noise"):
                noise, ahead = self._noise.take(inputs.seed, buffers.layout.noise_count)
            noise_ms = _since_ms(noise_start)
            with span("enqueue"):
                buffers.use_embodiment(weights, self.stream)
                fill_vision(buffers)
                outcome = self._launch(Launch(inputs, settings, buffers, prompts, noise, watch), vision)
            with span("wait"):
                self.stream.synchronize()
            outcome.tell_times()
        except BaseException:
            self._settle()
            raise
        outcome.check()
        self._last = _without_frames(inputs), settings
        timings = LoopTimings(prefill_ms, 0.0, noise_ms, outcome.steps, _since_ms(start), graph_ms=outcome.graph_ms())
        counters = LoopCounters(
            forwards=outcome.forwards,
            prefills=self._prompts.misses - misses,
            prompt_hits=self._prompts.hits - hits,
            rope_hits=0 if outcome.made else len(prompts),
            noise_ahead=ahead,
            launch=outcome.launch,
            reused=outcome.reused,
        )
        return _result(buffers, vision, timings, counters)

    def prepare(self, token_ids: IntArray) -> None:
        """Makes K and V of a prompt ready; as `DenoiseLoop.prepare`, with the same errors and CudaError.

        May run in another thread beside a request where `prompts.aside` says so.
        """
        self._prompts.prepare(token_ids, self.stream)

    def rehearse(self, token_ids: IntArray) -> Iterator[None]:
        """Makes the last request ready for another prompt, whose length may be new: contexts that have run, a captured
        graph. In steps, of which none is longer than a forward; between two of them requests may run.

        Raises:
            ContractError, OutOfDeviceMemoryError, CudaError: as `run` would with this prompt.
        """
        if self._last is None or host_reason(self._last[1]) is not None:
            return
        inputs, settings = dataclasses.replace(self._last[0], cond_tokens=token_ids), self._last[1]
        yield
        try:
            buffers = self._buffers_for(inputs)
            prompts = self._prompts_of(prompts_of(inputs, settings.guidance_plan(), settings.schedule()))
            program, _ = self._programs.take(inputs, settings, prompts, buffers)
            self._place(buffers, prompts)
            self.stream.synchronize()
            yield
            yield from program.rehearse(self.stream)
        except Exception:
            self._settle()
            raise

    def close(self) -> None:
        """Gives back all device memory but the engines', and stops the noise thread; harmless when repeated."""
        self._noise.close()
        self._programs.drop()
        self._prompts.free()
        if self._buffers is not None:
            self._buffers.free()
            self._buffers = None

    def _buffers_for(self, inputs: GenInputs) -> TickBuffers:
        channels, frames, rows, columns = inputs.vision_clean.shape
        actions, width = inputs.action_clean.shape
        sound = (self._gen.contract.sizes["Q"], inputs.sound_latents) if inputs.sound_latents else (0, 0)
        layout = StateLayout((channels, frames, rows, columns), (actions, width), sound)
        if self._buffers is None or self._buffers.layout != layout:
            self._programs.drop()
            if self._buffers is not None:
                self._buffers.free()
                self._buffers = None
            dims = gen_dims(inputs, 1, self._patch)
            self._buffers = TickBuffers(self._cuda, self._gen, layout, dims, self._arena)
            self._buffers.clear(self.stream)
            self._in_slot = dict.fromkeys(BRANCHES)
        return self._buffers

    def _launch(self, launch: Launch, vision: bool) -> Outcome:
        """Everything goes up, the steps run, what is asked for comes down; nothing is waited for."""
        self._place(launch.buffers, launch.prompts)
        self._upload(launch.buffers, launch.inputs, launch.noise)
        outcome = self._launcher.run(launch)
        self._download(launch.buffers, vision)
        return outcome

    def _prompts_of(self, tokens: Sequence[IntArray]) -> list[DevicePrompt]:
        prompts: list[DevicePrompt] = []
        for ids in tokens:
            prompts.append(self._prompts.encode(ids, self.stream, prompts))
        return prompts

    def _place(self, buffers: TickBuffers, prompts: Sequence[DevicePrompt]) -> None:
        """Puts each branch's K and V where its context reads them."""
        for name, prompt in zip(BRANCHES, prompts):
            if self._in_slot[name] is not prompt:
                slot = buffers.pointer(f"und_kv_{name}")
                self._cuda.copy(slot, prompt.memory.pointer, prompt.nbytes, self.stream)
                self._in_slot[name] = prompt

    def _upload(self, buffers: TickBuffers, inputs: GenInputs, noise: Any) -> None:
        buffers.noise[...] = noise
        buffers.vision_noisy[...] = inputs.vision_noisy
        buffers.action_noisy[...] = inputs.action_noisy
        # Serves both ways: clean rows go up, results come down
        buffers.action[...] = inputs.action_clean
        buffers.sound_noisy[...] = 1
        buffers.put(buffers.part("clean", "action"), buffers.action, self.stream)
        for name in ("noise", *buffers.masks):
            buffers.put(buffers.pointer(name), getattr(buffers, name), self.stream)

    def _upload_vision(self, buffers: TickBuffers, inputs: GenInputs) -> None:
        buffers.vision[...] = inputs.vision_clean
        buffers.put(buffers.pointer("clean"), buffers.vision, self.stream)

    def _download(self, buffers: TickBuffers, vision: bool) -> None:
        buffers.get(buffers.action, buffers.part("state", "action"), self.stream)
        buffers.get(buffers.sound, buffers.part("state", "sound"), self.stream)
        if vision:
            buffers.get(buffers.vision, buffers.pointer("state"), self.stream)

    def _settle(self) -> None:
        """After a failure: waits for what was enqueued, and forgets everything whose content is no longer certain."""
        # The first failure is the one that is told
        with contextlib.suppress(CudaError):
            self.stream.synchronize()
        self._in_slot = dict.fromkeys(BRANCHES)
        self._programs.drop()


def _result(buffers: TickBuffers, vision: bool, timings: LoopTimings, counters: LoopCounters) -> GenResult:
    """What was downloaded, in arrays of its own; NonFiniteError where velocities were finite and this is not."""
    frames = buffers.vision if vision else buffers.vision[:0]
    for value in (buffers.action, buffers.sound, frames):
        check_finite(value, "the solver returned NaN or infinity")
    sound = buffers.sound.copy() if buffers.layout.sound_count else None
    latents = frames.copy() if vision else np.empty((0, *buffers.layout.vision_shape[1:]), np.float32)
    return GenResult(latents, buffers.action.copy(), timings, counters, sound)


def _without_frames(inputs: GenInputs) -> GenInputs:
    """A request of which shapes and masks are left; the frames take no memory."""
    shape: FloatArray = np.broadcast_to(np.float32(0), inputs.vision_clean.shape)
    return dataclasses.replace(inputs, vision_clean=shape)


def _since_ms(start: float) -> float:
    return 1e3 * (time.perf_counter() - start)
