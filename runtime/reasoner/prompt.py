"""From messages, images and videos to the tokens, positions and patches that the reasoner is given.

A visual part of a message stands where it is shown: {"role": "user", "content": [{"type": "image"}, {"type": "text",
"text": "What is this?"}]}. The chat template writes one placeholder for it, which becomes as many as it has tokens; a
video becomes a frame at a time, each behind its time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from motedge.errors import UsageError
from motedge.runtime.engine import IntArray
from motedge.runtime.reasoner.mrope import PromptPositions, prompt_positions
from motedge.runtime.reasoner.thinking import opens_thinking
from motedge.runtime.reasoner.video_sampling import time_text
from motedge.runtime.reasoner.vision_settings import VisionSettings
from motedge.runtime.reasoner.visual_input import VisualInput
from motedge.runtime.text.codec import TextCodec

IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"


@dataclass(frozen=True)
class ReasonerPrompt:
    """A prompt, ready for the reasoner."""

    # int64 [n]
    token_ids: IntArray
    positions: PromptPositions
    # In order of their placeholders, images and videos each
    images: tuple[VisualInput, ...]
    videos: tuple[VisualInput, ...]
    # Indexes of the placeholders in token_ids
    image_places: IntArray
    video_places: IntArray
    # Whether the reply begins within a think block
    thinking: bool

    @property
    def visual_tokens(self) -> int:
        """Tokens that stand for images and videos."""
        return len(self.image_places) + len(self.video_places)


class PromptBuilder:
    """Builds prompts for one model."""

    def __init__(self, codec: TextCodec, settings: VisionSettings) -> None:
        """Raises BundleError if the tokenizer lacks a placeholder."""
        self._codec, self._settings = codec, settings
        self._image_id, self._video_id = codec.token_id(IMAGE), codec.token_id(VIDEO)

    def build(
        self,
        messages: Sequence[Mapping[str, Any]],
        images: Sequence[VisualInput] = (),
        videos: Sequence[VisualInput] = (),
        *,
        thinking: Optional[bool] = None,
    ) -> ReasonerPrompt:
        """The prompt of a conversation.

        Args:
            messages: of the chat template: role and content, a text or a list of parts.
            images: those that the messages show, in order.
            videos: likewise.
            thinking: the template's `enable_thinking`; None leaves its default.

        Raises:
            UsageError: the messages show more or fewer images or videos than are given, or a text holds a placeholder.
            BundleError: the template refused the messages.
        """
        variables = {} if thinking is None else {"enable_thinking": thinking}
        rendered = self._codec.render(messages, variables)
        token_ids = self._codec.encode(self.expand(rendered, images, videos))
        positions = prompt_positions(
            token_ids,
            [image.grid for image in images],
            [video.grid for video in videos],
            image_token=self._image_id,
            video_token=self._video_id,
            merge=self._settings.merge,
        )
        return ReasonerPrompt(
            token_ids,
            positions,
            tuple(images),
            tuple(videos),
            (token_ids == self._image_id).nonzero()[0],
            (token_ids == self._video_id).nonzero()[0],
            opens_thinking(rendered),
        )

    def expand(self, text: str, images: Sequence[VisualInput], videos: Sequence[VisualInput]) -> str:
        """A rendered text with each placeholder replaced by as many as its image or video has tokens.

        Raises:
            UsageError: other numbers of placeholders than of images and videos.
        """
        for what, mark, given in (("images", IMAGE, images), ("videos", VIDEO, videos)):
            if text.count(mark) != len(given):
                raise UsageError(
                    f"the messages don't show the {what} that are given",
                    expected=f"{len(given)} placeholders {mark}",
                    got=text.count(mark),
                    fix=f"one part of a message for each of the {what}, and no {mark} in a text",
                )
        image_texts = iter(IMAGE * image.grid.tokens_per_frame(self._settings.merge) for image in images)
        video_texts = iter(self._video_text(video) for video in videos)
        wrapped = re.escape(VISION_START + VIDEO + VISION_END)
        video = re.escape(VIDEO) if self._settings.keeps_video_markers else f"{wrapped}|{re.escape(VIDEO)}"
        return re.sub(
            f"(?P<image>{re.escape(IMAGE)})|{video}",
            lambda found: next(image_texts if found["image"] else video_texts),
            text,
        )

    def _video_text(self, video: VisualInput) -> str:
        count = video.grid.tokens_per_frame(self._settings.merge)
        frame = VISION_START + VIDEO * count + VISION_END
        return "".join(time_text(time_s) + frame for time_s in video.times_s or ())
