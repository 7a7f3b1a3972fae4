"""The body of a /v1/chat/completions request as a question to the reasoner."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError, closest
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.serve.data_url import decode_data_url

ROLES = ("system", "user", "assistant")
# Taken, and without effect here
_IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
# Names of OpenAI's, and of vLLM's where OpenAI has none -> our field
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
}
# As OpenAI's
_STOPS_MOST = 4
_WHOLE = ("top_k", "seed", "max_tokens", "max_completion_tokens")
# What only one value of is served
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "tools": ([],),
    "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True, False),
}
_KNOWN = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "chat_template_kwargs",
    "stop",
    *_SAMPLING,
    *_FIXED,
    *_IGNORED,
)


@dataclass(frozen=True)
class ChatRequest:
    """A conversation whose next message is asked for."""

    model: str
    # Of the chat template: role and content, a text or a list of parts; images and videos are placeholders
    messages: tuple[Mapping[str, Any], ...]
    # Files, in the order of their placeholders
    images: tuple[bytes, ...] = ()
    videos: tuple[bytes, ...] = ()
    options: SamplingOptions = SamplingOptions()  # noqa: RUF009 -- frozen
    # None: as the model's template has it
    thinking: Optional[bool] = None
    stream: bool = False
    # Whether a stream ends with the counts of tokens
    usage: bool = False


def chat_request(body: bytes, media: int) -> ChatRequest:
    """Reads a body, in which there are at most so many images and videos.

    Raises:
        UsageError: no JSON, a field that is unknown or not served, a value out of range, too many images and videos.
        ObservationError: an image or video that is not in the request.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError("the body is not JSON", got=str(error)) from error
    if not isinstance(fields, dict):
        raise UsageError("the body is not a JSON object", got=type(fields).__name__)
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if name not in _KNOWN:
            raise UsageError(f"unknown field {name!r}", fix=closest(name, _KNOWN))
        if name in _FIXED and value not in _FIXED[name]:
            raise UsageError(f"{name} is not served", expected=f"{_FIXED[name][0]!r}, or nothing", got=repr(value)[:80])
    parts = _Parts(media)
    messages = tuple(parts.message(entry) for entry in _list(given.get("messages"), "messages"))
    if not messages:
        raise UsageError("messages is empty", expected="at least one, of the user")
    return ChatRequest(
        model=str(given.get("model", "")),
        messages=messages,
        images=tuple(parts.images),
        videos=tuple(parts.videos),
        options=_sampling(given),
        thinking=_flag(_map(given, "chat_template_kwargs", ("enable_thinking",)), "enable_thinking"),
        stream=bool(_flag(given, "stream")),
        usage=bool(_flag(_map(given, "stream_options", ("include_usage", "include_obfuscation")), "include_usage")),
    )


class _Parts:
    """Collects what messages show."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.images: list[bytes] = []
        self.videos: list[bytes] = []

    def message(self, entry: Any) -> dict[str, Any]:
        if not isinstance(entry, dict) or entry.get("role") not in (*ROLES, "developer"):
            role = entry.get("role") if isinstance(entry, dict) else entry
            raise UsageError("a message without a role", expected=f"role {', '.join(ROLES)}", got=repr(role)[:80])
        # OpenAI's newer name
        role = "system" if entry["role"] == "developer" else entry["role"]
        content = entry.get("content")
        if isinstance(content, str):
            return {"role": role, "content": _text(content, "content")}
        return {"role": role, "content": [self._part(part) for part in _list(content, "content")]}

    def _part(self, part: Any) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            return {"type": "text", "text": _text(part["text"], "text")}
        if kind in ("image_url", "video_url") and len(self.images) + len(self.videos) >= self._most:
            raise UsageError("a question with too many images and videos", expected=f"at most {self._most}")
        if kind == "image_url":
            self.images.append(decode_data_url(_url(part, "image_url")))
            return {"type": "image"}
        if kind == "video_url":
            self.videos.append(decode_data_url(_url(part, "video_url")))
            return {"type": "video"}
        raise UsageError(
            "a part of a message that is not served",
            expected="type text, image_url or video_url",
            got=repr(kind if kind is not None else part)[:80],
        )


def _url(part: Mapping[str, Any], name: str) -> Any:
    value = part.get(name)
    return value.get("url") if isinstance(value, dict) else value


def _text(value: str, name: str) -> str:
    """It, if it is one: JSON may hold halves of a UTF-16 pair, which no tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{name} holds half a character",
            expected="Unicode text",
            got=ascii(value[error.start]),
            why="it was cut within a pair of \\u escapes",
        ) from error
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{name} is not a list", expected="a list", got=type(value).__name__)
    return value


def _map(given: Mapping[str, Any], name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    value = given.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{name} is not an object", got=type(value).__name__)
    for key in value:
        if key not in known:
            raise UsageError(f"unknown field {key!r} of {name}", fix=closest(key, known))
    return value


def _flag(given: Mapping[str, Any], name: str) -> Optional[bool]:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{name} is neither true nor false", got=repr(value)[:80])
    return value


def _sampling(given: Mapping[str, Any]) -> SamplingOptions:
    values: dict[str, Any] = {}
    for name, field in _SAMPLING.items():
        if name not in given:
            continue
        value = given[name]
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (name in _WHOLE and not whole):
            kind = "a whole number" if name in _WHOLE else "a number"
            raise UsageError(f"{name} is not {kind}", got=repr(value)[:80])
        try:
            values[field] = int(value) if name in _WHOLE else float(value)
        except OverflowError as error:
            raise UsageError(f"{name} is too large", got=repr(value)[:80]) from error
    return dataclasses.replace(SamplingOptions(), stop=_stop(given.get("stop", ())), **values)


def _stop(value: Any) -> tuple[str, ...]:
    """One text, or several; an empty one is none, as some clients send it."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise UsageError("stop is neither a text nor a list of texts", got=repr(value)[:80])
    if len(texts) > _STOPS_MOST:
        raise UsageError("stop holds too many texts", expected=f"at most {_STOPS_MOST}", got=len(texts))
    return tuple(_text(text, "stop") for text in texts if text)
