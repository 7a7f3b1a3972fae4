"""One reply of the reasoner in steps, between which others may work, and what follows from it for the generator."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Optional, Protocol, Union

from motedge.errors import MotedgeError
from motedge.runtime.policy.resize import Image
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.question import question_text, read_answer
from motedge.runtime.reasoned.reasoning import Reasoning
from motedge.runtime.reasoner.bundle_reasoner import question
from motedge.runtime.reasoner.events import STOP, Event, Finished, Pause, Started
from motedge.runtime.reasoner.prompt import ReasonerPrompt
from motedge.runtime.reasoner.sampling import SamplingOptions

# Each step is a forward at most; what is returned at the end is what came of it
Thinking = Generator[None, None, Reasoning]


class AskedReasoner(Protocol):
    """What is needed of `motedge.runtime.reasoner.bundle_reasoner.BundleReasoner`."""

    def prompt(
        self, messages: Sequence[Mapping[str, Any]], images: Sequence[Image] = (), *, thinking: Optional[bool] = None
    ) -> ReasonerPrompt:
        """The prompt of a conversation."""
        ...

    def steps(
        self, prompt: ReasonerPrompt, options: SamplingOptions, *, piece: Optional[int] = None
    ) -> Iterator[Union[Event, Pause]]:
        """Answers it in steps."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of a GPU's memory, by purpose."""
        ...

    def close(self) -> None:
        """Frees the engines."""
        ...


class Writer(Protocol):
    """Makes the generator's text."""

    def plain(self, instruction: str) -> str:
        """Without a plan."""
        ...

    def planned(self, instruction: str, plan: Mapping[str, Any]) -> str:
        """With one."""
        ...

    def prepare(self, prompt: str) -> Iterator[None]:
        """Makes the generator ready for it, in steps. Raises MotedgeError where it can't take it: it is too long."""
        ...


def think_about(
    reasoner: AskedReasoner,
    instruction: str,
    look: Callable[[], Optional[Image]],
    options: ReasonOptions,
    writer: Writer,
    seen: str = "frame",
) -> Thinking:
    """Asks, reads the answer, and makes the generator ready for the text that follows; never fails for what is written.

    Args:
        reasoner: who is asked.
        instruction: what shall be done or seen.
        look: gives the image, uint8 [rows, columns, 3], at the first step; None: there is none.
        options: how.
        writer: makes the generator's text.
        seen: what the image is, "robot" or "frame".

    Raises:
        MotedgeError: the generator can't take the plain instruction either.
    """
    timings: dict[str, float] = {}
    finished: Optional[Finished] = None
    failure: Optional[str] = None
    try:
        begin = time.perf_counter()
        image = look()
        text = question_text(options.mode, instruction, "nothing" if image is None else seen)
        images = [] if image is None else [image]
        prompt = reasoner.prompt(question(text, len(images)), images, thinking=options.thinking)
        timings["prompt_ms"] = _since_ms(begin)
        yield
        for event in reasoner.steps(prompt, options.tokens(), piece=None if options.within_ticks else options.piece):
            if isinstance(event, Pause):
                yield
            elif isinstance(event, Started):
                timings.update(vision_ms=event.vision_ms, prefill_ms=event.prefill_ms)
            elif isinstance(event, Finished):
                finished = event
                timings["decode_ms"] = event.decode_ms
    except MotedgeError as error:
        # The robot goes on without a plan; the reply says why
        failure = _in_a_line("the reasoner failed", error)
    # The reply ended with a forward, and what follows is one too
    yield
    steps, timings["prepare_ms"] = _conclude(instruction, finished, failure, options.mode, writer), 0.0
    while True:
        begin = time.perf_counter()
        try:
            next(steps)
        except StopIteration as done:
            timings["prepare_ms"] += _since_ms(begin)
            result: Reasoning = done.value
            return dataclasses.replace(result, timings_ms=timings)
        timings["prepare_ms"] += _since_ms(begin)
        yield


def run_through(thinking: Thinking) -> Reasoning:
    """All steps at once."""
    while True:
        try:
            next(thinking)
        except StopIteration as done:
            result: Reasoning = done.value
            return result


def _conclude(
    instruction: str, finished: Optional[Finished], failure: Optional[str], mode: str, writer: Writer
) -> Thinking:
    """Reads the answer and prepares the text; the plain one where there is no plan, or one that is too long."""
    if finished is None:
        nothing = Reasoning(mode, instruction, "", problem=failure or "the reasoner wrote nothing")
        return (yield from _plain(nothing, writer))
    reading = read_answer(mode, finished.answer, complete=finished.reason == STOP)
    written = Reasoning(
        mode,
        instruction,
        "",
        answer=finished.answer,
        thoughts=finished.thinking,
        problem=reading.problem,
        ended=finished.reason,
        tokens=len(finished.token_ids),
    )
    if reading.plan is None:
        return (yield from _plain(written, writer))
    prompt = writer.planned(instruction, reading.plan)
    try:
        yield from writer.prepare(prompt)
    except MotedgeError as error:
        problem = _in_a_line("the generator can't take the plan", error)
        return (yield from _plain(dataclasses.replace(written, problem=problem), writer))
    return dataclasses.replace(written, prompt=prompt, plan=reading.plan)


def _plain(reasoning: Reasoning, writer: Writer) -> Thinking:
    prompt = writer.plain(reasoning.instruction)
    yield from writer.prepare(prompt)
    return dataclasses.replace(reasoning, prompt=prompt)


def _in_a_line(what: str, error: MotedgeError) -> str:
    return f"{what}: {error.what}" + ("" if error.got is None else f" ({error.got})")


def _since_ms(begin: float) -> float:
    return 1e3 * (time.perf_counter() - begin)
