"""A bundle's reasoner, ready to be asked: text, images and clips in, events of a reply out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from motedge.runtime.engine import Engine
from motedge.runtime.policy.resize import Image
from motedge.runtime.reasoner.clip import Clip
from motedge.runtime.reasoner.events import Event, Pause
from motedge.runtime.reasoner.prompt import PromptBuilder, ReasonerPrompt
from motedge.runtime.reasoner.reasoner import Cancelled, Reasoner
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.runtime.reasoner.vision_settings import VisionSettings
from motedge.runtime.reasoner.visual_input import prepare_image, prepare_video

if TYPE_CHECKING:
    from motedge.runtime.reasoner.device_loader import Towers


class BundleReasoner:
    """What `load_reasoner` opens. Not for use by two threads at once, nor for two replies at once."""

    def __init__(
        self,
        reasoner: Reasoner,
        prompts: PromptBuilder,
        settings: VisionSettings,
        und: Engine,
        root: Path,
        close: Callable[[], None],
        *,
        device: Optional[Towers] = None,
    ) -> None:
        """Takes over what was opened; `root`: the bundle's folder; `close` frees the engines; `device`: on a GPU."""
        self.settings, self.und_engine, self.root = settings, und, root
        self._reasoner, self._prompts, self._close = reasoner, prompts, close
        # Its towers on a GPU, from which a generator may have K and V of its prompts; None: on the host
        self.device = device

    @property
    def capacity(self) -> int:
        """Tokens of prompt and reply together."""
        return self._reasoner.capacity

    @property
    def launch(self) -> str:
        """How a token of the reply is launched: "one CUDA graph", "piece by piece" and why, or "host"."""
        return "host" if self.device is None else self.device.launch

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of the GPU's memory, by purpose; nothing on the host."""
        return {} if self.device is None else self.device.memory_bytes()

    def ask(
        self,
        text: str,
        images: Sequence[Image] = (),
        videos: Sequence[Clip] = (),
        *,
        system: Optional[str] = None,
        thinking: Optional[bool] = None,
        options: SamplingOptions = SamplingOptions(),  # noqa: B008 -- frozen
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[Event]:
        """Answers one question: `Started`, then `Part`s of text, then `Finished`.

        Args:
            text: what is asked; images and videos stand before it.
            images: uint8 RGB [rows, columns, 3].
            videos: as `read_clip` reads them.
            system: the system message; None: none.
            thinking: whether the model thinks first, where its template knows of it; None leaves its default.
            options: how tokens are chosen.
            cancelled: asked before each step.

        Raises:
            UsageError: a prompt longer than the tower's room, or a text that holds a placeholder.
            ObservationError: an image or a video that the model can't take.
            NonFiniteError: an engine returned NaN or infinity.
        """
        messages = question(text, len(images), len(videos), system)
        prompt = self.prompt(messages, images, videos, thinking=thinking)
        return self.generate(prompt, options, cancelled=cancelled)

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        images: Iterable[Image] = (),
        videos: Iterable[Clip] = (),
        *,
        thinking: Optional[bool] = None,
    ) -> ReasonerPrompt:
        """The prompt of a conversation; see `PromptBuilder.build`.

        Each image and video is taken when its turn has come: those that are decoded on the way are not in memory
        together.
        """
        seen = [prepare_image(image, self.settings) for image in images]
        clips = [prepare_video(clip.frames, clip.indexes, clip.rate_hz, self.settings) for clip in videos]
        return self._prompts.build(messages, seen, clips, thinking=thinking)

    def generate(
        self,
        prompt: ReasonerPrompt,
        options: SamplingOptions = SamplingOptions(),  # noqa: B008 -- frozen
        *,
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[Event]:
        """Answers a prompt; see `Reasoner.generate`."""
        return self._reasoner.generate(prompt, options, cancelled=cancelled)

    def steps(
        self,
        prompt: ReasonerPrompt,
        options: SamplingOptions = SamplingOptions(),  # noqa: B008 -- frozen
        *,
        piece: Optional[int] = None,
    ) -> Iterator[Union[Event, Pause]]:
        """Answers a prompt in steps, between which the caller may act; see `Reasoner.steps`."""
        return self._reasoner.steps(prompt, options, piece=piece)

    def close(self) -> None:
        """Frees the engines; harmless when repeated."""
        self._close()

    def __enter__(self) -> BundleReasoner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def question(text: str, images: int = 0, videos: int = 0, system: Optional[str] = None) -> list[dict[str, Any]]:
    """The messages of one question: what is seen first, then the text."""
    content: Any = text
    if images or videos:
        content = [{"type": "image"}] * images + [{"type": "video"}] * videos + [{"type": "text", "text": text}]
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": content}]
