"""motedge generate MODE: images, videos and actions from a bundle, from text, pictures, videos and actions."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.cli.gpu_arguments import add_gpu_arguments, gpu_options
from motedge.cli.reasoned_run import add_reasoning, check_reasoning, reason_options, reasoning_text
from motedge.cli.step_progress import StepProgress
from motedge.errors import EXIT_OK, UsageError
from motedge.units import format_ms

if TYPE_CHECKING:
    from motedge.runtime.generate import Generated, GenerateRequest, Generator
    from motedge.runtime.reasoned.reasoning import Reasoning
    from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner
    from motedge.runtime.step_view import StepView

LOG = logging.getLogger(__name__)
_MODES = "text2image, text2video, image2video, video2video, forward_dynamics, inverse_dynamics, policy"
# Further apart than this, what moves in the video is of another speed than in training
_RATE_TOLERANCE = 0.05


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds `generate`."""
    parser = subparsers.add_parser(
        "generate",
        help="images, videos and actions from a bundle",
        description=f"Generates in one of the modes {_MODES}. What is not given is the mode's default.",
    )
    parser.add_argument("mode", metavar="MODE", help="for example image2video")
    parser.add_argument("bundle", metavar="BUNDLE", help="folder made by motedge export")
    _add_given(parser.add_argument_group("what is given"))
    _add_made(parser.add_argument_group("what is made"))
    add_reasoning(parser, ticks=False)
    sampler = parser.add_argument_group("sampler (default: the mode's)")
    sampler.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    sampler.add_argument("--guidance", type=float, metavar="G", help="guidance scale; 1 switches it off")
    sampler.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LO", "HI"), help="guidance only where LO < t < HI"
    )
    sampler.add_argument("--shift", type=float, metavar="S", help="flow shift of the schedule")
    sampler.add_argument("--step-cache", metavar="RULE", help="leave forwards out: every:N, steps:K,... or sea")
    sampler.add_argument("--seed", type=int, default=0, metavar="N", help="noise (default: %(default)s)")
    how = parser.add_argument_group("engine")
    how.add_argument("--engine", default="onnxruntime", metavar="NAME", help="backend (default: %(default)s)")
    how.add_argument("--variant", metavar="ID", help="for example primitive-fp32; default: the backend's first choice")
    how.add_argument("--recipe", metavar="ID", help="quantization recipe of the towers; default: unquantized")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads of one operator")
    how.add_argument("--check", choices=("full", "size"), default="full", help="how files are checked before use")
    add_gpu_arguments(parser)
    out = parser.add_argument_group("result")
    out.add_argument(
        "--out",
        action="append",
        required=True,
        metavar="FILE",
        help="video.mp4, image.png, sound.wav, actions.json or .parquet; more than once for more than one",
    )
    out.add_argument("--preview", type=int, metavar="K", help="a picture beside --out, FILE.preview.png, every K steps")
    out.add_argument("--json", action="store_true", help="print the result's document as JSON")
    parser.set_defaults(run=run)


def _add_given(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--prompt", default="", metavar="TEXT", help="text, a JSON object, or @FILE with either")
    group.add_argument("--negative", default="", metavar="TEXT", help="what is not wanted, or @FILE")
    group.add_argument(
        "--negative-metadata", default="none", choices=("none", "inverse"), help="inverse: as diffusers makes it"
    )
    group.add_argument("--system-prompt", action="store_true", help="put the system prompt before both")
    group.add_argument("--image", metavar="FILE", help="first frame")
    group.add_argument("--video", metavar="FILE", help="frames to go on from, or whose actions are asked for")
    group.add_argument("--condition-frames", default="0,1", metavar="LIST", help="latent frames of --video to keep")
    group.add_argument(
        "--keep", default="first", choices=("first", "last"), help="which end of --video video2video goes on from"
    )
    group.add_argument("--actions", metavar="FILE", help="rows of actions: .json, .npy or .parquet")
    group.add_argument("--state", metavar="NUMBERS", help="where the robot is, for policy")
    group.add_argument("--embodiment", metavar="NAME", help="whose actions, for example av")
    group.add_argument("--raw-dim", type=int, metavar="N", help="channels of an action, where there is a choice")
    group.add_argument("--viewpoint", metavar="NAME", help="where the camera is; default: the embodiment's usual place")
    group.add_argument("--stats", metavar="FILE", help="statistics by which the model's actions are normalised")


def _add_made(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--frames", type=int, metavar="N", help="frames, the given ones included; 4 k + 1")
    group.add_argument("--fps", type=float, metavar="F", help="frames, and actions, a second")
    group.add_argument("--sound", action="store_true", help="with sound, in the .mp4 or a .wav; Nano and Super")
    group.add_argument("--size", metavar="WxH", help="a check: the size is the bundle's")


def run(args: argparse.Namespace) -> int:
    """Generates; returns an exit code."""
    from motedge.cli.generate_input import parse_size
    from motedge.cli.generate_output import check_outputs, needs_pictures, write_outputs
    from motedge.runtime.generate import mode_defaults

    targets = [Path(name) for name in args.out]
    # Before the long part: an unknown mode, a file that nothing can be written into
    mode_defaults(args.mode, "")
    check_outputs(args.mode, targets, sound=args.sound, preview=bool(args.preview))
    if args.preview is not None and args.preview < 1:
        raise UsageError("--preview is wrong", expected="at least 1 step", got=args.preview)
    check_reasoning(args)
    size = parse_size(args.size)
    with contextlib.ExitStack() as opened:
        generator, reasoner = _open(args, opened)
        generator.shape.require_size(size)
        if args.preview or needs_pictures(targets):
            generator.require_decoder()
        request = _request(args, generator)
        reasoning = None
        if reasoner is not None:
            request, reasoning = _reasoned(args, generator, reasoner, request)
        with contextlib.closing(StepProgress()) as progress:
            # On a GPU steps that nobody looks at are one CUDA graph
            looks = progress.shown or bool(args.preview)
            watch = _Watch(generator, progress, args.preview, targets[0]) if looks else None
            made = generator.generate(request, watch)
        document = write_outputs(generator, request, made, targets, reasoning)
    if args.json:
        print(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        if reasoning is not None:
            print(reasoning_text(reasoning))
        print(_summary(made, targets))
    return EXIT_OK


def _open(args: argparse.Namespace, opened: contextlib.ExitStack) -> tuple[Generator, Optional[BundleReasoner]]:
    """The generator, and the reasoner where it is asked; `opened` closes them."""
    from motedge.runtime.generate import load_generator

    choice = {name: getattr(args, name) for name in ("engine", "variant", "recipe", "check", "threads")}
    gpu, reasoner = gpu_options(args), None
    if args.reason:
        from motedge.runtime.reasoner.loader import load_reasoner

        reasoner = opened.enter_context(load_reasoner(args.bundle, **choice, gpu=gpu))
    how = {"sound": args.sound, "gpu": gpu, "reasoner": reasoner}
    generator = opened.enter_context(load_generator(args.bundle, **choice, **how))
    return generator, reasoner


def _reasoned(
    args: argparse.Namespace, generator: Generator, reasoner: BundleReasoner, request: GenerateRequest
) -> tuple[GenerateRequest, Reasoning]:
    """The request with the reasoner's prompt."""
    from motedge.runtime.reasoned.request import default_mode, reasoned_request

    options = reason_options(args, mode=default_mode(args.mode))
    request, reasoning = reasoned_request(generator, reasoner, request, options)
    if reasoning.fell_back:
        LOG.warning("no plan: %s; the plain prompt stands in for it", reasoning.problem)
    return request, reasoning


class _Watch:
    """The bar, and a picture of what the network takes the result to be."""

    def __init__(self, generator: Generator, progress: StepProgress, every: Optional[int], target: Path) -> None:
        self._generator, self._progress, self._every = generator, progress, every
        self._target = target.with_name(target.name + ".preview.png")

    def __call__(self, view: StepView) -> None:
        self._progress(view.step, view.steps)
        if self._every and (view.step + 1) % self._every == 0:
            from motedge.media.image import write_image

            write_image(self._target, self._generator.preview(view.clean_vision()))


def _request(args: argparse.Namespace, generator: Generator) -> GenerateRequest:
    from motedge.cli.generate_input import frames_wanted, parse_numbers, read_actions, read_clip, read_text
    from motedge.runtime.actions.stats import read_stats
    from motedge.runtime.generate import GenerateRequest
    from motedge.runtime.policy.observation_folder import read_image

    kept = _whole_numbers(args.condition_frames)
    names = ("steps", "guidance", "guidance_interval", "shift", "step_cache")
    clip = None
    if args.video is not None:
        most = frames_wanted(args.mode, generator, args.frames, kept)
        cut = args.mode == "inverse_dynamics" and args.frames is None
        clip = read_clip(Path(args.video), most, last=args.mode == "video2video" and args.keep == "last", whole=cut)
    request = GenerateRequest(
        mode=args.mode,
        prompt=read_text(args.prompt, "--prompt"),
        negative=read_text(args.negative, "--negative"),
        negative_metadata=args.negative_metadata,
        system_prompt=args.system_prompt,
        image=None if args.image is None else read_image(Path(args.image)),
        video=None if clip is None else clip.frames,
        actions=None if args.actions is None else read_actions(Path(args.actions)),
        state=None if args.state is None else parse_numbers(args.state, "--state"),
        embodiment=args.embodiment,
        raw_dim=args.raw_dim,
        viewpoint=args.viewpoint,
        stats=None if args.stats is None else read_stats(args.stats),
        frames=args.frames,
        fps=args.fps,
        condition_frames=kept,
        keep=args.keep,
        sound=args.sound,
        seed=args.seed,
        sampler={name: getattr(args, name) for name in names if getattr(args, name) is not None},
    )
    if clip is not None:
        _compare_rates(args, clip.fps)
    return request


def _whole_numbers(argument: str) -> tuple[int, ...]:
    words = argument.replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise UsageError("--condition-frames is no list", expected="numbers from 0, such as 0,1", got=argument)
    return tuple(int(word) for word in words)


def _compare_rates(args: argparse.Namespace, fps: Optional[float]) -> None:
    """Says it if a video runs at another rate than the model will take it to."""
    from motedge.runtime.generate import mode_defaults
    from motedge.runtime.policy.embodiments import find_embodiment

    robot = None if args.embodiment is None else find_embodiment(args.embodiment)
    taken = (robot.rate_hz if robot is not None else None) or mode_defaults(args.mode, "").fps
    taken = taken if args.fps is None else args.fps
    if fps is not None and abs(fps / taken - 1) > _RATE_TOLERANCE:
        LOG.warning("%s runs at %g frames a second, and is taken to run at %g: see --fps", args.video, fps, taken)


def _summary(made: Generated, targets: Sequence[Path]) -> str:
    settings, rows = made.settings, made.actions
    what = f"{made.frames} frames of {made.size[1]}x{made.size[0]} at {made.fps:g} a second"
    lines = [
        f"mode         {made.mode}, {what if made.frames > 1 else f'{made.size[1]}x{made.size[0]}'}",
        f"sampler      {settings.steps} steps, shift {settings.shift:g}, guidance {settings.guidance:g}, "
        f"{made.counters.forwards} forwards, {made.prompt_tokens} prompt tokens, seed {made.seed}",
        f"time         {format_ms(made.timings.total_ms)} in the loop"
        + ("" if made.counters.launch == "host" else f", {made.counters.launch}"),
    ]
    if rows is not None:
        space = "" if made.raw_actions else ", in the model's normalised space"
        lines.append(f"actions      {rows.shape[0]} x {rows.shape[1]}{space}")
    if made.sound is not None:
        lines.append(f"sound        {made.sound.shape[1]} latents")
    return "\n".join([*lines, *(f"written      {target}" for target in targets)])
