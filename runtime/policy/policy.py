"""The policy: an observation goes in, a chunk of actions comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional, Protocol

from motedge.bundle import Contract
from motedge.errors import ObservationError
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.fair_lock import FairLock
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.embodiments import Embodiment
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.prompt import Clip
from motedge.runtime.policy.protocols import find_protocol
from motedge.runtime.policy.resize import Image
from motedge.runtime.policy.seeds import RequestSeeds
from motedge.runtime.policy.shape import PolicyShape
from motedge.runtime.policy.tick import PolicyTick, TickRequest, TickResult
from motedge.runtime.request import SamplerSettings
from motedge.runtime.spans import span

# Prompts whose token ids are kept; a robot changes its task rarely
_KEPT_PROMPTS = 32


class Tokenizer(Protocol):
    """What the policy needs of `motedge.runtime.text.PromptTokenizer`."""

    def encode(self, prompt: str) -> IntArray:
        """Token ids of a prompt, int64 [n]."""
        ...


class Policy:
    """Acts on one loaded bundle. `act` may be called from several threads; requests wait for one another."""

    def __init__(
        self,
        *,
        tick: PolicyTick,
        tokenizer: Tokenizer,
        gen_contract: Contract,
        shape: PolicyShape,
        embodiment: Embodiment,
        settings: SamplerSettings,
        prompt_format: str,
        seeds: RequestSeeds,
        notes: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Takes over what `load_policy` opened; `tick` is closed with the policy; `notes` join a chunk's details."""
        self.protocol = find_protocol(embodiment)
        self.shape, self.embodiment, self.settings = shape, embodiment, settings
        self._tick, self._tokenizer, self._contract, self._seeds = tick, tokenizer, gen_contract, seeds
        self._prompt_format, self._notes = prompt_format, dict(notes or {})
        self._clip = Clip(shape.frames, shape.fps, shape.canvas)
        self._tokens: dict[str, IntArray] = {}
        # A prompt may be prepared while another request runs
        self._tokenizing = threading.Lock()
        # In the order of asking: a rehearsal, which takes it again and again, must not keep a tick waiting
        self._lock = FairLock()

    def act(
        self,
        observation: Observation,
        *,
        seed: Optional[int] = None,
        settings: Optional[SamplerSettings] = None,
        committed: Optional[FloatArray] = None,
        prompt: Optional[str] = None,
    ) -> ActionChunk:
        """The next chunk of actions.

        Args:
            observation: What the robot sees and is told.
            seed: Seed of the noise, 0 to 2**32 - 1; None takes the next one of the policy's own sequence.
            settings: Sampler settings of this request; None takes the policy's.
            committed: fp32 [n, fields], actions that the robot will execute in any case while this runs, from the
                observation on, in the chunk's units. They are the chunk's first n rows, and what follows continues
                them. The released policies were trained with the state row alone as given.
            prompt: The whole text that the model is given, in place of the one that `prompt` makes of the instruction.

        Raises:
            ObservationError: the instruction is longer than the graphs allow.
            ContractError: committed actions that are no actions, or leave nothing to generate.
            NonFiniteError: a graph returned NaN or infinity.
        """
        with self._lock, span("tick"):
            text = self.prompt(observation.instruction) if prompt is None else prompt
            return self._act(observation, seed, settings or self.settings, committed, text)

    def prepare(self, prompt: str) -> None:
        """Makes a prompt ready, a whole text as in `act`: the tick that first uses it costs no prefill.

        Raises:
            ObservationError: it is longer than the graphs allow.
            NonFiniteError: a graph returned NaN or infinity.
        """
        tokens = self._encode(prompt)
        if self.prepares_aside:
            self._tick.prepare(tokens)
            return
        with self._lock:
            self._tick.prepare(tokens)

    def rehearse(self, prompt: str) -> Iterator[None]:
        """Makes the last request ready for a prompt that was prepared, in steps between which others may act.

        A tick whose prompt is of a new length makes contexts, and on a GPU is launched piece by piece, and the next
        one captured. After this it is as the later ones. On the host there is nothing to do.

        Raises:
            ObservationError, OutOfDeviceMemoryError and others: what its first tick would raise.
        """
        steps = self._tick.rehearse(self._encode(prompt))
        while True:
            with self._lock:
                if next(steps, self) is self:
                    return
            yield

    @property
    def prepares_aside(self) -> bool:
        """Whether `prepare` may run while `act` does; otherwise they wait for each other."""
        return self._tick.prepares_aside

    def prompt(self, instruction: str) -> str:
        """The text that the model is given for an instruction."""
        return self.protocol.prompt(instruction, self._clip, self.embodiment, self._prompt_format)

    def see(self, observation: Observation) -> tuple[Image, tuple[str, ...]]:
        """The image that the model is given, uint8 [content rows, columns, 3], and the views missing from it.

        Where a frame is on the GPU, the image is composed there and comes from there.
        """
        if not observation.on_gpu:
            return self.protocol.image(observation, self.shape)
        with self._lock:
            missing = self._tick.see(observation)
            return self._tick.seen(), missing

    def memory_bytes(self) -> dict[str, int]:
        """What the policy holds of a GPU's memory, by purpose, as near as the libraries tell; empty on the host."""
        with self._lock:
            return self._tick.memory_bytes()

    def close(self) -> None:
        """Frees the engines and stops the noise thread, once a request that is under way is done."""
        with self._lock:
            self._tick.close()

    def __enter__(self) -> Policy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _act(
        self,
        observation: Observation,
        seed: Optional[int],
        settings: SamplerSettings,
        committed: Optional[FloatArray],
        prompt: str,
    ) -> ActionChunk:
        clock = _Clock()
        if committed is not None and not len(committed):
            committed = None
        with span("tokenize"):
            tokens, unconditional = self._encode(prompt), self._encode("")
        clock.lap("tokenize_ms")
        with span("ingest"):
            size = {"rows": self.shape.rows, "width": self._contract.sizes["Z"]}
            rows = self.protocol.rows(observation, committed, **size)
            missing = self._tick.see(observation)
        clock.lap("image_ms")
        # Only now, so that a refused observation does not shift the seeds of those after it
        taken = self._seeds.take() if seed is None else seed
        given = 0 if committed is None else len(committed)
        request = TickRequest(
            action_clean=rows,
            cond_tokens=tokens,
            uncond_tokens=unconditional,
            domain_id=self.embodiment.domain_id,
            raw_dim=len(self.embodiment.fields),
            seed=taken,
            clean_rows=self.shape.state_rows + given,
            start_offset=1 - self.shape.state_rows,
        )
        result = self._tick.run(request, settings)
        clock.lap("tick_ms")
        details = {
            "und_len": len(tokens),
            "und_len_unconditional": len(unconditional),
            "committed_rows": given,
        }
        with span("decode"):
            return self._chunk(observation, result, settings, clock, taken, missing, details)

    def _chunk(
        self,
        observation: Observation,
        result: TickResult,
        settings: SamplerSettings,
        clock: _Clock,
        seed: int,
        missing: tuple[str, ...],
        details: dict[str, Any],
    ) -> ActionChunk:
        actions = self.protocol.actions(result.action)
        loop = result.timings
        timings = {
            **clock.laps_ms,
            **result.stages_ms,
            "loop_ms": loop.total_ms,
            "prefill_ms": loop.prefill_ms,
            "rope_ms": loop.rope_ms,
            "noise_ms": loop.noise_ms,
            "gen_ms": loop.gen_ms,
            "solver_ms": loop.solver_ms,
            "total_ms": clock.total_ms(),
        }
        return ActionChunk(
            actions=actions,
            rate_hz=self.shape.fps,
            field_names=self.embodiment.fields,
            units=self.embodiment.units,
            embodiment=self.embodiment.name,
            seed=seed,
            forwards=result.counters.forwards,
            missing_views=missing,
            timings_ms=timings,
            details={
                "steps": settings.steps,
                "shift": settings.shift,
                "guidance": settings.guidance,
                "guidance_interval": list(settings.guidance_interval) if settings.guidance_interval else None,
                "step_cache": None if settings.step_cache is None else str(settings.step_cache),
                **details,
                **self._notes,
                **result.counters.to_dict(),
            },
            source=observation.source,
        )

    def _encode(self, prompt: str) -> IntArray:
        tokens = self._tokens.get(prompt)
        if tokens is None:
            with self._tokenizing:
                return self._encode_anew(prompt)
        return tokens

    def _encode_anew(self, prompt: str) -> IntArray:
        tokens = self._tokenizer.encode(prompt)
        low, _, high = self._contract.profile["U"]
        if not low <= len(tokens) <= high:
            raise ObservationError(
                "the instruction is too long",
                expected=f"at most {high} tokens, the form around it included",
                got=f"{len(tokens)} tokens from {len(prompt)} characters",
                fix="say it in fewer words, or export with a shape set with more max_prompt_tokens",
            )
        if len(self._tokens) >= _KEPT_PROMPTS:
            self._tokens.pop(next(key for key in self._tokens if key))
        self._tokens[prompt] = tokens
        return tokens


class _Clock:
    """Laps of wall time."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps_ms: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps_ms[name] = (now - self._last) * 1e3
        self._last = now

    def total_ms(self) -> float:
        return (time.perf_counter() - self._start) * 1e3
