"""What a question shows: checked by what its files say of themselves, then decoded one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from motedge.errors import ObservationError, UsageError
from motedge.runtime.policy.resize import Image
from motedge.runtime.reasoner.clip import Clip
from motedge.runtime.reasoner.fitted_size import image_size
from motedge.serve.chat_request import ChatRequest
from motedge.serve.data_url import decode_image, decode_video, image_header
from motedge.serve.options import ServeOptions


class QuestionMedia:
    """The pictures and videos of one question; nothing is decoded until it is iterated over."""

    def __init__(self, asked: ChatRequest, reasoner: Any, options: ServeOptions) -> None:
        """Looks at the headers of all pictures.

        Args:
            asked: the question.
            reasoner: what is asked, with `settings` and `capacity` as of BundleReasoner.
            options: the limits.

        Raises:
            ObservationError: a picture that can't be read, or is too large.
            UsageError: pictures with more pixels than a question may have, or more tokens than fit.
        """
        self._asked, self._reasoner, self._options = asked, reasoner, options
        self._left, tokens = options.chat_pixels, 0
        side = reasoner.settings.token_side
        for data in asked.images:
            rows, columns = image_header(data, options.image_pixels)
            self._left -= rows * columns
            fitted = image_size(rows, columns, reasoner.settings)
            tokens += (fitted[0] // side) * (fitted[1] // side)
        if self._left < 0:
            raise UsageError(
                "the pictures of this question are too large together",
                expected=f"at most {options.chat_pixels} pixels",
                got=f"{options.chat_pixels - self._left} pixels",
            )
        if tokens > reasoner.capacity:
            raise UsageError(
                "the prompt is empty or too long",
                expected=f"1 to {reasoner.capacity} tokens",
                got=f"{tokens} tokens of {len(asked.images)} pictures",
                fix="fewer or smaller pictures, or a larger --capacity, up to the graph's",
            )

    def images(self) -> Iterator[Image]:
        """Each picture, when it is asked for."""
        for data in self._asked.images:
            yield decode_image(data, self._options.image_pixels)

    def videos(self) -> Iterator[Clip]:
        """Each video, likewise; what the pictures and those before left of the pixels is what it may have."""
        for data in self._asked.videos:
            if self._left < 1:
                raise ObservationError("no room for another video", expected=f"{self._options.chat_pixels} pixels")
            clip = decode_video(data, self._reasoner.settings, self._reasoner.capacity, pixels=self._left)
            frames, rows, columns, _ = clip.frames.shape
            self._left -= frames * rows * columns
            yield clip
