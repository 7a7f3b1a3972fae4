"""What `motedge profile` opens: the bundle, engine and sampler that its arguments name."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motedge.cli.gpu_arguments import gpu_options
from motedge.errors import UsageError, closest

if TYPE_CHECKING:
    from motedge.profile.job import Subject

_SAMPLER = ("steps", "guidance", "step_cache")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the policy that is profiled."""
    how = parser.add_argument_group("engine and sampler (default: the bundle's)")
    how.add_argument("--engine", default="onnxruntime", metavar="NAME", help="backend (default: %(default)s)")
    how.add_argument("--variant", metavar="ID", help="for example primitive-fp32; default: the backend's first choice")
    how.add_argument("--recipe", metavar="ID", help="quantization recipe, for example fp8; default: unquantized")
    how.add_argument("--threads", type=int, metavar="N", help="CPU threads of one operator")
    how.add_argument("--check", choices=("full", "size"), default="full", help="how files are checked before use")
    how.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    how.add_argument("--guidance", type=float, metavar="G", help="guidance scale; 1 switches it off")
    how.add_argument("--step-cache", metavar="RULE", help="leave forwards out, as motedge run does")


def subject(args: argparse.Namespace, opened: contextlib.ExitStack) -> Subject:
    """The policy that is profiled; closed with `opened`.

    Raises:
        UsageError: an unknown engine, variant or recipe.
        BundleError: the bundle is none, or has no engine of the kind.
    """
    return _subject(args, opened, Path(args.bundle), args.engine, args.variant, args.recipe)


def other_subject(args: argparse.Namespace, opened: contextlib.ExitStack) -> Subject:
    """The one that takes turns with it: the same but for what --interleave and --other-... name.

    Raises:
        UsageError, BundleError: as `subject`.
    """
    return _subject(
        args,
        opened,
        Path(args.interleave),
        args.other_engine or args.engine,
        args.other_variant or args.variant,
        args.other_recipe or args.recipe,
    )


def _subject(
    args: argparse.Namespace, opened: contextlib.ExitStack, root: Path, engine: str, variant: Any, recipe: Any
) -> Subject:
    from motedge.bundle import Bundle
    from motedge.profile.job import Subject
    from motedge.runtime.backends import BACKENDS, choose_variant
    from motedge.runtime.policy import load_policy
    from motedge.runtime.policy.loader import GRAPHS

    if engine not in BACKENDS:
        raise UsageError(f"unknown engine {engine!r}", fix=closest(engine, BACKENDS))
    sampler = {name: getattr(args, name) for name in _SAMPLER if getattr(args, name) is not None}
    gpu = gpu_options(args)
    bundle = Bundle.open(root)
    chosen = {"variant": variant, "recipe": recipe}

    def open_policy() -> Any:
        policy = load_policy(root, engine=engine, check=args.check, threads=args.threads, gpu=gpu, **chosen, **sampler)
        return opened.enter_context(policy)

    return Subject(
        bundle=root,
        engine={"name": engine, **chosen, "threads": args.threads, "sampler": sampler},
        open=open_policy,
        variants={graph: choose_variant(bundle, graph, backend=engine, **chosen) for graph in GRAPHS},
        target=args.target,
    )
