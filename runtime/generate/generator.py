"""The generator: a request goes in, latents and actions come out, and pictures of the latents."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional, Protocol

import numpy as np
from numpy.typing import NDArray

from motedge.errors import MotedgeError, UsageError
from motedge.runtime.engine import Engine, FloatArray, IntArray
from motedge.runtime.generate.acting import Acting
from motedge.runtime.generate.caption import SYSTEM_PROMPTS, Take, action_caption, media_caption, negative_caption
from motedge.runtime.generate.conditioning import Conditioner, Conditioning
from motedge.runtime.generate.mode import ModeDefaults, mode_defaults
from motedge.runtime.generate.request import Generated, GenerateRequest
from motedge.runtime.generate.shape import GenerateShape
from motedge.runtime.generate.turns import HostTurns, Turns
from motedge.runtime.request import GenInputs, GenResult, SamplerSettings
from motedge.runtime.sound import SoundDecoder, sound_latents
from motedge.runtime.step_view import StepView, StepWatch
from motedge.runtime.tables import Tables
from motedge.runtime.text import PromptTokenizer
from motedge.runtime.vae import VideoDecoder, VideoEncoder, to_uint8
from motedge.runtime.vae.frame_count import FRAMES_PER_LATENT


class Loop(Protocol):
    """`motedge.runtime.denoise.DenoiseLoop`, or one on a GPU."""

    def run(self, inputs: GenInputs, settings: SamplerSettings, watch: Optional[StepWatch] = None) -> GenResult:
        """Denoises one request."""
        ...

    def close(self) -> None:
        """Frees what is its own."""
        ...


class Closed(Protocol):
    """What is closed with the generator."""

    def close(self) -> None:
        """Frees it."""
        ...


class Generator:
    """Generates on one loaded bundle. May be called from several threads.

    Requests wait for one another, and so do the chunks that are decoded; on the host a chunk does not wait for a
    request, on a GPU everything waits for everything, but for a request's own watch.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        image_encoder: Engine,
        open_encoder: Callable[[], VideoEncoder],
        open_decoder: Callable[[], VideoDecoder],
        open_sound: Optional[Callable[[], SoundDecoder]] = None,
        engines: Sequence[Closed],
        tokenizer: PromptTokenizer,
        tables: Tables,
        shape: GenerateShape,
        model: Mapping[str, Any],
        policy: Mapping[str, Any],
        turns: Optional[Turns] = None,
        memory_bytes: Callable[[], dict[str, int]] = dict,
    ) -> None:
        """Takes over what `load_generator` opened; `open_sound` is given where the loop makes sound.

        `model` and `policy` are those of the manifest. The openers are called once at most, when first needed, and
        `engines` are closed with the generator, in this order. `turns`: who waits for whom; None: as on the host.
        `memory_bytes`: what is held of a GPU.
        """
        self._engines = tuple(engines)
        self.shape = shape
        self._loop, self._tokenizer, self._tables = loop, tokenizer, tables
        self._family, self._variant = str(model.get("family", "")), str(model.get("variant", ""))
        self._distilled = policy.get("distilled_sigmas")
        self._encoder: Optional[VideoEncoder] = None
        self._decoder: Optional[VideoDecoder] = None
        self._sound_decoder: Optional[SoundDecoder] = None
        self._openers, self._open_sound = (open_encoder, open_decoder), open_sound
        self._conditioner = Conditioner(shape, image_encoder, self._video_encoder)
        self._turns: Turns = HostTurns() if turns is None else turns
        self._memory_bytes, self._closed = memory_bytes, False

    def generate(self, request: GenerateRequest, watch: Optional[StepWatch] = None) -> Generated:
        """Runs one request; `watch` is called at each step.

        Raises:
            UsageError: numbers, lengths or sizes that do not go together or that the bundle was not exported for; or
                this generator is closed, as for every method that runs a graph.
            BundleError: the bundle lacks the graphs, or the model the action weights, that the mode needs.
            ObservationError: an unknown embodiment.
            ContractError: actions of another width, NaN or infinity.
            NonFiniteError: a graph returned NaN or infinity.
            CudaError: the GPU or an engine library failed.
        """
        shown = None if watch is None else self._until_given_up(watch)
        return self._turns.request(lambda: self._generate(request, shown))

    def frames(self, latents: FloatArray) -> Iterator[NDArray[np.uint8]]:
        """The pictures of latents, uint8 [n, rows, columns, 3] each, as they come from the decoder.

        Raises:
            BundleError: the bundle has no decoder.
            NonFiniteError: the decoder returned NaN or infinity.
        """
        chunks = self._turns.chunk(lambda: map(to_uint8, _decoded(self._video_decoder().sharing(), latents)))
        while True:
            # Nobody waits while the pictures are looked at: whoever has them may never come back for more
            pictures = self._turns.chunk(lambda: self._next(chunks))
            if pictures is None:
                return
            yield pictures

    def preview(self, latents: FloatArray) -> NDArray[np.uint8]:
        """A picture of the middle of a video, uint8 [rows, columns, 3]: rough, for the frames before it are left out.

        Raises:
            BundleError: the bundle has no decoder.
        """
        middle = latents.shape[1] // 2

        def show() -> NDArray[np.uint8]:
            decoder = self._video_decoder().sharing()
            first = middle if decoder.streams else max(0, middle - 1)
            last: NDArray[np.uint8] = to_uint8(next(_decoded(decoder, latents[:, first : middle + 1])))[-1]
            return last

        return self._turns.chunk(show)

    def waveform(self, latents: FloatArray) -> tuple[FloatArray, int]:
        """The sound of sound latents: fp32 [channels, samples] in [-1, 1], and samples a second.

        Raises:
            UsageError: this generator was opened without sound.
            NonFiniteError: the decoder returned NaN or infinity.
        """

        def decode() -> tuple[FloatArray, int]:
            self._require_open()
            if self._sound_decoder is None:
                if self._open_sound is None:
                    raise UsageError("this generator makes no sound", fix="open it with sound=True")
                self._sound_decoder = self._open_sound()
            return self._sound_decoder.decode(latents), self._sound_decoder.sample_rate_hz

        return self._turns.chunk(decode)

    def require_decoder(self) -> None:
        """Opens the decoder now, so that a bundle without one is refused before the long part."""
        self._turns.chunk(self._video_decoder)

    def memory_bytes(self) -> dict[str, int]:
        """What it holds of a GPU's memory, by purpose, as near as the libraries tell; empty on the host."""
        return self._memory_bytes()

    def check_prompt(self, request: GenerateRequest) -> int:
        """Tokens of a request's prompt, the form around it included.

        Raises:
            UsageError: the prompt is too long, or numbers do not go together.
        """
        acting = Acting.of(request, self._variant) if request.acts else None
        take = self._take(request, acting)
        return len(self._tokens(request, take, acting, guided=False)[0])

    def settings(self, request: GenerateRequest) -> SamplerSettings:
        """How a request is sampled: the mode's defaults, a distilled model's own levels, and what the request changes.

        Raises:
            UsageError: a value out of range, or one that a distilled model has no choice of.
        """
        if not self._distilled:
            return self._defaults(request).settings(**request.sampler)
        fixed = {"steps": len(self._distilled), "guidance": 1.0, "shift": 1.0}
        return SamplerSettings(**{**fixed, **request.sampler}, distilled_sigmas=tuple(self._distilled))

    def close(self) -> None:
        """Frees the engines and stops the noise thread, once a request and a chunk under way are done."""
        self._turns.close(self._close)

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        # The first failure is the one that is told; after it, a GPU may refuse to free anything
        with contextlib.suppress(MotedgeError) if error is not None else contextlib.nullcontext():
            self.close()

    def _until_given_up(self, watch: StepWatch) -> StepWatch:
        def look(view: StepView) -> None:
            if self._turns.given_up:
                raise UsageError("the request was given up", got=f"at step {view.step} of {view.steps}")
            watch(view)

        return look

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        parts = self._loop, self._encoder, self._decoder, self._sound_decoder, *self._engines
        self._encoder = self._decoder = self._sound_decoder = None
        with contextlib.ExitStack() as steps:
            # Called in reverse, each even if another fails
            for part in reversed(parts):
                if part is not None:
                    steps.callback(part.close)

    def _generate(self, request: GenerateRequest, watch: Optional[StepWatch]) -> Generated:
        self._require_open()
        settings = self.settings(request)
        if request.sound != (self._open_sound is not None):
            raise UsageError(
                "sound was asked for at one of two places",
                expected="a request with sound=True on a generator opened with sound=True, or neither",
                got=f"request {request.sound}, generator {self._open_sound is not None}",
                why="the generator holds one of two graphs: gen_step, or gen_step_sound",
            )
        acting = Acting.of(request, self._variant) if request.acts else None
        if acting is not None:
            acting.require_weights(self._tables)
        take = self._take(request, acting)
        frames, fps = take.frames, take.fps
        guided = settings.guidance != 1
        tokens, negative = self._tokens(request, take, acting, guided)
        rows = None if acting is None else acting.arrange(request, frames, fps, self.shape)
        if acting is None or rows is None:
            self.shape.require_rows(0)
            given = self._conditioner.encode(request, frames)
            inputs = _without_actions(given, tokens, negative, fps, request.seed, self.shape.width)
            if request.sound:
                inputs = dataclasses.replace(inputs, sound_latents=sound_latents(frames, fps))
        else:
            given = self._conditioner.encode(request, frames)
            domain = acting.robot.domain_id
            inputs = rows.gen_inputs(given.vision_clean, tokens, negative, domain_id=domain, seed=request.seed)
        result = self._loop.run(inputs, settings, watch)
        actions = None
        if acting is not None and rows is not None and request.mode != "forward_dynamics":
            actions = acting.restore(rows.take_actions(result.action))
        names = acting.names() if acting is not None else ((), ())
        return Generated(
            mode=request.mode,
            latents=result.vision,
            actions=actions,
            fields=names[0],
            units=names[1],
            raw_actions=acting is not None and acting.raw,
            frames=frames,
            fps=fps,
            size=self.shape.size,
            seed=request.seed,
            settings=settings,
            timings=result.timings,
            counters=result.counters,
            prompt_tokens=len(tokens),
            sound=result.sound,
        )

    def _take(self, request: GenerateRequest, acting: Optional[Acting]) -> Take:
        frames, fps = self._length(request, acting)
        return Take(frames, fps, self.shape.canvas if acting else self.shape.size)

    def _length(self, request: GenerateRequest, acting: Optional[Acting]) -> tuple[int, float]:
        """Pixel frames and frames a second."""
        defaults = self._defaults(request)
        rate, wanted = defaults.fps, request.frames
        if acting is not None:
            rate = acting.robot.rate_hz or rate
            if request.actions is not None and wanted is None:
                wanted = len(np.asarray(request.actions)) + 1
            elif request.mode == "inverse_dynamics" and wanted is None:
                wanted = len(request.video or ())
        if request.mode == "text2image" and wanted not in (None, 1):
            raise UsageError("an image has one frame", got=wanted, fix="take mode text2video")
        if request.mode != "text2image" and wanted is not None and wanted <= FRAMES_PER_LATENT:
            raise UsageError(f"mode {request.mode!r} makes no single image", expected="5 frames or more", got=wanted)
        fps = rate if request.fps is None else request.fps
        return self.shape.fit_frames(wanted, defaults.frames), float(fps)

    def _tokens(
        self, request: GenerateRequest, take: Take, acting: Optional[Acting], guided: bool
    ) -> tuple[IntArray, Optional[IntArray]]:
        """Both prompts; the negative one only where it is read."""
        system = SYSTEM_PROMPTS[take.kind] if request.system_prompt else None
        if acting is None:
            text, other = media_caption(request.prompt, take), ""
            if guided:
                other = negative_caption(request.negative, take, request.negative_metadata)
        else:
            text = action_caption(request.prompt, take, acting.robot.framing(request.viewpoint))
            other = request.negative
        tokens = self._encoded(text, system, "prompt")
        return tokens, self._encoded(other, system, "negative prompt") if guided else None

    def _encoded(self, text: str, system: Optional[str], what: str) -> IntArray:
        tokens = self._tokenizer.encode(text, system)
        most = self.shape.tokens[1]
        if len(tokens) > most:
            raise UsageError(
                f"the {what} is too long",
                expected=f"at most {most} tokens, the form around it included",
                got=f"{len(tokens)} tokens from {len(text)} characters",
                fix="say it in fewer words, or export with a shape set with more max_prompt_tokens",
            )
        return tokens

    def _defaults(self, request: GenerateRequest) -> ModeDefaults:
        return mode_defaults(request.mode, self._family)

    def _video_encoder(self) -> VideoEncoder:
        if self._encoder is None:
            self._encoder = self._openers[0]()
        return self._encoder

    def _next(self, chunks: Iterator[NDArray[np.uint8]]) -> Optional[NDArray[np.uint8]]:
        self._require_open()
        return next(chunks, None)

    def _video_decoder(self) -> VideoDecoder:
        """The decoder, opened if it was not; called as a chunk."""
        self._require_open()
        if self._decoder is None:
            self._decoder = self._openers[1]()
        return self._decoder

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError("this generator is closed", fix="open the bundle again")


def _decoded(decoder: VideoDecoder, latents: FloatArray) -> Iterator[FloatArray]:
    """As they come where the bundle decodes in chunks, else all at once; each overwritten by the next but one."""
    if decoder.streams:
        yield from decoder.stream(latents)
    else:
        yield decoder.decode(latents)


def _without_actions(
    given: Conditioning, tokens: IntArray, negative: Optional[IntArray], fps: float, seed: int, width: int
) -> GenInputs:
    return GenInputs(
        vision_clean=given.vision_clean,
        vision_noisy=given.vision_noisy,
        action_clean=np.zeros((0, width), np.float32),
        action_noisy=np.zeros(0, np.float32),
        cond_tokens=tokens,
        uncond_tokens=negative,
        fps=fps,
        domain_id=0,
        raw_dim=width,
        seed=seed,
    )
