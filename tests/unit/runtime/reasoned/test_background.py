"""Thinking in a thread of its own: ticks never wait for it, and what it made is taken up between them."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from policy_fakes import CONTRACT, make_policy
from scripted_reasoner import ScriptedReasoner

from motedge.errors import UsageError
from motedge.runtime.deadline import with_deadlines
from motedge.runtime.policy.observation import Observation
from motedge.runtime.reasoned.options import ReasonOptions
from motedge.runtime.reasoned.policy import ReasonedPolicy, with_reasoning

LONGER = dataclasses.replace(CONTRACT, profile={"U": (2, 16, 200)})
STEPS = ["Reach for the cup", "Lift it."]
ANSWER = json.dumps({"plan": STEPS})
IN_TIME_S = 10


class PacedReasoner(ScriptedReasoner):
    """Takes a step when it is let: `let(n)` so many, `let()` all from then on."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.gate, self.open, self.at_step, self.threads = threading.Semaphore(0), False, threading.Event(), set[str]()

    def let(self, steps: int = 0) -> None:
        self.open = self.open or not steps
        for _ in range(steps or 1):
            self.gate.release()

    def steps(self, *arguments: Any, **more: Any) -> Iterator[Any]:
        for event in super().steps(*arguments, **more):
            self.threads.add(threading.current_thread().name)
            self.at_step.set()
            if not self.open:
                assert self.gate.acquire(timeout=IN_TIME_S)
            yield event


def observation(instruction: str = "Put the cup down") -> Observation:
    return Observation(np.zeros(7), 0.5, instruction, views={"wrist": np.full((360, 640, 3), 50, np.uint8)})


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[ReasonedPolicy, Any]]]:
    opened = []

    def build(reasoner: ScriptedReasoner, **options: Any) -> tuple[ReasonedPolicy, Any]:
        policy, fakes = make_policy(gen_contract=LONGER)
        policy._tick.prepares_aside = True
        acting = with_reasoning(policy, reasoner, ReasonOptions(background=True, **options))
        opened.append((acting, reasoner))
        return acting, fakes

    yield build
    for acting, reasoner in opened:
        if isinstance(reasoner, PacedReasoner):
            reasoner.let()
        acting.close()
        acting.close()
    assert not any(thread.name == "motedge-thinker" for thread in threading.enumerate())


def finish(acting: ReasonedPolicy) -> None:
    """Waits until nothing is under way."""
    end = time.monotonic() + IN_TIME_S
    while acting.think():
        assert time.monotonic() < end
        time.sleep(1e-3)


def test_a_tick_does_not_wait_and_the_next_one_has_the_plan(make: Any) -> None:
    reasoner = PacedReasoner(ANSWER)
    acting, fakes = make(reasoner, every=100)
    plain = acting.act(observation(), seed=1)
    assert reasoner.at_step.wait(IN_TIME_S)
    # In the middle of a step
    for age in range(3):
        chunk = acting.act(observation(), seed=1)
        assert chunk.reasoning.fell_back and "no reply to this instruction is written yet" in chunk.reasoning.problem
        assert chunk.reasoning.prompt == plain.reasoning.prompt and acting.think() and age < 3
        np.testing.assert_array_equal(chunk.actions, plain.actions)
    reasoner.let()
    finish(acting)
    # Prepared in the thread, whole, before a tick may use it
    assert fakes.loop.prepared == [len(acting_prompt(acting).split()) + 2]
    chunk = acting.act(observation(), seed=1)
    assert chunk.reasoning.plan == {"plan": STEPS} and chunk.reasoning.age_ticks == 4
    assert reasoner.threads == {"motedge-thinker"} and len(reasoner.asked) == 1


def acting_prompt(acting: ReasonedPolicy) -> str:
    return acting.policy.prompt("Put the cup down. Reach for the cup. Lift it.")


def test_every_k_ticks_a_new_reply_and_never_two_at_once(make: Any) -> None:
    reasoner = ScriptedReasoner(lambda n: json.dumps({"plan": f"Step {n}"}))
    acting, _ = make(reasoner, every=2)
    plans = []
    for _ in range(7):
        said = acting.act(observation()).reasoning
        plans.append(said.plan and said.plan["plan"][-1])
        finish(acting)
    assert plans == [None, "0", "0", "1", "1", "2", "2"]


def test_another_instruction_gives_the_thought_up(make: Any) -> None:
    reasoner = PacedReasoner(ANSWER)
    acting, _ = make(reasoner, every=100)
    acting.act(observation())
    assert reasoner.at_step.wait(IN_TIME_S)
    said = acting.act(observation("Open the drawer")).reasoning
    assert said.fell_back and said.prompt == acting.policy.prompt("Open the drawer")
    reasoner.let()
    finish(acting)
    said = acting.act(observation("Open the drawer")).reasoning
    assert "Open the drawer. Reach" in said.prompt and reasoner.left == 1 and len(reasoner.asked) == 2


def test_one_that_never_ends_is_cut_while_ticks_go_on(make: Any) -> None:
    acting, _ = make(ScriptedReasoner("on and on", ends=False), every=100, max_tokens=2000)
    ticks = 0
    acting.act(observation())
    while acting.think():
        acting.act(observation())
        ticks += 1
    said = acting.act(observation()).reasoning
    assert (said.ended, said.tokens) == ("length", 2000) and "the reply was cut" in said.problem


def test_whatever_breaks_it_off_is_told_and_the_next_goes_well(make: Any, caplog: Any) -> None:
    class Breaking(ScriptedReasoner):
        def steps(self, *arguments: Any, **more: Any) -> Any:
            if len(self.asked) == 1:
                raise ZeroDivisionError("a fault of ours")
            return super().steps(*arguments, **more)

    acting, _ = make(Breaking(ANSWER), every=1)
    acting.act(observation())
    finish(acting)
    said = acting.act(observation()).reasoning
    assert said.problem == "thinking broke off: a fault of ours" and said.prompt == acting.policy.prompt(
        "Put the cup down"
    )
    assert "broke off" in caplog.text
    finish(acting)
    assert acting.act(observation()).reasoning.plan == {"plan": STEPS}


def test_closing_waits_for_the_step_that_runs(make: Any) -> None:
    reasoner = PacedReasoner(ANSWER)
    acting, fakes = make(reasoner, every=100)
    acting.act(observation())
    assert reasoner.at_step.wait(IN_TIME_S)
    closing = threading.Thread(target=acting.close)
    closing.start()
    time.sleep(0.02)
    # What the step works on is still there
    assert closing.is_alive() and not fakes.loop.closed and not reasoner.closed
    reasoner.let()
    closing.join(IN_TIME_S)
    assert fakes.loop.closed and (reasoner.closed, reasoner.left) == (1, 1)


def test_under_a_deadline(make: Any) -> None:
    reasoner = PacedReasoner(ANSWER)
    reasoned, _ = make(reasoner, every=100)
    assert not reasoned.thinks_in_act
    with with_deadlines(reasoned, deadline_ms=5000) as acting:
        assert acting.act(observation()).reasoning.fell_back
        assert acting.act(observation()).details["deadline"]["met"]
        reasoner.let()
        finish(reasoned)
        chunk = acting.act(observation())
        assert chunk.reasoning.plan == {"plan": STEPS} and chunk.details["deadline"]["met"]


def test_where_it_can_not_be() -> None:
    policy, _ = make_policy()
    with pytest.raises(UsageError, match="written in the background") as refused:
        with_reasoning(policy, ScriptedReasoner(), ReasonOptions(background=True))
    assert "slice_tokens" in str(refused.value)
    with pytest.raises(UsageError, match="in the background or in slices"):
        ReasonOptions(background=True, slice_tokens=3)
