"""`motedge plan BUNDLE --target T`: what fits, what is legal and how long a tick takes, before anything is built."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motedge.targets.plan import PlanOptions

ALL_SCHEMA = "motedge.plans/v1"


def register(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "plan",
        help="say what a bundle needs on a device, before anything is built",
        description="Work out from a bundle's graphs, without reading weights, without a GPU or engine library, what "
        "is legal on a device, memory at run time and while building, the time of a tick against the control period, "
        "and what to change where it does not fit. Exit code 1 when the asked target does not fit or is not legal.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a bundle, as motedge export or quantize writes it")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--target", metavar="ID", help="the device: motedge targets list; or a .toml file of your own")
    where.add_argument("--all", action="store_true", help="every device of the catalogue, side by side")
    where.add_argument(
        "--published",
        action="store_true",
        help="no plan: published times beside predictions that had not seen them, and the honest error",
    )
    what = parser.add_argument_group("what")
    what.add_argument("--recipe", metavar="NAME", help="a recipe, whether the bundle is quantized with it or not yet")
    what.add_argument("--variant", metavar="ID", help="such as fused-fp16 (default: the best that the device takes)")
    what.add_argument("--tensorrt", metavar="VERSION", help="one of those that the device's releases bring (newest)")
    how = parser.add_argument_group("operating point (default: the bundle's policy)")
    how.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    how.add_argument("--guidance", type=float, metavar="X", help="guidance scale; 1 goes without")
    how.add_argument("--frames", type=int, metavar="T", help="latent frames, within the graph's profile")
    how.add_argument("--und-len", type=int, metavar="N", help="tokens of the prompt, within the graph's profile")
    parser.add_argument("--page", metavar="FILE", help="write a page with pictures, one self-contained HTML file")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plans, prints, and judges."""
    from motedge.errors import EXIT_GATE_FAILED, EXIT_OK, UsageError

    if args.published:
        return _run_published(args)
    if args.bundle is None:
        raise UsageError("a plan needs a bundle", fix="motedge plan BUNDLE --target ID")
    from motedge.bundle import Bundle
    from motedge.targets.catalog import load_target
    from motedge.targets.plan import PlanOptions, make_plan
    from motedge.targets.plan.make import TargetPlan
    from motedge.targets.plan.text import plan_lines

    options = PlanOptions(
        recipe=args.recipe,
        variant=args.variant,
        tensorrt=args.tensorrt,
        steps=args.steps,
        guidance=args.guidance,
        frames=args.frames,
        und_len=args.und_len,
    )
    target = None if args.all else load_target(args.target)
    bundle = Bundle.open(args.bundle)
    if target is None:
        return _run_all(args, bundle, options)
    plan = make_plan(bundle, target, options=options)
    if args.page:
        _write_page(args.page, [TargetPlan(target, plan)])
    if args.json:
        print(json.dumps(plan.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(plan_lines(plan)))
    return EXIT_OK if plan.passed else EXIT_GATE_FAILED


def _run_all(args: argparse.Namespace, bundle: Any, options: PlanOptions) -> int:
    from motedge.errors import EXIT_OK
    from motedge.targets.plan.make import plan_all
    from motedge.targets.plan.text import all_lines

    entries = plan_all(bundle, options)
    if args.page:
        _write_page(args.page, entries)
    if args.json:
        document = {
            "schema": ALL_SCHEMA,
            "plans": [entry.plan.to_dict() for entry in entries if entry.plan is not None],
            "unplanned": [{"target": e.target.id, "reason": e.reason} for e in entries if e.plan is None],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(all_lines(entries)))
    return EXIT_OK


def _run_published(args: argparse.Namespace) -> int:
    from motedge.errors import EXIT_OK
    from motedge.targets.plan.published import published_dict, published_lines
    from motedge.targets.roofline.fit import judge

    judgement = judge()
    if args.json:
        print(json.dumps(published_dict(judgement), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(published_lines(judgement)))
    return EXIT_OK


def _write_page(name: str, entries: list[Any]) -> None:
    from motedge.files import atomic_open
    from motedge.targets.plan.page import render_page

    with atomic_open(Path(name), "wb") as stream:
        stream.write(render_page(entries).encode("utf-8"))
