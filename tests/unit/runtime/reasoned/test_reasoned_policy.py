"""A policy on fakes whose prompt a scripted reasoner writes: whole, sliced, wrong, endless."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from policy_fakes import CONTRACT, make_policy
from scripted_reasoner import PROMPT_PIECES, ScriptedReasoner

from motedge.errors import ObservationError, UsageError
from motedge.runtime.cuda.errors import CudaError
from motedge.runtime.cuda.frames import DeviceFrame
from motedge.runtime.deadline import DeadlineMissedError, with_deadlines
from motedge.runtime.policy.canvas import normalise, pad_canvas
from motedge.runtime.policy.observation import Observation
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.policy import ReasonedPolicy, with_reasoning
from motedge.runtime.reasoner.events import Finished
from motedge.runtime.reasoner.sampling import UPSAMPLER

LONGER = dataclasses.replace(CONTRACT, profile={"U": (2, 16, 200)})
STEPS = ["Reach for the cup", "Lift it."]
ANSWER = json.dumps({"plan": STEPS})
WORDS = len(ANSWER.split(" "))


def observation(instruction: str = "Put the cup down") -> Observation:
    views = {"wrist": np.full((360, 640, 3), 50, np.uint8)}
    return Observation(np.zeros(7), 0.5, instruction, views=views)


def make(reasoner: ScriptedReasoner, **options: Any) -> tuple[ReasonedPolicy, Any]:
    policy, fakes = make_policy(gen_contract=LONGER)
    return with_reasoning(policy, reasoner, ReasonOptions(**options)), fakes


def test_the_plan_is_the_prompt_and_travels_with_the_chunk() -> None:
    reasoner = ScriptedReasoner(f"Well: {ANSWER}", thoughts="hm")
    acting, fakes = make(reasoner)
    chunk = acting.act(observation())
    said = chunk.reasoning
    assert said is not None and not said.fell_back
    assert (said.answer, said.thoughts, said.ended) == (f"Well: {ANSWER}", "hm", "stop")
    described = json.loads(said.prompt)["actions"][0]["description"]
    assert described == "Put the cup down. Reach for the cup. Lift it."
    # What the tokenizer was given is what the reply says
    assert said.prompt in fakes.tokenizer.prompts and fakes.loop.prepared == [len(said.prompt.split()) + 2]
    assert reasoner.images[0].shape == (540, 640, 3) and "Put the cup down" in reasoner.asked[0][0]
    document = json.loads(chunk.to_json())
    assert document["reasoning"]["plan"] == {"plan": STEPS} and document["reasoning"]["age_ticks"] == 0
    assert chunk.timings_ms["total_ms"] >= chunk.timings_ms["reason_ms"] > 0
    assert "reasoning" not in make_policy()[0].act(observation()).to_dict()


def test_thinks_every_k_ticks() -> None:
    reasoner = ScriptedReasoner(lambda n: json.dumps({"plan": f"Step {n}"}))
    acting, _ = make(reasoner, every=3)
    chunks = [acting.act(observation()) for _ in range(7)]
    assert [chunk.reasoning.age_ticks for chunk in chunks] == [0, 1, 2, 0, 1, 2, 0]
    assert [chunk.reasoning.plan["plan"][-1] for chunk in chunks] == list("0001112")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("I would rather not.", "no JSON object"),
        ('{"plan": ["a", ', "no JSON object"),
        ('{"steps": ["a"]}', "lacks plan"),
        ('{"plan": 3}', "field 'plan' is no array or string"),
        ('{"plan": []}', "no steps"),
        ('{"plan": ["a", 3]}', "no steps, or some that are no text"),
        (json.dumps({"plan": ["a"] * 17}), "more than 16 steps"),
        (json.dumps({"plan": "go on " * 110}), "the generator can't take the plan: the instruction is too long"),
    ],
)
def test_what_is_no_plan_leaves_the_plain_instruction(answer: str, problem: str) -> None:
    acting, _ = make(ScriptedReasoner(answer))
    chunk = acting.act(observation())
    assert chunk.reasoning.fell_back and problem in chunk.reasoning.problem and chunk.reasoning.answer == answer
    plain, _ = make_policy()
    assert chunk.reasoning.prompt == plain.prompt("Put the cup down")
    np.testing.assert_array_equal(chunk.actions, plain.act(observation()).actions)


def test_a_reply_that_never_ends_is_cut() -> None:
    reasoner = ScriptedReasoner("on and on", ends=False)
    acting, _ = make(reasoner, max_tokens=50)
    said = acting.act(observation()).reasoning
    assert (said.tokens, said.ended) == (50, "length") and "the reply was cut" in said.problem
    assert [options.max_new_tokens for options in reasoner.options] == [50]


def test_slices_by_tokens_change_over_between_ticks() -> None:
    """Each tick acts at once; the plan that is written meanwhile is prepared before the tick that first uses it."""
    reasoner = ScriptedReasoner(ANSWER)
    acting, fakes = make(reasoner, every=100, slice_tokens=3)
    # The question, the pieces of the prompt, the words, their end; the last step reads the answer and prepares it
    steps, ages = 1 + PROMPT_PIECES + WORDS + 2, []
    for tick in range(8):
        before = len(fakes.loop.prepared)
        chunk = acting.act(observation())
        # Acting neither thinks nor prepares
        assert len(fakes.loop.prepared) == before
        ages.append(chunk.reasoning.age_ticks if chunk.reasoning.ended else None)
        assert acting.think() == (3 * (tick + 1) < steps)
    slices = -(-steps // 3)
    assert ages == [None] * slices + list(range(slices, 8))
    assert chunk.reasoning.plan == {"plan": STEPS} and len(fakes.loop.prepared) == 1
    assert len(reasoner.asked) == 1 and not acting.think()


def test_slices_by_time_do_at_least_one_step() -> None:
    acting, _ = make(ScriptedReasoner(ANSWER), every=100, slice_ms=1e-6)
    acting.act(observation())
    slices = 1
    while acting.think():
        slices += 1
    assert slices == 1 + PROMPT_PIECES + WORDS + 2
    assert not acting.act(observation()).reasoning.fell_back


def test_a_step_is_one_forward() -> None:
    """The token that ends a reply and the prompt that follows from it are two."""
    ends: list[Any] = []

    class Ending(ScriptedReasoner):
        def steps(self, *args: Any, **more: Any) -> Any:
            for event in super().steps(*args, **more):
                if isinstance(event, Finished):
                    ends.append(event)
                yield event

    acting, fakes = make(Ending(ANSWER), every=100, slice_tokens=1)
    acting.act(observation())
    going = True
    while going:
        before = len(ends) + len(fakes.loop.prepared)
        going = acting.think()
        assert len(ends) + len(fakes.loop.prepared) <= before + 1
    assert len(ends) == len(fakes.loop.prepared) == 1


def test_another_instruction_drops_the_thought_and_the_plan() -> None:
    reasoner = ScriptedReasoner(ANSWER)
    acting, _ = make(reasoner, every=2, slice_tokens=4)
    acting.act(observation())
    acting.think()
    said = acting.act(observation("Open the drawer")).reasoning
    assert reasoner.left == 1 and said.fell_back
    assert "no reply to this instruction is written yet" in said.problem
    while acting.think():
        pass
    assert "Open the drawer. Reach" in acting.act(observation("Open the drawer")).reasoning.prompt
    # The plan for the drawer is none for the cup
    assert acting.act(observation()).reasoning.fell_back


def test_the_image_is_that_of_its_tick_whatever_becomes_of_the_buffer() -> None:
    reasoner = ScriptedReasoner(ANSWER)
    acting, _ = make(reasoner, slice_tokens=2)
    seen = observation()
    acting.act(seen)
    seen.views["wrist"][...] = 0
    acting.think()
    assert reasoner.images[0][0, 0, 0] == 50


def test_a_reasoner_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ScriptedReasoner):
        def prompt(self, *args: Any, **more: Any) -> Any:
            raise UsageError("the prompt is empty or too long")

    acting, _ = make(Failing())
    said = acting.act(observation()).reasoning
    assert said.problem == "the reasoner failed: the prompt is empty or too long"
    assert "the plain instruction stands in" in caplog.text


@pytest.mark.parametrize("slices", [{}, {"slice_tokens": 99}])
def test_frames_on_the_gpu_are_seen_where_the_policy_composes_them(slices: dict[str, Any]) -> None:
    views = {"wrist": DeviceFrame(1 << 20, 360, 640), "left": np.zeros((360, 640, 3), np.uint8)}
    seen = Observation(np.zeros(7), 0.5, "Put the cup down", views=views)
    policy, _ = make_policy(gen_contract=LONGER)
    composed = np.random.RandomState(0).randint(0, 256, (540, 640, 3)).astype(np.uint8)

    def see(observation: Observation) -> tuple[str, ...]:
        # As the kernel does it
        assert observation.on_gpu
        normalise(pad_canvas(composed, (544, 736)), out=policy._tick._canvas)
        return ("right",)

    policy._tick.see = see
    reasoner = ScriptedReasoner(ANSWER)
    acting = with_reasoning(policy, reasoner, ReasonOptions(every=99, **slices))
    before = acting.act(seen).missing_views
    # The camera's buffer is another frame's by now
    policy._tick._canvas[...] = 0
    acting.think()
    np.testing.assert_array_equal(reasoner.images[0], composed)
    assert before == ("right",) and acting.act(seen).reasoning.plan == {"plan": STEPS}


@pytest.mark.parametrize("slices", [{}, {"slice_tokens": 9}])
def test_frames_that_can_not_be_had_are_told(slices: dict[str, Any]) -> None:
    seen = Observation(np.zeros(7), 0.5, "Put the cup down", views={"wrist": DeviceFrame(1 << 20, 360, 640)})
    policy, _ = make_policy()
    policy._tick.see = lambda observation: ()
    policy._tick.seen = lambda: (_ for _ in ()).throw(CudaError("the copy failed"))
    acting = with_reasoning(policy, ScriptedReasoner(ANSWER), ReasonOptions(**slices))
    acting.act(seen)
    acting.think()
    assert acting.act(seen).reasoning.problem == "the reasoner failed: the copy failed"


def test_a_dense_caption_joins_the_policys_own_prompt() -> None:
    caption = {"lighting": "dim", "fps": 3, "cinematography": {"framing": "wide", "lens": "50 mm"}, "actions": "lifts"}
    reasoner = ScriptedReasoner(json.dumps(caption))
    acting, _ = make(reasoner, mode="json-prompt")
    policy = acting.policy
    own = json.loads(policy.prompt("Put the cup down"))
    made = json.loads(acting.act(observation()).reasoning.prompt)
    assert made["lighting"] == "dim" and made["fps"] == own["fps"]
    assert made["cinematography"] == {**own["cinematography"], "lens": "50 mm"}
    assert made["actions"] == [*own["actions"], "lifts"]
    assert reasoner.options == [UPSAMPLER]
    plain, _ = make_policy(prompt_format="plain")
    with pytest.raises(UsageError, match="dense caption is of no use"):
        with_reasoning(plain, reasoner, ReasonOptions(mode="json-prompt"))


@pytest.mark.parametrize("slices", [{}, {"slice_tokens": 99}])
def test_an_instruction_that_is_too_long_is_refused_again_and_again(slices: dict[str, Any]) -> None:
    acting, _ = make(ScriptedReasoner("no"), **slices)
    for _ in range(2):
        with pytest.raises(ObservationError, match="the instruction is too long"):
            acting.act(observation("go on " * 200))
        if slices:
            with contextlib.suppress(ObservationError):
                acting.think()
    assert acting.act(observation()).reasoning.fell_back


def test_under_a_deadline() -> None:
    reasoned, fakes = make(ScriptedReasoner(ANSWER), every=100, slice_tokens=99)
    with with_deadlines(reasoned, deadline_ms=2000) as acting:
        assert acting.act(observation()).reasoning.fell_back
        reasoned.think()
        chunk = acting.act(observation())
    assert chunk.reasoning.plan == {"plan": STEPS} and chunk.details["deadline"]["met"]
    assert fakes.loop.closed


def test_under_a_deadline_without_a_slice_is_refused() -> None:
    reasoned, _ = make(ScriptedReasoner(ANSWER), every=100)
    with pytest.raises(UsageError, match="thinks within its ticks") as refused:
        with_deadlines(reasoned, deadline_ms=2000)
    assert "slice_tokens" in str(refused.value) and "--reason-slice" in str(refused.value)


def test_thinking_does_not_wait_for_a_late_tick() -> None:
    reasoned, fakes = make(ScriptedReasoner(ANSWER), every=100, slice_tokens=3)
    entered, go_on, run = threading.Event(), threading.Event(), fakes.loop.run

    def slow(*args: Any, **more: Any) -> Any:
        entered.set()
        assert go_on.wait(10)
        return run(*args, **more)

    with with_deadlines(reasoned, deadline_ms=50) as acting:
        fakes.loop.run = slow
        with pytest.raises(DeadlineMissedError):
            acting.act(observation())
        assert entered.wait(10)
        before = time.perf_counter()
        # One is under way, and none of it is done beside the tick
        assert reasoned.think()
        assert time.perf_counter() - before < 5
        go_on.set()


def test_closing_closes_both_and_gives_the_thought_up() -> None:
    reasoner = ScriptedReasoner(ANSWER)
    acting, fakes = make(reasoner, slice_tokens=2)
    with acting:
        acting.act(observation())
        acting.think()
    assert fakes.loop.closed and (reasoner.closed, reasoner.left) == (1, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "plans"}, "did you mean 'plan'"),
        ({"every": 0}, "every of the reasoning"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"slice_tokens": 0}, "slice_tokens"),
        ({"slice_ms": 0}, "slice_ms"),
        ({"piece": 0}, "piece"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ReasonOptions(**options)
