"""motedge reason: a question about images and videos to a bundle's reasoner, the answer streamed as it comes."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

from motedge.cli.gpu_arguments import add_gpu_arguments, gpu_options
from motedge.errors import EXIT_OK, InternalError, UsageError
from motedge.units import format_ms

if TYPE_CHECKING:
    from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner
    from motedge.runtime.reasoner.events import Finished, Started
    from motedge.runtime.reasoner.sampling import SamplingOptions

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
# Option -> field of SamplingOptions
_SAMPLING = ("temperature", "top_k", "top_p", "presence_penalty", "seed")


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds `reason`."""
    parser = subparsers.add_parser(
        "reason",
        help="ask a bundle's reasoner, about images and videos or without",
        description="Streams the answer to stdout; thoughts, where the model writes any, and timings go to stderr.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder made by motedge export --extras reasoner")
    asked = parser.add_argument_group("question")
    asked.add_argument("--prompt", required=True, metavar="TEXT", help="what is asked; - reads it from stdin")
    asked.add_argument("--image", action="append", default=[], metavar="FILE", help="shown before the text; repeatable")
    asked.add_argument("--video", action="append", default=[], metavar="FILE", help="likewise, after the images")
    asked.add_argument("--video-hz", type=float, metavar="N", help="frames a second taken of a video (default: 2)")
    asked.add_argument("--system", metavar="TEXT", help="system message")
    think = asked.add_mutually_exclusive_group()
    think.add_argument("--think", action="store_true", default=None, help="think first; default: the model's template")
    think.add_argument("--no-think", dest="think", action="store_false", help="answer at once")
    sampling = parser.add_argument_group("sampling (default: greedy)")
    sampling.add_argument("--temperature", type=float, metavar="T", help="0: always the likeliest token")
    sampling.add_argument("--top-k", type=int, metavar="N", help="only so many of the likeliest; 0: all")
    sampling.add_argument("--top-p", type=float, metavar="P", help="only the likeliest that together have this")
    sampling.add_argument("--presence-penalty", type=float, metavar="X", help="taken from tokens of the reply")
    sampling.add_argument("--seed", type=int, metavar="N", help="of the drawing")
    sampling.add_argument("--max-tokens", type=int, metavar="N", help="the reply is cut there (default: 1024)")
    how = parser.add_argument_group("engine")
    how.add_argument("--engine", default="onnxruntime", metavar="NAME", help="backend (default: %(default)s)")
    how.add_argument("--variant", metavar="ID", help="for example primitive-fp32; default: the backend's first choice")
    how.add_argument("--recipe", metavar="ID", help="quantization recipe; default: unquantized")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads of one operator")
    how.add_argument("--check", choices=("full", "size"), default="full", help="how files are checked before use")
    how.add_argument("--capacity", type=int, metavar="N", help="tokens of prompt and reply together; see docs")
    add_gpu_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the whole reply as JSON at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Asks; returns an exit code."""
    from motedge.runtime.policy.observation_folder import read_image
    from motedge.runtime.reasoner.clip import read_clip
    from motedge.runtime.reasoner.loader import load_reasoner

    options, text = _options(args), sys.stdin.read() if args.prompt == "-" else args.prompt
    if not text.strip():
        raise UsageError("the prompt is empty", expected="--prompt TEXT", fix="say what the reasoner is asked")
    images = [read_image(file) for file in args.image]
    with load_reasoner(
        args.bundle,
        engine=args.engine,
        variant=args.variant,
        recipe=args.recipe,
        check=args.check,
        threads=args.threads,
        capacity=args.capacity,
        gpu=gpu_options(args),
    ) as reasoner:
        room = {"sample_hz": args.video_hz, "capacity": reasoner.capacity}
        videos = [read_clip(file, reasoner.settings, **room) for file in args.video]
        question = {"images": images, "videos": videos, "system": args.system, "thinking": args.think}
        started, finished = _show(reasoner, text, question, options, quiet=args.json)
    if args.json:
        print(json.dumps(_document(text, started, finished), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        print(_timings(started, finished), file=sys.stderr)
    return EXIT_OK


def _options(args: argparse.Namespace) -> SamplingOptions:
    from motedge.runtime.reasoner.sampling import SamplingOptions

    given = {name: getattr(args, name) for name in _SAMPLING if getattr(args, name) is not None}
    if args.max_tokens is not None:
        given["max_new_tokens"] = args.max_tokens
    return SamplingOptions(**given)


def _show(
    reasoner: BundleReasoner, text: str, question: dict[str, Any], options: SamplingOptions, *, quiet: bool
) -> tuple[Started, Finished]:
    """Asks, and writes the parts of the reply as they come, unless `quiet`."""
    from motedge.runtime.reasoner.events import Finished, Started
    from motedge.runtime.reasoner.thinking import THINKING

    started = finished = None
    last = {sys.stdout: "\n", sys.stderr: "\n"}
    for event in reasoner.ask(text, **question, options=options):
        if isinstance(event, Started):
            started = event
        elif isinstance(event, Finished):
            finished = event
        elif not quiet:
            stream = sys.stderr if event.kind == THINKING else sys.stdout
            if stream is sys.stdout:
                # The thoughts' line ends before the answer begins: both may go to one terminal
                _end_line(sys.stderr, last)
            _write(stream, event.text, dim=event.kind == THINKING)
            last[stream] = event.text[-1]
    for stream in (sys.stderr, sys.stdout):
        _end_line(stream, last)
    if started is None or finished is None:
        raise InternalError("a reply without beginning or end")
    return started, finished


def _end_line(stream: TextIO, last: dict[TextIO, str]) -> None:
    if last[stream] != "\n":
        _write(stream, "\n")
        last[stream] = "\n"


def _write(stream: TextIO, text: str, *, dim: bool = False) -> None:
    stream.write(f"{_DIM}{text}{_PLAIN}" if dim and stream.isatty() else text)
    stream.flush()


def _document(text: str, started: Started, finished: Finished) -> dict[str, Any]:
    return {
        "schema": "motedge.reply/v1",
        "prompt": text,
        "answer": finished.answer,
        "thinking": finished.thinking,
        "reason": finished.reason,
        "token_ids": list(finished.token_ids),
        "prompt_tokens": started.prompt_tokens,
        "visual_tokens": started.visual_tokens,
        "timings_ms": {
            "vision_ms": round(started.vision_ms, 3),
            "prefill_ms": round(started.prefill_ms, 3),
            "decode_ms": round(finished.decode_ms, 3),
            "per_token_ms": round(_per_token_ms(finished), 3),
        },
    }


def _timings(started: Started, finished: Finished) -> str:
    seen = f", {started.visual_tokens} of them visual" if started.visual_tokens else ""
    vision = f", vision encoder {format_ms(started.vision_ms)}" if started.visual_tokens else ""
    ends = {"stop": "the model ended it", "length": "cut at the limit", "cancelled": "cancelled"}
    return (
        f"prompt   {started.prompt_tokens} tokens{seen}{vision}, prefill {format_ms(started.prefill_ms)}\n"
        f"reply    {len(finished.token_ids)} tokens, {format_ms(_per_token_ms(finished))} a token, "
        f"{ends[finished.reason]}"
    )


def _per_token_ms(finished: Finished) -> float:
    return finished.decode_ms / max(len(finished.token_ids), 1)
