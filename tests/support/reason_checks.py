"""What a reasoner on a GPU, and a policy beside it, must do. Each check is told a bench: see reason_on_gpu.py.

Runs on Python 3.9.
"""

from __future__ import annotations

import dataclasses
import json
import time
from statistics import median
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
from policy_reference import CUP, distance, observation
from reason_reference import NO_PLAN, PLANS, TOKENS, answer, chunk, forced, questions, written

from motedge.runtime.policy import GpuOptions
from motedge.runtime.reasoned.options import ReasonOptions

# Relative L2 of logits and actions against fp32 on the CPU; see policy_checks.py. Where the CPU's choice was closer
# than the margin (standard deviations of the logits), another token may be chosen, and the rest then differs
TOLERANCE = {"fp16": 0.01, "bf16": 0.05, "fp32": 0.005}
MARGIN = {"fp16": 0.05, "bf16": 0.2, "fp32": 0.01}
# onnxruntime computes fp32 exactly, without TF32: the tokens must be the CPU's whatever the margin
EXACT = ("onnxruntime-cuda", "fp32")
LONG_TOKENS, REPLY_TOKENS, WARM_TICKS, LEAST_TICKS = 300, 600, 4, 40
SLICE_TOKENS = 8
# How the time between ticks is used; None: nobody thinks
WAYS: Dict[str, Any] = {
    "none": None,
    "sliced": {"slice_tokens": SLICE_TOKENS},
    "background": {"background": True},
}


def check_words(bench: Any) -> None:
    """Every kind of question: the CPU's tokens, and its logits where they are forced upon it."""
    with bench.load_reasoner() as reasoner:
        for name, asked in questions().items():
            tokens, margins, logits = (bench.reference[f"{name}: {what}"] for what in ("tokens", "margins", "logits"))
            done, _ = answer(reasoner, asked)
            same = _same(done.token_ids, tokens)
            near = same < len(tokens) and margins[same] < MARGIN[bench.precision]
            exact = (bench.engine, bench.precision) == EXACT
            passed = same == len(tokens) or (near and not exact)
            facts = {"equal_tokens": same, "of": len(tokens)}
            if same < len(tokens):
                facts["margin_there"] = float(margins[same])
            bench.say(f"the CPU's words: {name}", passed, **facts)
            with forced([int(token) for token in tokens]):
                _, told = answer(reasoner, asked)
            errors = [distance(got, expected) for got, expected in zip((told[0], told[-1]), logits)]
            bench.say(f"the CPU's logits: {name}", max(errors) < TOLERANCE[bench.precision], relative_l2=errors)
        first, again = (answer(reasoner, questions()["text"])[0].token_ids for _ in range(2))
        bench.say("the same again after other questions", len(first) == TOKENS and first == again)


def check_graph(bench: Any) -> None:
    """A token with its CUDA graph and without: the same words, and it says which; how fast each is."""
    words, launches = {}, {}
    for captured in (True, False):
        with bench.load_reasoner(gpu=GpuOptions(cuda_graph=captured, priority="low")) as reasoner:
            answer(reasoner, questions()["text"])
            done, _ = answer(reasoner, questions()["text"], LONG_TOKENS)
            words[captured], launches[captured] = done.token_ids, reasoner.launch
            bench.say(
                f"tokens a second, CUDA graph {captured}",
                len(done.token_ids) == LONG_TOKENS,
                tokens_per_s=round(done.tokens_per_s, 1),
                launch=reasoner.launch,
            )
    bench.say("captured or not, the same words", words[True] == words[False])
    one_graph = launches[True] == "one CUDA graph"
    bench.say("a token is one CUDA graph", one_graph == bench.engine.startswith("tensorrt"), launches=str(launches))


def check_growth(bench: Any) -> None:
    """Long replies: nothing of the GPU's memory is taken after the first."""
    with bench.load_reasoner() as reasoner:
        for _ in range(2):
            answer(reasoner, questions()["image"], LONG_TOKENS)
        before = bench.used_bytes()
        for _ in range(3):
            answer(reasoner, questions()["image"], LONG_TOKENS)
        grown = bench.used_bytes() - before
        bench.say("long replies, no growth", grown <= 0, tokens=3 * LONG_TOKENS, grown_bytes=grown)


def check_weights(bench: Any) -> None:
    """Weights of the tower once: a policy that shares it takes less than one that brings its own."""
    taken: Dict[str, int] = {}
    told: Dict[str, Dict[str, int]] = {}
    for way in ("apart", "shared", "apart", "shared"):
        with bench.load_reasoner() as reasoner:
            chosen = {"reasoner": reasoner} if way == "shared" else {}
            before = bench.used_bytes()
            with bench.load_policy(**chosen) as policy:
                # The first round leaves what the libraries load once a process
                taken[way] = bench.used_bytes() - before
                told[way] = {name: size for name, size in policy.memory_bytes().items() if "weights" in name}
    weights = told["apart"].get("weights of und_prefill", 0)
    once = "weights of und_prefill" not in told["shared"] and weights > 0
    facts = {"policy_takes_bytes": taken, "weights_of_und_prefill": weights}
    bench.say("the tower's weights stand once", once and taken["shared"] < taken["apart"], **facts)


def check_plans(bench: Any) -> None:
    """The change-over, each way: before it the plain prompt's actions, after it the plan's, and no prefill at it."""
    plain, planned = bench.reference["no plan: actions"], bench.reference["plan 0: actions"]
    tolerance = TOLERANCE[bench.precision]
    bench.say("the reference can tell plans apart", distance(plain, planned) > 2 * tolerance)
    for way in ("within", *bench.ways):
        options = {} if way == "within" else WAYS[way]
        with bench.writing(PLANS[0], every=1000, **options) as acting:
            chunks, took = _until_plan(acting)
            after = [_timed(acting) for _ in range(LEAST_TICKS)]
        errors = [distance(one.actions, plain) for one in chunks[:-1]] + [distance(chunks[-1].actions, planned)]
        same = all(np.array_equal(one.actions, chunks[0].actions) for one in chunks[:-1])
        same = same and all(np.array_equal(one.actions, chunks[-1].actions) for _, one in after)
        prefills = [one.details["prefills"] for one in chunks]
        # Thinking within the tick makes the plan's prompt ready there, before the loop begins
        facts = {"ticks": len(chunks), "worst": max(errors), "launch": after[-1][1].details["launch"]}
        bench.say(f"plans, {way}: the CPU's actions", max(errors) < tolerance and same, **facts)
        bench.say(f"plans, {way}: no prefill at the change", not any(prefills[1:]), prefills=prefills[:3])
        launch = str(chunks[-1].details["launch"])
        rehearsed = way == "within" or launch.startswith("one CUDA graph") or not bench.engine.startswith("tensorrt")
        bench.say(f"plans, {way}: the tick of the change was rehearsed", rehearsed, launch=launch)
        rest = [ms for ms, _ in after]
        bench.say(
            f"plans, {way}: the tick of the change",
            chunks[-1].reasoning.plan is not None,
            before_ms=_middle(took[WARM_TICKS:-1]),
            change_ms=round(took[-1], 3),
            next_ms=[round(ms, 3) for ms in rest[:3]],
            after_ms=_middle(rest[3:]),
        )


def check_latency(bench: Any) -> None:
    """Ticks while a long reply is written: how long they take, each way."""
    for way in ("none", *bench.ways):
        options = {"every": 10**6, "max_tokens": REPLY_TOKENS, **(WAYS[way] or {"slice_tokens": 1})}
        with bench.writing(NO_PLAN, 120, **options) as acting:
            for _ in range(WARM_TICKS):
                acting.policy.act(observation(CUP), seed=1)
            ticks: List[float] = []
            slices: List[float] = []
            going = True
            while len(ticks) < LEAST_TICKS or (going and way != "none"):
                ticks.append(_timed(acting)[0])
                if way != "none":
                    begin = time.perf_counter()
                    going = acting.think()
                    slices.append(1e3 * (time.perf_counter() - begin))
            said = chunk(acting).reasoning
        facts = {"ticks": len(ticks), **_spread(ticks)}
        if way == "sliced":
            facts["slices"] = _spread(slices)
        whole = way == "none" or said.tokens == REPLY_TOKENS
        bench.say(f"ticks while it thinks: {way}", whole, reply_tokens=said.tokens, **facts)


def check_refusals(bench: Any) -> None:
    """Thinking in the background, where that can't be."""
    if "background" in bench.ways:
        return
    try:
        bench.load_both(background=True).close()
    except Exception as error:  # noqa: BLE001 - shown
        bench.say("in the background is refused", "written in the background" in str(error))
    else:
        bench.say("in the background is refused", False)


def check_deadlines(bench: Any) -> None:
    """Under a deadline, each way: fresh chunks, and the plan."""
    from motedge.runtime.deadline import with_deadlines

    for way in bench.ways:
        with written(bench.bundle, PLANS[0]):
            reasoned = bench.load_both(every=1000, **WAYS[way])
            with with_deadlines(reasoned, deadline_ms=60_000.0) as acting:
                seen = observation(CUP)
                acting.warm_up(seen, rounds=2)
                end = time.monotonic() + 60
                while reasoned.think() and time.monotonic() < end:
                    time.sleep(1e-3)
                last = acting.act(seen, seed=1)
        met = last.details["deadline"]["met"] and last.reasoning.plan == json.loads(PLANS[0])
        bench.say(f"under a deadline, {way}", met, **last.details["deadline"])


def _until_plan(acting: Any) -> Tuple[List[Any], List[float]]:
    """Chunks up to the first with the plan, and what each tick took, ms."""
    chunks: List[Any] = []
    took: List[float] = []
    end = time.monotonic() + 60
    while not chunks or (chunks[-1].reasoning.plan is None and time.monotonic() < end):
        ms, made = _timed(acting)
        took.append(ms)
        chunks.append(made)
        acting.think()
    return chunks, took


def _timed(acting: Any) -> Tuple[float, Any]:
    begin = time.perf_counter()
    made = chunk(acting)
    return 1e3 * (time.perf_counter() - begin), made


def _same(got: Any, expected: Any) -> int:
    """Leading tokens that are equal."""
    pairs = zip(got, expected)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(got), len(expected)))


def _middle(values: List[float]) -> Any:
    return round(median(values), 3) if values else None


def _spread(values: List[float]) -> Dict[str, float]:
    points = {"p50_ms": 50, "p99_ms": 99, "longest_ms": 100}
    return {name: round(float(np.percentile(values, point)), 3) for name, point in points.items()}


def reason_options(**options: Any) -> ReasonOptions:
    """Those of a check."""
    return dataclasses.replace(ReasonOptions(), **options)


CHECKS: Tuple[Callable[[Any], None], ...] = (
    check_words,
    check_graph,
    check_growth,
    check_weights,
    check_plans,
    check_latency,
    check_refusals,
    check_deadlines,
)
