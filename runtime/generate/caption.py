"""The text that the generator is given: the prompt and how the picture is made, word for word as in training.

Three forms: plain sentences and a JSON object for images and videos, and the JSON object of requests with actions.
Sources: cosmos-framework at 5eee9ed, and Cosmos3OmniPipeline of diffusers 0.42.1, which agree but for the negative
prompt: the framework says nothing in it of duration and resolution, diffusers denies the prompt's ("inverse").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError, closest
from motedge.runtime.generate.buckets import Size, ratio_name

NEGATIVE_METADATA = ("none", "inverse")
# The reference's spelling ("give"); diffusers puts it before prompts of Nano and Super, the framework before none
SYSTEM_PROMPTS = {
    "image": "You are a helpful assistant who will generate images from a give prompt.",
    "video": "You are a helpful assistant who will generate videos from a give prompt.",
}


@dataclass(frozen=True)
class Take:
    """What is filmed, as far as a prompt tells."""

    # Pixel frames; 1: an image
    frames: int
    # Frames a second
    fps: float
    # Rows and columns in pixels
    size: Size

    @property
    def kind(self) -> str:
        """ "image" or "video"."""
        return "image" if self.frames == 1 else "video"

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.fps


def media_caption(prompt: str, take: Take) -> str:
    """The prompt of an image or a video: a JSON object with its facts put in, or sentences with theirs put behind."""
    known = _json_object(prompt)
    if known is not None:
        return json.dumps(_with_facts(known, take))
    return _with_sentences(prompt, take, "")


def is_json_prompt(prompt: str) -> bool:
    """Whether a prompt is a JSON object, which is taken as a dense caption."""
    return _json_object(prompt) is not None


def negative_caption(prompt: str, take: Take, metadata: str = "none") -> str:
    """The negative prompt: as it is ("none"), or denying the prompt's duration and resolution ("inverse").

    Raises:
        UsageError: another `metadata`.
    """
    if metadata not in NEGATIVE_METADATA:
        raise UsageError(f"unknown kind of metadata {metadata!r}", fix=closest(metadata, NEGATIVE_METADATA))
    return _with_sentences(prompt, take, "not ") if metadata == "inverse" else prompt


def action_caption(prompt: str, take: Take, framing: Optional[str]) -> str:
    """The prompt of a request with actions; `framing`: the sentence on the camera. An empty prompt is legal."""
    minutes, seconds = divmod(round(take.duration_s), 60)
    description = prompt.strip()
    if description and not description.endswith((".", "!", "?")):
        description += "."
    caption: dict[str, Any] = {"cinematography": {"framing": framing}} if framing else {}
    caption["actions"] = [{"time": f"0:00-{minutes}:{seconds:02d}", "description": description}]
    return json.dumps(_with_facts(caption, take))


def _json_object(prompt: str) -> Optional[dict[str, Any]]:
    if not prompt.lstrip().startswith("{"):
        return None
    try:
        parsed = json.loads(prompt)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _with_facts(caption: dict[str, Any], take: Take) -> dict[str, Any]:
    rows, columns = take.size
    facts: dict[str, Any] = {"resolution": {"H": rows, "W": columns}, "aspect_ratio": ratio_name(take.size)}
    if take.kind == "video":
        facts = {"duration": f"{int(take.duration_s)}s", "fps": float(take.fps), **facts}
    else:
        caption = {key: value for key, value in caption.items() if key not in ("duration", "fps")}
    return {**caption, **facts}


def _with_sentences(prompt: str, take: Take, denial: str) -> str:
    """`denial`: "not " or nothing."""
    sentences = [f"This {take.kind} is {denial}of {take.size[0]}x{take.size[1]} resolution."]
    if take.kind == "video":
        length = f"{denial}{take.duration_s:.1f} seconds long"
        sentences.insert(0, f"The video is {length} and is {denial}of {take.fps:.0f} FPS.")
    text = prompt.strip()
    for sentence in sentences:
        text = text.rstrip(".")
        text = f"{text}. {sentence}" if text else sentence
    return text
