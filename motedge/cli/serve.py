"""motedge serve: a bundle's policy and reasoner stay loaded, and answer over sockets."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from motedge.cli.gpu_arguments import add_gpu_arguments, gpu_options
from motedge.cli.reasoned_run import add_reasoning, check_reasoning, reason_options
from motedge.cli.recorded_run import add_recorder
from motedge.errors import EXIT_OK, HostError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from motedge.serve.bundle_choice import BundleChoice
    from motedge.serve.options import ServeOptions
    from motedge.serve.recording import RecordingChoice

LOG = logging.getLogger(__name__)
_PACKAGES = ("aiohttp", "msgpack", "prometheus_client")
_SETTINGS = ("steps", "shift", "guidance", "guidance_interval", "step_cache")


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds `serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="keep a bundle's policy loaded and answer robots over a WebSocket",
        description="Serves openpi's WebSocket protocol at /, Prometheus' metrics at /metrics, the state at /healthz "
        "and, with --chat, OpenAI's protocol at /v1. SIGTERM: answers what is under way and ends. SIGHUP: loads the "
        "bundle again.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder made by motedge export, or a link to one")
    what = parser.add_argument_group("what is served")
    what.add_argument("--chat", action="store_true", help="the reasoner answers questions at /v1/chat/completions")
    what.add_argument("--no-policy", action="store_true", help="questions alone")
    what.add_argument("--capacity", type=int, metavar="N", help="tokens of a question and its reply together")
    what.add_argument("--embodiment", metavar="NAME", help="robot; default: the bundle's")
    what.add_argument("--warm-up", metavar="TEXT", help="instruction of the ticks before the first request")
    _add_address(parser)
    _add_limits(parser)
    sampler = parser.add_argument_group("sampler (default: the bundle's)")
    sampler.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    sampler.add_argument("--shift", type=float, metavar="S", help="flow shift of the schedule")
    sampler.add_argument("--guidance", type=float, metavar="G", help="guidance scale; 1 switches it off")
    interval = "guidance only where LO < t < HI"
    sampler.add_argument("--guidance-interval", type=float, nargs=2, metavar=("LO", "HI"), help=interval)
    sampler.add_argument("--step-cache", metavar="RULE", help="leave forwards out, as motedge run does")
    sampler.add_argument("--seed", type=int, metavar="N", help="of every request that gives none; default: a sequence")
    how = parser.add_argument_group("engine")
    how.add_argument("--engine", default="onnxruntime", metavar="NAME", help="backend (default: %(default)s)")
    how.add_argument("--variant", metavar="ID", help="for example primitive-fp32; default: the backend's first choice")
    how.add_argument("--recipe", metavar="ID", help="quantization recipe, for example fp8; default: unquantized")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads of one operator")
    how.add_argument("--check", choices=("full", "size"), default="full", help="how files are checked before use")
    gpu = add_gpu_arguments(parser)
    gpu.add_argument("--no-kernels", action="store_true", help="do without the compiled kernels")
    due = parser.add_argument_group("deadline")
    due.add_argument("--deadline-ms", type=float, metavar="N", help="of requests that give none: the best that fits it")
    due.add_argument("--ladder", metavar="FILE", help="operating points (TOML), best first; default: from the bundle's")
    add_reasoning(parser, ticks=True)
    kept = parser.add_argument_group("recording")
    add_recorder(kept)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until it is told to end; returns an exit code."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package, extra="serve", purpose="to serve a policy")
    if sys.version_info < (3, 10):
        raise HostError("motedge serve needs Python 3.10", got=sys.version.split()[0], fix="motedge.client runs on 3.9")
    import asyncio

    from motedge.serve.allocator import keep_freed_memory
    from motedge.serve.bundle_check import check_bundle
    from motedge.serve.bundle_resident import load_resident
    from motedge.serve.server import PolicyServer

    choice, options = _choice(args), _options(args)
    if not choice.bundle.is_dir():
        raise UsageError(f"there is no bundle {choice.bundle}", fix="motedge export CHECKPOINT --out BUNDLE")
    check_bundle(choice)
    keep_freed_memory()

    async def serve() -> None:
        server = PolicyServer(
            lambda generation: load_resident(choice, generation),
            options,
            deadline_ms=choice.deadline_ms,
            policy=choice.serve_policy,
            chat=choice.chat,
            one_robot=choice.reason is not None,
        )
        await server.run(lambda: _say_loading(choice.bundle, options, server.port))

    asyncio.run(serve())
    LOG.info("ended")
    return EXIT_OK


def _say_loading(bundle: Path, options: ServeOptions, port: int) -> None:
    secure = "s" if options.tls_cert else ""
    LOG.info(
        "loading %s; listening on ws%s://%s:%d (clients wait until it is ready)", bundle, secure, options.host, port
    )


def _add_address(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("address")
    where.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="beyond this machine only with a token")
    where.add_argument("--port", type=int, default=8000, metavar="N", help="0: any that is free (default: %(default)s)")
    where.add_argument("--token-file", metavar="FILE", help="secret that clients must show")
    where.add_argument("--tls-cert", metavar="FILE", help="certificate (PEM): clients come with wss:// and https://")
    where.add_argument("--tls-key", metavar="FILE", help="its key")
    where.add_argument("--allow-origin", action="append", default=[], metavar="URL", help="pages that may ask")
    name = "how else clients call this machine, where no token is asked for"
    where.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=name)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    number: dict[str, Any] = {"metavar": "N"}
    limits.add_argument("--max-message-mib", type=int, default=16, help="one observation (%(default)s)", **number)
    limits.add_argument("--max-body-mib", type=int, default=32, help="one question (%(default)s)", **number)
    limits.add_argument("--max-megapixels", type=float, default=16.0, help="one picture (%(default)g)", **number)
    limits.add_argument(
        "--max-media", type=int, default=16, help="images, videos of a question (%(default)s)", **number
    )
    limits.add_argument(
        "--max-question-megapixels", type=float, default=64.0, help="of all of them together (%(default)g)", **number
    )
    limits.add_argument("--max-clients", type=int, default=64, help="connections at once (%(default)s)", **number)
    limits.add_argument(
        "--max-waiting", type=int, default=16, help="clients whose turn has to come (%(default)s)", **number
    )
    limits.add_argument(
        "--max-rate-hz", type=float, default=200.0, help="observations of a client (%(default)g)", **number
    )
    limits.add_argument(
        "--max-waiting-questions", type=int, default=4, help="beside the one that is answered (%(default)s)", **number
    )
    limits.add_argument(
        "--max-questions-hz", type=float, default=10.0, help="questions of an address (%(default)g)", **number
    )
    limits.add_argument("--drain-s", type=float, default=10.0, help="for the end (%(default)g)", **number)
    limits.add_argument(
        "--stall-s", type=float, default=60.0, help="a longer tick is unhealthy (%(default)g)", **number
    )


def _choice(args: argparse.Namespace) -> BundleChoice:
    from motedge.serve.bundle_choice import WARM_UP_INSTRUCTION, BundleChoice

    if not args.reason:
        check_reasoning(args)
    settings = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    fixed = {} if args.seed is None else {"seed": args.seed, "deterministic_seed": True}
    return BundleChoice(
        bundle=Path(args.bundle),
        engines={
            "engine": args.engine,
            "variant": args.variant,
            "recipe": args.recipe,
            "check": args.check,
            "threads": args.threads,
            "gpu": gpu_options(args, kernels=not args.no_kernels),
        },
        policy={"embodiment": args.embodiment, **fixed, **settings},
        serve_policy=not args.no_policy,
        chat=args.chat,
        capacity=args.capacity,
        reason=reason_options(args) if args.reason else None,
        deadline_ms=args.deadline_ms,
        ladder=None if args.ladder is None else Path(args.ladder),
        warm_up_instruction=args.warm_up or WARM_UP_INSTRUCTION,
        recording=_recording(args),
    )


def _recording(args: argparse.Namespace) -> Optional[RecordingChoice]:
    if args.recorder is None:
        return None
    from motedge.cli.machine_words import machine_words
    from motedge.serve.recording import RecordingChoice

    if not 0 < args.recorder_mb < 1e9:
        raise UsageError("--recorder-mb is wrong", expected="megabytes above 0", got=args.recorder_mb)
    return RecordingChoice(Path(args.recorder), int(1e6 * args.recorder_mb), machine_words(args.engine, args.gpu))


def _options(args: argparse.Namespace) -> ServeOptions:
    from motedge.serve.access import read_token
    from motedge.serve.options import ServeOptions

    return ServeOptions(
        host=args.host,
        port=args.port,
        token=None if args.token_file is None else read_token(args.token_file),
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        origins=tuple(args.allow_origin),
        hosts=tuple(args.allow_host),
        message_bytes=args.max_message_mib << 20,
        body_bytes=args.max_body_mib << 20,
        image_pixels=int(args.max_megapixels * 1e6),
        chat_media=args.max_media,
        chat_pixels=int(args.max_question_megapixels * 1e6),
        connections=args.max_clients,
        waiting=args.max_waiting,
        chats_waiting=args.max_waiting_questions,
        rate_hz=args.max_rate_hz,
        chat_rate_hz=args.max_questions_hz,
        drain_s=args.drain_s,
        stall_s=args.stall_s,
    )
