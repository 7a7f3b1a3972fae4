"""Makes a workload: real observations through the unquantized towers, one tower in memory at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from motedge.bundle import Bundle
from motedge.errors import InternalError
from motedge.quant.replay import BRANCHES, Forward, RequestReader, TappedEngine, encode_prompts, open_loop, run_requests
from motedge.quant.sensitivity.options import SearchOptions
from motedge.quant.sensitivity.workload import RecordedForward, Reference, Workload, choose_forwards
from motedge.quant.towers import open_tower
from motedge.runtime.policy.observation import Observation
from motedge.runtime.request import GenInputs

_log = logging.getLogger(__name__)
# Requests whose loops are recorded; more would be run for forwards that are not chosen
_MOST_RECORDED = 8


def record_workload(
    bundle: Bundle, seen: Sequence[Observation], held_out: Sequence[Observation], options: SearchOptions
) -> Workload:
    """Runs the policy's requests on the unquantized towers.

    Args:
        bundle: an unquantized bundle.
        seen: observations that the search may learn from; spread over if there are many.
        held_out: observations on which mixtures are compared, none of them in `seen`.
        options: number of forwards, seed, type and device.

    Raises:
        ObservationError: one that the policy refuses.
        UsageError: fewer forwards than steps and branches.
    """
    vae = open_tower(bundle, "vae_encoder", compute=options.compute, device=options.device)
    reader = RequestReader(bundle, vae)
    most = options.forwards or _MOST_RECORDED
    observations = [*_spread(seen, most), *held_out]
    requests = [reader.read(value, options.seed + number) for number, value in enumerate(observations)]
    settings = reader.settings
    count = len(requests) - len(held_out)
    del vae
    _log.info("running %d requests on the unquantized towers", len(requests))
    und = open_tower(bundle, "und_prefill", compute=options.compute, device=options.device)
    prompts = encode_prompts(bundle, und, requests, settings)
    del und
    heard: list[Forward] = []
    gen = open_tower(bundle, "gen_step", compute=options.compute, device=options.device)
    tap = TappedEngine(gen, heard.append)
    loop = open_loop(bundle, tap, prompts)
    loops = []
    for request in requests[:count]:
        heard.clear()
        run_requests(loop, [request], settings, tap)
        loops.append(list(heard))
    references = [
        Reference(request, result.vision, result.action)
        for request, result in zip(
            requests[count:], run_requests(open_loop(bundle, gen, prompts), requests[count:], settings), strict=True
        )
    ]
    loop.close()
    chosen = choose_forwards(loops, options.forwards, settings)
    forwards = (_recorded(requests[at], at, loops[at][number]) for at, number in chosen)
    return Workload(settings, tuple(forwards), tuple(references))


def _recorded(request: GenInputs, number: int, forward: Forward) -> RecordedForward:
    tokens = request.cond_tokens if forward.branch == BRANCHES[0] else request.uncond_tokens
    if tokens is None:
        raise InternalError("the loop ran a branch without a prompt")
    return RecordedForward(number, tokens, request.raw_dim, forward)


def _spread(values: Sequence[Observation], most: int) -> list[Observation]:
    """At most `most` of them, evenly."""
    count = min(len(values), most)
    return [values[number * len(values) // count] for number in range(count)]
