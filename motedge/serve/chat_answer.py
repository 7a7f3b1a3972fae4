"""Replies of the reasoner in OpenAI's form."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Optional

from motedge.runtime.reasoner.events import CANCELLED, LENGTH, Finished, Started
from motedge.runtime.reasoner.thinking import THINKING, Part

DONE = b"data: [DONE]\n\n"


class ChatAnswer:
    """One reply; its id and time are the same in every piece of it."""

    def __init__(self, model: str) -> None:
        """`model`: its name."""
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, started: Optional[Started], finished: Finished) -> dict[str, Any]:
        """The whole reply; thoughts, if there are any, in `reasoning_content`, as vLLM has them."""
        message: dict[str, Any] = {"role": "assistant", "content": finished.answer}
        if finished.thinking:
            message["reasoning_content"] = finished.thinking
        choice = {"index": 0, "message": message, "finish_reason": finish_reason(finished), "logprobs": None}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage(started, finished),
            "timings_ms": timings_ms(started, finished),
        }

    def opening(self) -> bytes:
        """The first piece of a stream."""
        return self._piece({"role": "assistant", "content": ""})

    def part(self, part: Part) -> bytes:
        """A piece of text."""
        return self._piece({"reasoning_content" if part.kind == THINKING else "content": part.text})

    def closing(self, finished: Finished) -> bytes:
        """The last piece, which says why it is the last."""
        return self._piece({}, finish_reason(finished))

    def counts(self, started: Optional[Started], finished: Finished) -> bytes:
        """The piece with the counts of tokens, if it was asked for."""
        body = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(started, finished)}
        return _event(body)

    def _piece(self, delta: dict[str, Any], reason: Optional[str] = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _event({**self._head, "object": "chat.completion.chunk", "choices": [choice]})


def error_body(text: str, kind: str, code: Optional[str] = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


def error_event(text: str, kind: str) -> bytes:
    """An error within a stream."""
    return _event(error_body(text, kind))


def finish_reason(finished: Finished) -> str:
    """OpenAI knows no "cancelled": such a reply was cut off."""
    return "length" if finished.reason in (LENGTH, CANCELLED) else "stop"


def usage(started: Optional[Started], finished: Finished) -> dict[str, int]:
    """Counts of tokens."""
    prompt = 0 if started is None else started.prompt_tokens
    reply = len(finished.token_ids)
    return {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}


def timings_ms(started: Optional[Started], finished: Finished) -> dict[str, float]:
    """Times of the reply's stages."""
    seen = {} if started is None else {"vision_ms": started.vision_ms, "prefill_ms": started.prefill_ms}
    return {name: round(value, 3) for name, value in {**seen, "decode_ms": finished.decode_ms}.items()}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
