"""The reasoner's loop: a prompt is read once, then tokens come one by one until the model, a limit or the caller stops.

It knows engines by their ports alone, and yields between tokens, so that a caller can act, show the text, or stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Optional, Union

import numpy as np

from motedge.errors import UsageError
from motedge.runtime.engine import FloatArray, IntArray
from motedge.runtime.finite import check_finite
from motedge.runtime.reasoner.events import CANCELLED, LENGTH, STOP, Event, Finished, Pause, Started
from motedge.runtime.reasoner.ports import UndStep, VisionTower, VisualTokens
from motedge.runtime.reasoner.prompt import ReasonerPrompt
from motedge.runtime.reasoner.sampling import Sampler, SamplingOptions
from motedge.runtime.reasoner.stop_texts import StopTexts
from motedge.runtime.reasoner.thinking import ANSWER, THINK_END, THINK_START, THINKING, Part, ThinkingSplitter
from motedge.runtime.reasoner.visual_input import VisualInput
from motedge.runtime.rope import RotaryTable
from motedge.runtime.text.codec import TextCodec
from motedge.runtime.text.stream import TextStream

Cancelled = Callable[[], bool]


class Reasoner:
    """One model. Not for use by two threads at once, nor for two replies at once."""

    def __init__(
        self,
        codec: TextCodec,
        embed: Callable[[IntArray], FloatArray],
        rotary: RotaryTable,
        und: UndStep,
        vision: Optional[VisionTower],
        *,
        stop_tokens: Collection[int],
    ) -> None:
        """Takes the parts.

        Args:
            codec: tokenizer and chat template.
            embed: token ids int64 [n] -> fp32 [n, H].
            rotary: cos and sin of positions.
            und: the understanding tower.
            vision: the vision encoder; None if the model was exported without it.
            stop_tokens: ids of which each ends a reply.
        """
        self._codec, self._embed, self._rotary, self._und, self._vision = codec, embed, rotary, und, vision
        self._stop_tokens = frozenset(stop_tokens)

    @property
    def capacity(self) -> int:
        """Tokens of prompt and reply together."""
        return self._und.capacity

    def generate(
        self,
        prompt: ReasonerPrompt,
        options: SamplingOptions = SamplingOptions(),  # noqa: B008 -- frozen
        *,
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[Event]:
        """Answers a prompt: `Started`, then `Part`s of text, then `Finished`.

        Args:
            prompt: as PromptBuilder makes it.
            options: how tokens are chosen.
            cancelled: asked before each step; closing the iterator cancels as well.

        Raises:
            UsageError: a prompt that is empty or too long, or images without a vision encoder.
            NonFiniteError: an engine returned NaN or infinity.
        """
        for event in self.steps(prompt, options, cancelled=cancelled):
            if not isinstance(event, Pause):
                yield event

    def steps(
        self,
        prompt: ReasonerPrompt,
        options: SamplingOptions = SamplingOptions(),  # noqa: B008 -- frozen
        *,
        cancelled: Cancelled = lambda: False,
        piece: Optional[int] = None,
    ) -> Iterator[Union[Event, Pause]]:
        """As `generate`, with a `Pause` after the images, after each piece of the prompt and before each token's parts.

        `piece`: tokens of the prompt that are read at once, no more than the tower takes; None: as many as it takes.
        """
        count = self._checked_length(prompt)
        begin = time.perf_counter()
        embeddings, deepstack = self._embedded(prompt)
        angles = self._rotary.table(prompt.positions.prompt.astype(np.float32))
        vision_ms = _since_ms(begin)
        if prompt.visual_tokens:
            yield Pause(0)
        size, prefill_ms = min(piece or self._und.max_new, self._und.max_new), 0.0
        for start in range(0, count, size):
            begin = time.perf_counter()
            logits = self._read(embeddings, angles, deepstack, slice(start, start + size))
            prefill_ms += _since_ms(begin)
            yield Pause(0)
        yield Started(count, prompt.visual_tokens, vision_ms, prefill_ms)
        stream = TextStream(self._codec.tokenizer, shown=(THINK_START, THINK_END))
        text = _ReplyText(stream, prompt.thinking, StopTexts(options.stop))
        # The last token need not be held
        limit = min(options.max_new_tokens, self._und.capacity - count + 1)
        sampler, reason, spent_ms = Sampler(options, prompt.token_ids), LENGTH, 0.0
        token_ids: list[int] = []
        while len(token_ids) < limit:
            if cancelled():
                reason = CANCELLED
                break
            begin = time.perf_counter()
            if token_ids:
                logits = self._decode(prompt, token_ids[-1], count + len(token_ids) - 1)
            check_finite(logits, f"graph 'und' returned NaN or infinity after {count + len(token_ids)} tokens")
            token = sampler.next(logits)
            parts = [] if token in self._stop_tokens else text.push(token)
            # What the caller does between tokens is not ours
            spent_ms += _since_ms(begin)
            if token in self._stop_tokens:
                reason = STOP
                break
            token_ids.append(token)
            yield Pause(len(token_ids))
            yield from parts
            if text.stopped:
                reason = STOP
                break
        yield from text.finish()
        yield Finished(STOP if text.stopped else reason, text.of(THINKING), text.of(ANSWER), tuple(token_ids), spent_ms)

    def _checked_length(self, prompt: ReasonerPrompt) -> int:
        count = len(prompt.token_ids)
        if not 0 < count <= self._und.capacity:
            raise UsageError(
                "the prompt is empty or too long",
                expected=f"1 to {self._und.capacity} tokens",
                got=f"{count} tokens, {prompt.visual_tokens} of them visual",
                fix="smaller images, fewer frames (--video-hz), less text, or a larger --capacity, up to the graph's",
            )
        if prompt.visual_tokens and self._vision is None:
            raise UsageError(
                "this bundle can't see images", why="it was exported without vision_encoder", fix="export it with it"
            )
        return count

    def _embedded(self, prompt: ReasonerPrompt) -> tuple[FloatArray, Optional[FloatArray]]:
        """Embeddings of the prompt with visual tokens in place, fp32 [n, H], and what deepstack adds."""
        embeddings = self._embed(prompt.token_ids)
        deepstack: Optional[FloatArray] = None
        for places, visuals in ((prompt.image_places, prompt.images), (prompt.video_places, prompt.videos)):
            begin = 0
            for seen in self._seen(visuals):
                here = places[begin : begin + len(seen.tokens)]
                begin += len(seen.tokens)
                embeddings[here] = seen.tokens
                if seen.deepstack is not None:
                    if deepstack is None:
                        deepstack = np.zeros((len(seen.deepstack), *embeddings.shape), np.float32)
                    deepstack[:, here] = seen.deepstack
        return embeddings, deepstack

    def _seen(self, visuals: tuple[VisualInput, ...]) -> Iterator[VisualTokens]:
        return (self._vision.encode(visual) for visual in visuals if self._vision is not None)

    def _read(
        self,
        embeddings: FloatArray,
        angles: tuple[FloatArray, FloatArray],
        deepstack: Optional[FloatArray],
        part: slice,
    ) -> FloatArray:
        """A piece of the prompt through the tower; logits of the token after it."""
        cos, sin = angles
        added = None if deepstack is None else np.ascontiguousarray(deepstack[:, part])
        return self._und.step(embeddings[part], cos[part], sin[part], part.start, added)

    def _decode(self, prompt: ReasonerPrompt, token: int, index: int) -> FloatArray:
        cos, sin = self._rotary.table(prompt.positions.generated(index))
        return self._und.step(self._embed(np.array([token], np.int64)), cos, sin, index, None)


class _ReplyText:
    """Tokens to parts, and the whole of each kind."""

    def __init__(self, stream: TextStream, thinking: bool, stop: StopTexts) -> None:
        self._stream, self._splitter, self._stop = stream, ThinkingSplitter(thinking=thinking), stop
        self._texts: dict[str, list[str]] = {THINKING: [], ANSWER: []}

    @property
    def stopped(self) -> bool:
        return self._stop.found

    def push(self, token: int) -> list[Part]:
        return self._noted(self._splitter.push(self._stream.push(token)))

    def finish(self) -> list[Part]:
        parts = self._noted([*self._splitter.push(self._stream.finish()), *self._splitter.finish()])
        return [*parts, *self._kept(Part(ANSWER, self._stop.finish()))]

    def of(self, kind: str) -> str:
        return "".join(self._texts[kind])

    def _noted(self, parts: list[Part]) -> list[Part]:
        """Of the answer what stands before a text that ends it; of thoughts all that came before."""
        noted: list[Part] = []
        for part in parts:
            if self.stopped:
                break
            if part.kind == ANSWER:
                noted += self._kept(Part(ANSWER, self._stop.push(part.text)))
            else:
                # The answer that was held back came before them
                noted += [*self._kept(Part(ANSWER, self._stop.finish())), *self._kept(part)]
        return noted

    def _kept(self, part: Part) -> list[Part]:
        if part.text:
            self._texts[part.kind].append(part.text)
        return [part] if part.text else []


def _since_ms(begin: float) -> float:
    return 1e3 * (time.perf_counter() - begin)
