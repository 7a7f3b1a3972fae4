"""`--recorder` of `motedge run`, and its options: requests and answers kept in a ring, for `motedge replay`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from motedge.errors import UsageError

if TYPE_CHECKING:
    from motedge.runtime.policy import ActionChunk, Observation
    from motedge.runtime.recorder import TickRecorder
    from motedge.runtime.request import SamplerSettings


def add_recorder(group: argparse._ArgumentGroup) -> None:
    """The options of the ring, `--recorder` and its size."""
    group.add_argument(
        "--recorder", metavar="DIR", help="keep requests and answers in a ring there, for motedge replay"
    )
    group.add_argument("--recorder-mb", type=float, default=1000.0, metavar="N", help="its size (default: %(default)g)")


def open_recorder(args: argparse.Namespace) -> TickRecorder:
    """The recorder of a run, to be closed.

    Raises:
        UsageError: a size that is none, or a folder that can't hold a ring.
        BundleError: the bundle is none.
        HostError: the folder can't be written.
    """
    from motedge.cli.machine_words import machine_words
    from motedge.runtime.recorder import RecorderOptions, TickRecorder
    from motedge.runtime.recorder.session import session_of

    if not 0 < args.recorder_mb < 1e9:
        raise UsageError("--recorder-mb is wrong", expected="megabytes above 0", got=args.recorder_mb)
    session: dict[str, Any] = session_of(
        args.bundle,
        engine=args.engine,
        variant=args.variant,
        recipe=args.recipe,
        threads=args.threads,
        machine=machine_words(args.engine, args.gpu),
    )
    # A repeat of one request is many ticks at once: none of them may be left out
    options = RecorderOptions(max_bytes=int(1e6 * args.recorder_mb), waiting=max(8, args.repeat))
    return TickRecorder(args.recorder, {**session, "target": args.target}, options)


def keep_chunks(
    recorder: TickRecorder, observation: Observation, chunks: Sequence[ActionChunk], settings: SamplerSettings
) -> None:
    """Records what was answered to one observation."""
    for chunk in chunks:
        recorder.record(observation, chunk, settings)
