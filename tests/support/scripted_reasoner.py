"""A reasoner that writes what it is told to, a word a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, Union

from motedge.runtime.reasoner.events import LENGTH, STOP, Event, Finished, Pause, Started
from motedge.runtime.reasoner.sampling import SamplingOptions

PROMPT_PIECES = 2


class ScriptedReasoner:
    """See `motedge.runtime.reasoned.thought.AskedReasoner`."""

    def __init__(self, answer: str | Callable[[int], str] = "", ends: bool = True, thoughts: str = "") -> None:
        """`answer`: or a function of how many questions came before; `ends`: else it goes on to its limit."""
        self.answer, self.ends, self.thoughts = answer, ends, thoughts
        self.asked: list[tuple[str, int]] = []
        self.images: list[Any] = []
        self.options: list[SamplingOptions] = []
        self.left = self.closed = 0

    def prompt(self, messages: Any, images: Any = (), *, thinking: Any = None) -> Any:
        content = messages[-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        self.asked.append((text, len(images)))
        self.images.extend(images)
        return len(self.asked) - 1

    def steps(self, prompt: Any, options: SamplingOptions, *, piece: Any = None) -> Iterator[Union[Event, Pause]]:
        self.options.append(options)
        text = self.answer if isinstance(self.answer, str) else self.answer(prompt)
        words = text.split(" ")
        try:
            for _ in range(PROMPT_PIECES):
                yield Pause(0)
            yield Started(10, 4, 1.0, 2.0)
            written: list[str] = []
            while len(written) < options.max_new_tokens and (not self.ends or len(written) < len(words)):
                written.append(words[len(written)] if len(written) < len(words) else "on")
                yield Pause(len(written))
        except GeneratorExit:
            self.left += 1
            raise
        whole = self.ends and len(written) == len(words)
        yield Finished(STOP if whole else LENGTH, self.thoughts, " ".join(written), tuple(range(len(written))), 3.0)

    def memory_bytes(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.closed += 1
