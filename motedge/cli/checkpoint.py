"""`motedge checkpoint fetch / make / inspect / convert / merge`: bring, make up, examine and turn checkpoints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from motedge.errors import EXIT_GATE_FAILED, EXIT_OK, MissingPackageError
from motedge.units import format_bytes


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its actions."""
    verb = subparsers.add_parser("checkpoint", help="fetch, make, inspect, convert or merge a checkpoint")
    actions = verb.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    _add_fetch(actions)
    _add_make(actions)
    _add_inspect(actions)
    _add_convert(actions)
    _add_merge(actions)


def _add_fetch(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "fetch",
        help="bring a checkpoint from the Hugging Face hub",
        description="Download a checkpoint, or what is missing of it. HF_HOME, HF_TOKEN and HF_ENDPOINT hold.",
    )
    parser.add_argument("id", metavar="ID", help="the repository, e.g. nvidia/Cosmos3-Edge-Policy-DROID")
    parser.add_argument("--revision", default="main", help="branch, tag or commit (default: main)")
    parser.add_argument("--out", metavar="DIR", help="folder to fill (default: the hub's cache below HF_HOME)")
    parser.add_argument("--only", choices=("all", "policy"), default="all", help="policy: what actions need, no more")
    parser.add_argument("--dry-run", action="store_true", help="say what would be downloaded, download nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_fetch)


def _add_make(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "make",
        help="write a checkpoint of random weights",
        description="Write a checkpoint of random weights in the published layout. The folder appears whole or not "
        "at all.",
    )
    parser.add_argument("out", metavar="OUT", help="folder to make")
    # Not `choices`: the library refuses unknown names itself, for Python callers too
    parser.add_argument("--family", default="edge", help="edge, nano or super (default: edge)")
    parser.add_argument("--variant", default="base", help="base, policy-droid or 4step (default: base)")
    parser.add_argument("--size", default="tiny", help="tiny, small or full (default: tiny)")
    parser.add_argument("--seed", type=int, default=0, help="0 or more; decides every value (default: 0)")
    parser.add_argument("--precision", default="bf16", help="bf16, or fp8 as NVIDIA's FP8 revisions (default: bf16)")
    parser.add_argument(
        "--sparse", action="store_true", help="zero-filled holes instead of values; takes no disk space"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, write nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_make)


def _add_inspect(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "inspect",
        help="show what a checkpoint holds and what is wrong with it",
        description="Show family, towers, exact parameter counts, dtypes, revision and faults. Reads headers alone, "
        "unless --values is given. Exit 0: sound; 1: faults; 2: not a Cosmos 3 checkpoint.",
    )
    parser.add_argument("checkpoint", metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--values", action="store_true", help="read every weight; report NaN and infinity")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_inspect)


def _add_convert(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "convert",
        help="turn a framework checkpoint into the published layout",
        description="Turn a checkpoint of cosmos-framework (torch's distributed format) into the published layout. Its "
        "index is a pickle, which can run code: convert only what you trust.",
    )
    parser.add_argument("source", metavar="DCP", help="the folder with .metadata")
    parser.add_argument("--base", required=True, metavar="DIR", help="the published checkpoint that was trained on")
    parser.add_argument("--weights", default="ema", help="ema (averaged, the default) or model")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.set_defaults(run=_convert)


def _add_merge(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "merge",
        help="merge a LoRA into a checkpoint",
        description="Write a checkpoint with a low-rank adapter (PEFT, diffusers or kohya) merged into its weights.",
    )
    parser.add_argument("checkpoint", metavar="DIR", help="the checkpoint that was trained on")
    parser.add_argument("adapter", metavar="LORA", help="the adapter's folder or .safetensors file")
    parser.add_argument("--out", required=True, metavar="DIR2", help="folder to make")
    parser.set_defaults(run=_merge)


def _convert(args: argparse.Namespace) -> int:
    _require_torch()
    from motedge.checkpoint.convert import convert_checkpoint
    from motedge.checkpoint.reader import Checkpoint

    print(convert_checkpoint(args.source, Checkpoint.open(args.base), args.out, weights=args.weights))
    return EXIT_OK


def _merge(args: argparse.Namespace) -> int:
    _require_torch()
    from motedge.checkpoint.lora import merge_adapter
    from motedge.checkpoint.reader import Checkpoint

    print(merge_adapter(Checkpoint.open(args.checkpoint), args.adapter, args.out))
    return EXIT_OK


def _require_torch() -> None:
    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(error.name or "torch", extra="export", purpose="to rewrite weights") from error


def _fetch(args: argparse.Namespace) -> int:
    from motedge.checkpoint.fetch import fetch_checkpoint, plan_fetch

    if args.dry_run:
        plan = plan_fetch(args.id, args.revision, out=args.out, only=args.only)
        summary = {
            "id": plan.repository,
            "requested": plan.requested,
            "commit": plan.commit,
            "missing": plan.missing,
            "missing_bytes": plan.missing_bytes,
            "present": plan.present,
        }
        text = f"{plan.commit}: would fetch {len(plan.missing)} files, {format_bytes(plan.missing_bytes)}"
    else:
        folder = fetch_checkpoint(args.id, args.revision, out=args.out, only=args.only)
        summary, text = {"id": args.id, "checkpoint": str(folder)}, str(folder)
    print(json.dumps(summary, indent=2) if args.json else text)
    return EXIT_OK


def _make(args: argparse.Namespace) -> int:
    from motedge.checkpoint.make import make_checkpoint, plan_checkpoint

    plan = plan_checkpoint(args.family, args.variant, args.size, args.precision)
    if not args.dry_run:
        options = {"sparse": args.sparse, "precision": args.precision}
        make_checkpoint(args.out, args.family, args.variant, args.size, args.seed, **options)
    summary = {
        "checkpoint": args.out,
        "family": args.family,
        "variant": args.variant,
        "size": args.size,
        "seed": args.seed,
        "sparse": args.sparse,
        "precision": args.precision,
        "dry_run": args.dry_run,
        "parameters": plan.parameters,
        "weight_bytes": plan.weight_bytes,
    }
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        size = format_bytes(plan.weight_bytes) + (" as holes" if args.sparse else "")
        print(f"{'would write ' if args.dry_run else ''}{args.out}: {args.size} {args.family} {args.variant}, {size}")
    return EXIT_OK


def _inspect(args: argparse.Namespace) -> int:
    from motedge.checkpoint.inspect import inspect_checkpoint

    report = inspect_checkpoint(args.checkpoint, values=args.values)
    print(json.dumps(report, indent=2) if args.json else "\n".join(_lines(report)))
    for problem in report["problems"]:
        details = [f"  {name + ':':<9} {problem[name]}" for name in ("expected", "got", "why", "fix") if problem[name]]
        print("\n".join([f"motedge: error: {problem['what']}", *details]), file=sys.stderr)
    return EXIT_GATE_FAILED if report["problems"] else EXIT_OK


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    origin = {name: value for name, value in report["origin"].items() if name not in ("family", "variant", "revision")}
    yield f"checkpoint  {report['checkpoint']}"
    yield f"model       {report['family']} {report['variant']}"
    yield f"origin      {', '.join(f'{n} {v}' if n != 'source' else str(v) for n, v in origin.items())}"
    yield f"revision    {report['revision'] or 'not recorded'}"
    for name, tower in report["towers"].items():
        found = tower["parameters"]
        count = "can't be read" if found is None else f"{found:>14,} parameters {'/'.join(tower['dtypes'])}"
        wrong = (
            "" if found in (None, tower["parameters_by_config"]) else f", {tower['parameters_by_config']:,} by config"
        )
        yield f"{name:<11} {count}{wrong}"
    for name, part in report["components"].items():
        files = f"{part['files']} file{'s' if part['files'] != 1 else ''}"
        size = format_bytes(part["bytes"])
        yield f"{name:<14} {part['parameters']:>14,} parameters, {part['tensors']} tensors, {size} in {files}"
    if report["policy"]:
        yield f"policy      {', '.join(f'{name} {value}' for name, value in report['policy'].items())}"
    yield from (f"absent      {name} (not needed for actions)" for name in report["absent"])
    faults = len(report["problems"])
    yield f"verdict     {'sound' if not faults else '1 fault' if faults == 1 else f'{faults} faults'}"
