"""A policy whose prompt the reasoner writes: thinks every k ticks, acts every tick."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from motedge.errors import MotedgeError, UsageError
from motedge.runtime.engine import FloatArray
from motedge.runtime.policy.chunk import ActionChunk
from motedge.runtime.policy.observation import Observation
from motedge.runtime.policy.policy import Policy
from motedge.runtime.policy.resize import Image
from motedge.runtime.reasoned.background import BackgroundThinker
from motedge.runtime.reasoned.options import JSON_PROMPT, ReasonOptions
from motedge.runtime.reasoned.question import dense_prompt, planned_instruction
from motedge.runtime.reasoned.reasoning import Reasoning
from motedge.runtime.reasoned.thought import AskedReasoner, Thinking, run_through, think_about
from motedge.runtime.request import SamplerSettings

LOG = logging.getLogger(__name__)
_NOT_YET = "no reply to this instruction is written yet"


class ReasonedPolicy:
    """Acts on the last plan while the next one is written. May be called from several threads; calls wait, but `think`.

    With a slice, `act` never thinks: call `think` between ticks. What it does there is a forward at a time, and K and V
    of the new prompt are made before the tick that first uses it. In the background a thread does the same while ticks
    run, and what it made is taken up at the beginning of a tick. With neither, `act` thinks first where a reply is due.
    """

    def __init__(
        self,
        policy: Policy,
        reasoner: AskedReasoner,
        options: ReasonOptions = ReasonOptions(),  # noqa: B008 -- frozen
    ) -> None:
        """Takes over both; they are closed with it.

        Raises:
            UsageError: a dense caption for a policy whose prompts are not JSON; thinking in the background beside a
                policy that can't have its prompts made ready meanwhile.
        """
        if options.background:
            _require_aside(policy)
        self._writer = _PolicyWriter(policy, options)
        self._policy, self._reasoner, self._options = policy, reasoner, options
        self.settings: SamplerSettings = policy.settings
        self._lock = threading.Lock()
        self._tick, self._due = 0, 0
        self._thinking: Optional[Thinking] = None
        # What is thought about: the instruction, and the tick of its observation
        self._subject: tuple[str, int] = ("", 0)
        self._latest: Optional[Reasoning] = None
        self._latest_tick = 0
        self._background = BackgroundThinker() if options.background else None

    @property
    def policy(self) -> Policy:
        """The one that acts."""
        return self._policy

    @property
    def thinks_in_act(self) -> bool:
        """Whether `act` waits for the reply where one is due: its time then says little of the next tick's."""
        return self._options.within_ticks

    def act(
        self,
        observation: Observation,
        *,
        seed: Optional[int] = None,
        settings: Optional[SamplerSettings] = None,
        committed: Optional[FloatArray] = None,
    ) -> ActionChunk:
        """The next chunk, with `reasoning`. Arguments and errors as `Policy.act`."""
        with self._lock:
            begin = time.perf_counter()
            self._collect()
            self._begin(observation)
            if self._thinking is not None and self.thinks_in_act:
                thinking, self._thinking = self._thinking, None
                self._conclude(run_through(thinking))
            reason_ms = 1e3 * (time.perf_counter() - begin)
            reasoning = self._reasoning(observation.instruction)
            chunk = self._policy.act(
                observation, seed=seed, settings=settings, committed=committed, prompt=reasoning.prompt
            )
            self._tick += 1
        timings = {**chunk.timings_ms, "reason_ms": reason_ms, "total_ms": chunk.timings_ms["total_ms"] + reason_ms}
        return dataclasses.replace(chunk, timings_ms=timings, reasoning=reasoning)

    def think(self) -> bool:
        """Spends one slice on the reply that is under way, or what is left of it; says whether one still is.

        A step is never cut short: a slice ends with the first one after its time is over. While another call runs,
        such as a tick that outlived its deadline, it does nothing and waits for nothing. Where thinking goes on in the
        background, it only says whether it does.

        Raises:
            MotedgeError: the generator can't take even the plain instruction.
        """
        if self._background is not None:
            return self._background.busy
        if not self._lock.acquire(blocking=False):
            return self._thinking is not None
        try:
            begin, steps = time.perf_counter(), 0
            while self._thinking is not None and not self._spent(steps, begin):
                steps += 1
                try:
                    next(self._thinking)
                except StopIteration as done:
                    self._conclude(done.value)
                except BaseException:
                    self._thinking = None
                    raise
            return self._thinking is not None
        finally:
            self._lock.release()

    def see(self, observation: Observation) -> tuple[Image, tuple[str, ...]]:
        """See `Policy.see`."""
        return self._policy.see(observation)

    def memory_bytes(self) -> dict[str, int]:
        """What both hold of a GPU's memory, by purpose; the reasoner's purposes begin with "reasoner: "."""
        reasoner = self._reasoner.memory_bytes()
        return {**self._policy.memory_bytes(), **{f"reasoner: {name}": size for name, size in reasoner.items()}}

    def close(self) -> None:
        """Ends the thought, then frees the policy, then the reasoner, whose weights the policy may use."""
        with self._lock, contextlib.ExitStack() as steps:
            # In reverse, each even if another fails
            steps.callback(self._reasoner.close)
            steps.callback(self._policy.close)
            if self._background is not None:
                steps.callback(self._background.close)
            self._drop()

    def __enter__(self) -> ReasonedPolicy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _begin(self, observation: Observation) -> None:
        """A reply to this observation, if one is due; one to another instruction is given up."""
        instruction = observation.instruction
        if self._subject[0] != instruction:
            self._drop()
            self._due = self._tick
        if self._under_way or self._tick < self._due:
            return
        look = self._look(observation)
        self._subject, self._due = (instruction, self._tick), self._tick + self._options.every
        thinking = think_about(self._reasoner, instruction, look, self._options, self._writer, seen="robot")
        if self._background is None:
            self._thinking = thinking
        else:
            self._background.begin(thinking)

    @property
    def _under_way(self) -> bool:
        return self._thinking is not None or (self._background is not None and not self._background.idle)

    def _collect(self) -> None:
        """Takes up what was thought in the background: from here on it is what the generator is given."""
        made = None if self._background is None else self._background.take()
        if isinstance(made, Exception):
            instruction = self._subject[0]
            plain = self._writer.plain(instruction)
            made = Reasoning(self._options.mode, instruction, plain, problem=f"thinking broke off: {made}")
        if made is not None:
            self._conclude(made)

    def _look(self, observation: Observation) -> Callable[[], Image]:
        """Gives the image of this observation, whenever it is asked for: the caller may reuse its buffers."""
        if self._options.within_ticks:
            return lambda: self._policy.see(observation)[0]
        if not observation.on_gpu:
            kept = _kept(observation)
            return lambda: self._policy.see(kept)[0]
        try:
            image = self._policy.see(observation)[0]
        except MotedgeError as error:
            return _raising(error)
        return lambda: image

    def _conclude(self, reasoning: Reasoning) -> None:
        self._thinking, self._latest, self._latest_tick = None, reasoning, self._subject[1]
        if reasoning.fell_back:
            LOG.warning("no plan: %s; the plain instruction stands in for it", reasoning.problem)

    def _reasoning(self, instruction: str) -> Reasoning:
        latest = self._latest
        if latest is None or latest.instruction != instruction:
            return Reasoning(self._options.mode, instruction, self._writer.plain(instruction), problem=_NOT_YET)
        return dataclasses.replace(latest, age_ticks=self._tick - self._latest_tick)

    def _spent(self, steps: int, begin: float) -> bool:
        options = self._options
        if options.slice_tokens is not None and steps >= options.slice_tokens:
            return True
        return options.slice_ms is not None and steps > 0 and 1e3 * (time.perf_counter() - begin) >= options.slice_ms

    def _drop(self) -> None:
        if self._thinking is not None:
            self._thinking.close()
            self._thinking = None
        if self._background is not None:
            self._background.begin(None)


def with_reasoning(
    policy: Policy,
    reasoner: AskedReasoner,
    options: ReasonOptions = ReasonOptions(),  # noqa: B008 -- frozen
) -> ReasonedPolicy:
    """A policy whose prompt the reasoner writes; both are closed with it. See `ReasonedPolicy`."""
    return ReasonedPolicy(policy, reasoner, options)


class _PolicyWriter:
    """A `Writer` for a policy."""

    def __init__(self, policy: Policy, options: ReasonOptions) -> None:
        self._policy, self._dense = policy, options.mode == JSON_PROMPT
        # Within the tick that acts on it there is nothing to be gained
        self._rehearses = not options.within_ticks
        if self._dense and not policy.prompt("go").startswith("{"):
            raise UsageError(
                "a dense caption is of no use to this policy",
                expected="a policy whose prompts are JSON",
                got="prompts in plain sentences",
                fix='take mode "plan"',
            )

    def plain(self, instruction: str) -> str:
        return self._policy.prompt(instruction)

    def planned(self, instruction: str, plan: Mapping[str, Any]) -> str:
        if self._dense:
            return dense_prompt(self._policy.prompt(instruction), plan)
        return self._policy.prompt(planned_instruction(instruction, plan))

    def prepare(self, prompt: str) -> Iterator[None]:
        self._policy.prepare(prompt)
        if self._rehearses:
            yield from self._policy.rehearse(prompt)


def _kept(observation: Observation) -> Observation:
    """The same with images of its own; all of them are on the host."""
    if observation.image is not None:
        return dataclasses.replace(observation, image=observation.image.copy())
    return dataclasses.replace(observation, views={n: v.copy() for n, v in observation.host_views().items()})


def _raising(error: MotedgeError) -> Callable[[], Image]:
    def look() -> Image:
        raise error

    return look


def _require_aside(policy: Policy) -> None:
    if not policy.prepares_aside:
        raise UsageError(
            "this policy can't act while a reply is written in the background",
            expected="engine tensorrt or tensorrt-rtx, whose prompts the reasoner's tower reads",
            why="on the host both take the same cores, and onnxruntime captures its CUDA graphs in a mode in which the"
            " calls of other threads fail",
            fix="a slice between ticks, slice_tokens or slice_ms; or load_policy(..., reasoner=...) on TensorRT",
        )
