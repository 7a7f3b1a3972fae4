"""`--reason`: the reasoner writes the prompt of `motedge run`, and of `motedge generate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union

from motedge.errors import UsageError

if TYPE_CHECKING:
    from motedge.runtime.policy import ActionChunk, Observation, Policy
    from motedge.runtime.reasoned.options import ReasonOptions
    from motedge.runtime.reasoned.policy import ReasonedPolicy
    from motedge.runtime.reasoned.reasoning import Reasoning

# Option -> field of ReasonOptions
_FIELDS = {
    "reason_mode": "mode",
    "reason_tokens": "max_tokens",
    "reason_every": "every",
    "reason_slice": "slice_tokens",
    "reason_slice_ms": "slice_ms",
    "reason_background": "background",
}


def add_reasoning(parser: argparse.ArgumentParser, *, ticks: bool) -> None:
    """The options; `ticks`: also those of when, for a policy that acts again and again."""
    group = parser.add_argument_group("reasoner (bundles exported with --extras reasoner)")
    group.add_argument("--reason", action="store_true", help="the reasoner sees the picture and writes the prompt")
    modes = "steps behind the instruction, or a dense caption"
    group.add_argument("--reason-mode", choices=("plan", "json-prompt"), help=modes)
    group.add_argument("--reason-tokens", type=int, metavar="N", help="its reply is cut there")
    if ticks:
        group.add_argument("--reason-every", type=int, metavar="K", help="asked again every K requests (default: 1)")
        group.add_argument("--reason-slice", type=int, metavar="N", help="tokens between two requests; default: all")
        group.add_argument("--reason-slice-ms", type=float, metavar="N", help="time between two requests likewise")
        group.add_argument(
            "--reason-background", action="store_const", const=True, help="beside the requests, on TensorRT"
        )


def reason_options(args: argparse.Namespace, **defaults: Any) -> ReasonOptions:
    """What was asked for; `defaults` replace those of ReasonOptions.

    Raises:
        UsageError: a value out of range.
    """
    from motedge.runtime.reasoned.options import ReasonOptions

    given = {field: getattr(args, name, None) for name, field in _FIELDS.items()}
    return ReasonOptions(**{**defaults, **{field: value for field, value in given.items() if value is not None}})


def check_reasoning(args: argparse.Namespace) -> None:
    """Before the bundle is loaded.

    Raises:
        UsageError: options of the reasoner without it, out of range, or in the way of a deadline.
    """
    given = [name for name in _FIELDS if getattr(args, name, None) is not None]
    if not args.reason:
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} is for the reasoner", expected="--reason beside it")
        return
    options = reason_options(args)
    if getattr(args, "deadline_ms", None) is not None and not options.background:
        raise UsageError(
            "--reason and --deadline-ms don't go together here",
            why="the command has no time between its requests in which to think",
            fix="--reason-background, on TensorRT; or in Python: with_deadlines(with_reasoning(...)), a slice for the"
            " reasoner, think() between ticks",
        )


def act_and_think(policy: Union[Policy, ReasonedPolicy], observation: Observation, repeat: int) -> list[ActionChunk]:
    """Acts so many times, and thinks a slice between."""
    chunks = []
    for _ in range(repeat):
        chunks.append(policy.act(observation))
        think = getattr(policy, "think", None)
        if think is not None and len(chunks) < repeat:
            think()
    return chunks


def reasoning_changes(chunks: Sequence[ActionChunk]) -> list[dict[str, Any]]:
    """JSON form of each text that the generator was given, with the request that was the first to have it."""
    found: list[dict[str, Any]] = []
    for number, chunk in enumerate(chunks):
        if chunk.reasoning is not None and (not found or found[-1]["prompt"] != chunk.reasoning.prompt):
            found.append({"request": number, **chunk.reasoning.to_dict()})
    return found


def reasoning_text(reasoning: Reasoning) -> str:
    """Both texts, for people."""
    lines = [f"thoughts     {reasoning.thoughts.strip()}"] if reasoning.thoughts.strip() else []
    if reasoning.ended is not None:
        ended = "" if reasoning.ended == "stop" else ", cut at the limit"
        lines.append(f"reasoner     {reasoning.answer.strip()!r} ({reasoning.tokens} tokens{ended})")
    if reasoning.fell_back:
        lines.append(f"no plan      {reasoning.problem}: the plain instruction stands in for it")
    lines.append(f"prompt       {reasoning.prompt}")
    return "\n".join(lines)
