"""motedge run: one observation through a bundle's policy, shown as a table of actions with units and timings."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from motedge.cli.deadline_run import act_by_deadline, check_deadline, deadline_report, deadline_table, with_deadline
from motedge.cli.gpu_arguments import add_gpu_arguments, gpu_options
from motedge.cli.reasoned_run import (
    act_and_think,
    add_reasoning,
    check_reasoning,
    reason_options,
    reasoning_changes,
    reasoning_text,
)
from motedge.cli.recorded_run import add_recorder, keep_chunks, open_recorder
from motedge.errors import EXIT_OK, UsageError, closest
from motedge.units import format_ms

if TYPE_CHECKING:
    from motedge.runtime.policy import ActionChunk, Observation, Policy
    from motedge.runtime.reasoned.policy import ReasonedPolicy
    from motedge.runtime.recorder import TickRecorder

LOG = logging.getLogger(__name__)
# The order in which a tick spends its time; `gen_ms` and the like are parts of `loop_ms`
_STAGES = (
    ("reason_ms", "reasoner, within the tick"),
    ("tokenize_ms", "tokenize the prompt"),
    ("image_ms", "compose and pad the image"),
    ("vae_ms", "VAE encoder"),
    ("prefill_ms", "prompt prefill"),
    ("rope_ms", "rotary tables"),
    ("noise_ms", "noise"),
    ("gen_ms", "generator forwards"),
    ("solver_ms", "guidance and solver"),
    ("total_ms", "observation to actions"),
)


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds `run`."""
    parser = subparsers.add_parser(
        "run",
        help="run a bundle's policy on one observation",
        description="Turns one observation (images, robot state, instruction) into a chunk of actions.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder made by motedge export")
    seen = parser.add_argument_group("observation")
    what = seen.add_mutually_exclusive_group(required=True)
    what.add_argument("--observation", metavar="DIR", help="folder with observation.json and its images")
    what.add_argument(
        "--image",
        metavar="FILE",
        help="a vehicle's picture; or a robot's composed one, 640 x 540: wrist on top, left and right below",
    )
    what.add_argument("--views", metavar="NAME=FILE,...", help="camera images: wrist=F,left=F,right=F; some may lack")
    seen.add_argument(
        "--state", metavar="NUMBERS", help="7 joint angles in rad and the gripper's fraction closed; a vehicle has none"
    )
    seen.add_argument("--instruction", metavar="TEXT", help="what to do; replaces the one of --observation")
    seen.add_argument("--embodiment", metavar="NAME", help="robot; default: the bundle's")
    sampler = parser.add_argument_group("sampler (default: the bundle's)")
    sampler.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    sampler.add_argument("--shift", type=float, metavar="S", help="flow shift of the schedule")
    sampler.add_argument("--guidance", type=float, metavar="G", help="guidance scale; 1 switches it off")
    sampler.add_argument(
        "--guidance-interval", type=float, nargs=2, metavar=("LO", "HI"), help="guidance only where LO < t < HI"
    )
    sampler.add_argument(
        "--step-cache", metavar="RULE", help="leave forwards out: every:N, steps:K,... or sea[:THRESHOLD]"
    )
    sampler.add_argument("--seed", type=int, metavar="N", help="noise of this request; default: the policy's first")
    how = parser.add_argument_group("engine")
    how.add_argument("--engine", default="onnxruntime", metavar="NAME", help="backend (default: %(default)s)")
    how.add_argument("--variant", metavar="ID", help="for example primitive-fp32; default: the backend's first choice")
    how.add_argument("--recipe", metavar="ID", help="quantization recipe, for example fp8; default: unquantized")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads of one operator")
    how.add_argument("--check", choices=("full", "size"), default="full", help="how files are checked before use")
    how.add_argument("--repeat", type=int, default=1, metavar="N", help="requests; timings of the later ones are warm")
    gpu = add_gpu_arguments(parser)
    gpu.add_argument("--no-kernels", action="store_true", help="do without the compiled kernels")
    due = parser.add_argument_group("deadline")
    due.add_argument("--deadline-ms", type=float, metavar="N", help="the best sampler settings that fit; see docs")
    due.add_argument("--ladder", metavar="FILE", help="operating points (TOML), best first; default: from the bundle's")
    add_reasoning(parser, ticks=True)
    out = parser.add_argument_group("result")
    out.add_argument("--out", metavar="FILE", help="write the chunk as JSON")
    out.add_argument("--plot", metavar="FILE", help="draw the chunk beside what the model saw (PNG, PDF, SVG)")
    out.add_argument("--record", metavar="DIR", help="add each request to DIR, to calibrate on")
    add_recorder(out)
    out.add_argument("--json", action="store_true", help="print the chunk as JSON instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the policy; returns an exit code."""
    if args.repeat < 1:
        raise UsageError("nothing to run", expected="--repeat of at least 1", got=args.repeat)
    check_deadline(args.deadline_ms, args.ladder)
    check_reasoning(args)
    if args.plot:
        from motedge.cli.chunk_plot import check_target

        # Before the long part, not after it
        check_target(Path(args.plot))
    if args.record:
        from motedge.runtime.policy.request_record import check_record_folder

        check_record_folder(args.record)
    observation = _observation(args)
    with contextlib.ExitStack() as opened:
        recorder = None if args.recorder is None else opened.enter_context(open_recorder(args))
        _act(args, observation, recorder)
    return EXIT_OK


def _act(args: argparse.Namespace, observation: Observation, recorder: Optional[TickRecorder]) -> None:
    policy = _load(args)
    with contextlib.ExitStack() as opened:
        report = None
        if args.deadline_ms is None:
            opened.enter_context(policy)
            chunks = act_and_think(policy, observation, args.repeat)
        else:
            opened.callback(policy.close)
            acting = with_deadline(policy, args.deadline_ms, args.ladder)
            # From here on it closes the policy, after its thread
            opened.pop_all()
            opened.enter_context(acting)
            chunks = act_by_deadline(acting, observation, args.repeat)
            report = deadline_report(acting)
        if recorder is not None:
            keep_chunks(recorder, observation, chunks, policy.settings)
        if args.record:
            _record(args.record, observation, chunks)
        for name in chunks[0].missing_views:
            LOG.warning("no image of the %s camera: the policy sees black there, which it was not trained for", name)
        _deliver(args, policy, observation, chunks, report)


def _load(args: argparse.Namespace) -> Union[Policy, ReasonedPolicy]:
    names = ("steps", "shift", "guidance", "guidance_interval", "step_cache")
    overrides = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    # A fixed seed is the policy's own, so that it draws the right noise ahead
    fixed = {} if args.seed is None else {"seed": args.seed, "deterministic_seed": True}
    options = {
        "engine": args.engine,
        "variant": args.variant,
        "recipe": args.recipe,
        "check": args.check,
        "embodiment": args.embodiment,
        "threads": args.threads,
        "gpu": gpu_options(args, kernels=not args.no_kernels),
        **fixed,
        **overrides,
    }
    if args.reason:
        from motedge.runtime.reasoned.loader import load_reasoned_policy

        return load_reasoned_policy(args.bundle, reason_options(args), **options)
    from motedge.runtime.policy import load_policy

    return load_policy(args.bundle, **options)


def _record(folder: str, observation: Observation, chunks: list[ActionChunk]) -> None:
    """Records what was made of this observation; a held chunk was made of an earlier one."""
    from motedge.runtime.policy.request_record import record_request

    for chunk in _fresh(chunks):
        record_request(folder, observation, chunk)


def _deliver(
    args: argparse.Namespace,
    policy: Union[Policy, ReasonedPolicy],
    observation: Observation,
    chunks: list[ActionChunk],
    report: Optional[dict[str, Any]],
) -> None:
    from motedge.files import write_json

    chunk = chunks[0]
    document = {**chunk.to_dict(), "instruction": observation.instruction}
    fresh = _fresh(chunks)
    if len(fresh) > 1:
        document["warm_p50_ms"] = {name: round(value, 3) for name, value in _warm_p50_ms(fresh).items()}
        document["warm_requests"] = len(fresh) - 1
    if report is not None:
        document["deadline"] = report
    if args.reason:
        document["reasoning_changes"] = reasoning_changes(chunks)
    if args.out:
        write_json(args.out, document)
    if args.plot:
        from motedge.cli.chunk_plot import plot_chunk
        from motedge.cli.pose_plot import plot_poses

        plot = plot_chunk if observation.has_state else plot_poses
        plot(chunk, policy.see(observation)[0], observation, Path(args.plot))
    if args.json:
        print(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
        return
    print(f"instruction  {observation.instruction}")
    print(f"source       {observation.source or 'given on the command line'}")
    print(f"missing      {', '.join(chunk.missing_views) or 'no view'}")
    print(f"sampler      {_sampler(chunk)}\n")
    if chunk.reasoning is not None:
        print(f"{reasoning_text(chunk.reasoning)}\n")
    print(chunk.to_table())
    meaning = "gripper: 0 open, 1 closed" if observation.has_state else "each pose seen from the one before it"
    print(f"\n{len(chunk.actions)} actions at {chunk.rate_hz:g} Hz; {meaning}\n")
    if report is not None:
        print(deadline_table(report, chunk))
    else:
        print(_timings(chunks))


def _fresh(chunks: list[ActionChunk]) -> list[ActionChunk]:
    return [chunk for chunk in chunks if chunk.kind == "fresh"]


def _sampler(chunk: ActionChunk) -> str:
    details = chunk.details
    interval = details["guidance_interval"]
    where = f" where {interval[0]:g} < t < {interval[1]:g}" if interval else ""
    left_out = f" and {details['reused']} left out by {details['step_cache']}" if details.get("step_cache") else ""
    return (
        f"{details['steps']} steps, shift {details['shift']:g}, guidance {details['guidance']:g}{where}, "
        f"{chunk.forwards} forwards{left_out}, {details['und_len']} prompt tokens, seed {chunk.seed}"
        + ("" if details.get("launch", "host") == "host" else f"\nlaunched as {details['launch']}")
    )


def _timings(chunks: list[ActionChunk]) -> str:
    """First request and, if there are more, the median of the others: the first pays for prompts and buffers."""
    warm = _warm_p50_ms(chunks) if len(chunks) > 1 else None
    head = "time" + " " * 27 + "cold" + (f"   warm p50 of {len(chunks) - 1}" if warm else "")
    lines = [head]
    for key, label in _STAGES:
        if key not in chunks[0].timings_ms:
            continue
        line = f"  {label:<24}{format_ms(chunks[0].timings_ms[key]):>9}"
        lines.append(line + (f"{format_ms(warm[key]):>11}" if warm else ""))
    return "\n".join(lines)


def _warm_p50_ms(chunks: list[ActionChunk]) -> dict[str, float]:
    import statistics

    return {key: statistics.median(chunk.timings_ms[key] for chunk in chunks[1:]) for key in chunks[0].timings_ms}


def _observation(args: argparse.Namespace) -> Observation:
    from motedge.runtime.policy import Observation
    from motedge.runtime.policy.observation_folder import read_image, read_observation, read_views

    if args.observation:
        if args.state:
            raise UsageError("--state and --observation contradict each other", fix="edit observation.json instead")
        given = Path(args.observation)
        if given.is_file() and given.suffix != ".json":
            raise UsageError(
                f"--observation {given} is a file",
                expected="a folder with observation.json and its images",
                fix=f"--image {given} --instruction TEXT for a vehicle; --views wrist={given} --state NUMBERS "
                "--instruction TEXT for a robot",
            )
        return read_observation(given, instruction=args.instruction)
    needed = ("instruction",) if args.image else ("state", "instruction")
    for name in needed:
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing", expected="--state and --instruction with --image or --views")
    if args.state is None:
        # A vehicle's; a robot's policy refuses it
        return Observation.of_camera(read_image(Path(args.image)), args.instruction)
    state = _numbers(args.state)
    image = None if args.image is None else read_image(Path(args.image))
    views = None if args.views is None else read_views(_named_files(args.views))
    return Observation(state[:-1], state[-1], args.instruction, views=views, image=image)


def _numbers(text: str) -> list[float]:
    expected = "8 numbers: 7 joint angles in rad and the gripper's fraction closed"
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise UsageError("--state is not a list of numbers", expected=expected, got=text) from error
    if len(numbers) != 8:
        raise UsageError("--state has the wrong length", expected=expected, got=f"{len(numbers)} numbers")
    return numbers


def _named_files(text: str) -> dict[str, Path]:
    from motedge.runtime.policy.views import VIEW_NAMES

    files: dict[str, Path] = {}
    for part in text.split(","):
        name, separator, file = part.partition("=")
        problem: Optional[str] = None
        if not separator or not file:
            problem = "--views is not a list of NAME=FILE"
        elif name not in VIEW_NAMES:
            problem = f"--views: unknown camera {name!r}"
        elif name in files:
            problem = f"--views names {name} twice"
        if problem:
            raise UsageError(
                problem, expected="wrist=FILE,left=FILE,right=FILE", got=text, fix=closest(name, VIEW_NAMES)
            )
        files[name] = Path(file)
    return files
