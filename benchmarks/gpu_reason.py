"""The reasoner on this machine's GPU, full size, random weights: reading a prompt with an image, then token by token.

Ways of launching a token take turns in one run: one CUDA graph, and piece by piece. Beside them what the card needs to
read the tower's weights once (its own copy kernel's bandwidth), and its library's products of a token's shapes.

    python tests/support/gpu_bundle.py fill BUNDLE
    python benchmarks/gpu_reason.py --bundle BUNDLE
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import SCHEMA
from gpu_conditions import collect_gpu_conditions, gpu_id
from gpu_timing import StreamClock

import motedge
from motedge.bundle import Bundle
from motedge.errors import MotedgeError
from motedge.files import write_json
from motedge.runtime.policy import GpuOptions
from motedge.runtime.reasoner.bundle_reasoner import BundleReasoner
from motedge.runtime.reasoner.events import Finished, Started
from motedge.runtime.reasoner.sampling import SamplingOptions

NOTE = "weights are random: times are those of real weights of this size, the text means nothing"
QUESTION = "What should the robot do next, and what could go wrong?"
# Way -> whether tokens are captured, by us or by onnxruntime itself: `launch` of the results says which
WAYS = {"captured": True, "piece by piece": False}
_COPY_BYTES = 1 << 30


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes JSON; 1 if the ways do not write the same tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle with the reasoner and its weights")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    parser.add_argument("--engine", default="onnxruntime-cuda")
    parser.add_argument("--variant", default="fused-fp16")
    parser.add_argument("--capacity", type=int, default=2048, help="tokens of prompt and reply (default 2048)")
    parser.add_argument("--tokens", type=int, default=128, help="of a reply (default 128)")
    parser.add_argument("--rounds", type=int, default=7, help="replies of each way (default 7)")
    args = parser.parse_args(arguments)
    try:
        found = _measure(args)
    except MotedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    conditions = collect_gpu_conditions()
    target = args.results / f"gpu_reason_{gpu_id(conditions['device'])}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, {"schema": SCHEMA, "benchmark": "gpu_reason", "conditions": conditions, "note": NOTE, **found})
    for way, row in found["ways"].items():
        print(f"{way:<16} {row['token_ms']['median']:.3f} ms a token, prefill {row['prefill_ms']['median']:.1f} ms")
    print(found["limits"], f"written to {target}", sep="\n")
    return 0 if found["same_tokens"] else 1


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    replies: dict[str, list[tuple[Started, Finished]]] = {way: [] for way in WAYS}
    reasoners: dict[str, BundleReasoner] = {}
    try:
        for way, captured in WAYS.items():
            reasoners[way] = motedge.load_reasoner(
                args.bundle,
                engine=args.engine,
                variant=args.variant,
                check="size",
                capacity=args.capacity,
                gpu=GpuOptions(cuda_graph=captured),
            )
            # The first reply warms up, the second captures
            _ask(reasoners[way], args.tokens)
            _ask(reasoners[way], args.tokens)
        for number in range(args.rounds):
            for way in list(WAYS) if number % 2 == 0 else list(reversed(WAYS)):
                replies[way].append(_ask(reasoners[way], args.tokens))
        rows = {way: {"launch": reasoners[way].launch, **_row(replies[way])} for way in WAYS}
    finally:
        for reasoner in reasoners.values():
            reasoner.close()
    tokens = {reply.token_ids for found in replies.values() for _, reply in found}
    bundle = Bundle.open(args.bundle)
    return {
        "bundle": {"model": {k: bundle.manifest.model.get(k) for k in ("family", "variant")}, "variant": args.variant},
        "engine": args.engine,
        "capacity": args.capacity,
        "rounds": args.rounds,
        "ways": rows,
        "same_tokens": len(tokens) == 1,
        "limits": limits(bundle.manifest.model["config"], StreamClock("cuda")),
    }


def _ask(reasoner: BundleReasoner, tokens: int) -> tuple[Started, Finished]:
    # Noise, through which no kernel can take a short cut
    image = np.random.RandomState(7).randint(0, 256, (540, 640, 3)).astype(np.uint8)
    events = list(reasoner.ask(QUESTION, [image], options=SamplingOptions(max_new_tokens=tokens)))
    started, finished = events[0], events[-1]
    if not isinstance(started, Started) or not isinstance(finished, Finished):
        raise SystemExit("a reply without its beginning or end")
    return started, finished


def _row(replies: list[tuple[Started, Finished]]) -> dict[str, Any]:
    first, last = replies[0]
    return {
        "prompt_tokens": first.prompt_tokens,
        "visual_tokens": first.visual_tokens,
        "reply_tokens": len(last.token_ids),
        "vision_ms": _spread([started.vision_ms for started, _ in replies]),
        "prefill_ms": _spread([started.prefill_ms for started, _ in replies]),
        # By the host's clock: sampling and text included
        "token_ms": _spread([1e3 / finished.tokens_per_s for _, finished in replies if finished.token_ids]),
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "n": len(values),
    }


def products_of(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Inner size and columns of every matrix that a token is multiplied with."""
    hidden, inner, head = (int(config[name]) for name in ("hidden_size", "intermediate_size", "head_dim"))
    wide, narrow = (head * int(config[name]) for name in ("num_attention_heads", "num_key_value_heads"))
    gates = 1 if config["hidden_act"] == "relu2" else 2
    layer = [(hidden, wide), (hidden, narrow), (hidden, narrow), (wide, hidden)]
    layer += [*[(hidden, inner)] * gates, (inner, hidden)]
    return layer * int(config["num_hidden_layers"]) + [(hidden, int(config["vocab_size"]))]


def limits(config: Mapping[str, Any], clock: StreamClock) -> dict[str, Any]:
    """What a token costs at least: reading the weights at a copy's bandwidth, and the library's products alone."""
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = clock.measure({"copy": lambda: target.copy_(source)}, rounds=7)["copy"]
    rate = 2 * _COPY_BYTES / copy["median_ms"] * 1e3
    shapes = products_of(config)
    weights = [torch.randn(shape, device="cuda", dtype=torch.float16).mul_(shape[0] ** -0.5) for shape in shapes]
    rows = {size: torch.randn(1, size, device="cuda", dtype=torch.float16) for size in {shape[0] for shape in shapes}}

    def products() -> None:
        for weight in weights:
            torch.mm(rows[weight.shape[0]], weight)

    clock.run(products)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        products()
    library = clock.measure({"products": graph.replay}, rounds=7)["products"]
    nbytes = sum(2 * weight.numel() for weight in weights)
    return {
        "weight_bytes": nbytes,
        "copy_gb_per_s": round(rate / 1e9, 1),
        "reading_ms": round(1e3 * nbytes / rate, 4),
        "library_products_ms": library,
    }


if __name__ == "__main__":
    sys.exit(main())
