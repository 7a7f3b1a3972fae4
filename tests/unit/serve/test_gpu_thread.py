"""The thread that owns the engines: turns, questions between ticks, change of bundle, the end, death."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from serve_scene import METADATA, MadeResident, until

from motedge.client import protocol
from motedge.errors import HostError, InternalError
from motedge.runtime.policy import Observation
from motedge.runtime.reasoner.events import Finished, Pause, Started
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.runtime.reasoner.thinking import Part
from motedge.serve.chat_job import ChatJob
from motedge.serve.gpu_thread import GpuThread, StaleQuestionError, StoppingError
from motedge.serve.job import Job, Outcome
from motedge.serve.policy_request import PolicyRequest
from motedge.serve.waiting_room import RoomFullError

SEEN = Observation(np.zeros(7), 0.0, "go", image=np.zeros((540, 640, 3), np.uint8))


class Told:
    """What was answered, in order."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Any, Outcome]] = []

    def job(self, client: int, name: Any = None, due_s: float | None = None) -> Job:
        request = PolicyRequest(SEEN, request_id=name)
        return Job(client, request, time.monotonic(), due_s, lambda outcome: self.outcomes.append((name, outcome)))

    def codes(self) -> list[tuple[Any, str | None]]:
        return [(name, outcome.code) for name, outcome in self.outcomes]


class MadeReasoner:
    """Says "a b c ..." and notes at which word the engine was told to stop."""

    def __init__(self, words: int = 5, fails_at: int | None = None) -> None:
        self.words, self.fails_at = words, fails_at
        self.said = self.closed = 0
        self.pieces: list[Any] = []

    def steps(self, prompt: Any, options: Any, *, piece: Any = None) -> Iterator[Any]:
        self.pieces.append(piece)
        try:
            yield Pause(0)
            yield Started(3, 0, 0.0, 1.0)
            for number in range(self.words):
                if number == self.fails_at:
                    raise HostError("no memory")
                self.said += 1
                yield Pause(number + 1)
                yield Part("answer", f"w{number} ")
            yield Finished("stop", "", "text", tuple(range(self.words)), 1.0)
        finally:
            self.closed += 1


def chat(thread: GpuThread, events: list[Any]) -> ChatJob:
    prompt: Any = SimpleNamespace()
    return ChatJob(prompt, SamplingOptions(), events.append, events.append, thread.resident)


@pytest.fixture
def deaths() -> list[BaseException]:
    return []


@pytest.fixture
def start(deaths: list[BaseException]) -> Iterator[Any]:
    started: list[GpuThread] = []

    def begin(resident: MadeResident, **options: int) -> GpuThread:
        thread = GpuThread(resident, **{"waiting": 4, "chats": 2, **options}, on_death=deaths.append)
        started.append(thread)
        return thread

    yield begin
    for thread in started:
        thread.stop(abandon=True)
        assert thread.join(10)


def test_clients_take_turns_and_the_newest_counts(start: Any) -> None:
    go, told = threading.Event(), Told()
    thread = start(MadeResident(work=lambda request: go.wait(10)))
    thread.submit(told.job(1, "first"))
    until(lambda: thread.busy_s() > 0 and thread.waiting == 0)
    for client, name in ((1, "old"), (2, "two"), (1, "new"), (3, "three")):
        thread.submit(told.job(client, name))
    assert told.codes() == [("old", protocol.DROPPED)]
    thread.forget(3)
    go.set()
    until(lambda: len(told.outcomes) == 4)
    # The place in the queue is the older one's
    assert told.codes()[1:] == [("first", None), ("new", None), ("two", None)]
    assert thread.busy_s() == 0 or thread.alive


def test_the_room_has_an_end(start: Any) -> None:
    go, told = threading.Event(), Told()
    thread = start(MadeResident(work=lambda request: go.wait(10)), waiting=1, chats=1)
    thread.submit(told.job(1))
    until(lambda: thread.busy_s() > 0 and thread.waiting == 0)
    thread.submit(told.job(2))
    # One to be answered, and one that waits
    thread.ask(chat(thread, []))
    thread.ask(chat(thread, []))
    with pytest.raises(RoomFullError):
        thread.submit(told.job(3))
    with pytest.raises(RoomFullError, match="questions"):
        thread.ask(chat(thread, []))
    go.set()


def test_a_question_goes_on_between_ticks(start: Any) -> None:
    resident, told, events = MadeResident(), Told(), []  # type: Any, Any, list[Any]
    resident.reasoner = MadeReasoner(words=10**9)
    thread = start(resident)
    question = chat(thread, events)
    thread.ask(question)
    for number in range(20):
        thread.submit(told.job(1, number))
        until(lambda number=number: len(told.outcomes) == number + 1)
    assert {code for _, code in told.codes()} == {None} and resident.reasoner.pieces == [64]
    question.cancelled = True
    until(lambda: events[-1] is None)
    assert isinstance(events[0], Started) and not any(isinstance(event, Finished) for event in events)
    resident.reasoner.words = 3
    short: list[Any] = []
    thread.ask(chat(thread, short))
    until(lambda: short and short[-1] is None)
    assert isinstance(short[-2], Finished) and resident.reasoner.closed == 2


def test_a_question_that_nobody_wants_any_more_stops(start: Any) -> None:
    resident, events = MadeResident(), []  # type: Any, list[Any]
    resident.reasoner = MadeReasoner(words=10**6)
    thread = start(resident)
    question, second = chat(thread, events), chat(thread, [])
    second.cancelled = True
    thread.ask(question)
    thread.ask(second)
    until(lambda: len(events) > 3)
    question.cancelled = True
    until(lambda: resident.reasoner.closed == 1)
    until(lambda: second is not None and not thread._chats)
    assert resident.reasoner.pieces == [64], "the second was never begun"


def test_questions_that_nobody_wants_make_room(start: Any) -> None:
    resident, events = MadeResident(), []  # type: Any, list[Any]
    resident.reasoner = MadeReasoner(words=10**9)
    thread = start(resident, chats=2)
    first = chat(thread, events)
    thread.ask(first)
    until(lambda: bool(events))
    waiting = [chat(thread, []) for _ in range(2)]
    for question in waiting:
        thread.ask(question)
    with pytest.raises(RoomFullError):
        thread.ask(chat(thread, []))
    waiting[0].cancelled = True
    answered: list[Any] = []
    thread.ask(chat(thread, answered))
    with pytest.raises(RoomFullError):
        thread.ask(chat(thread, []))
    resident.reasoner.words = 1
    first.cancelled = waiting[1].cancelled = True
    until(lambda: answered and answered[-1] is None)


def test_a_question_made_for_another_bundle_is_not_answered_by_this_one(start: Any) -> None:
    go, told, events = threading.Event(), Told(), []  # type: Any, Any, list[Any]
    old, new = MadeResident(1, work=lambda request: go.wait(10)), MadeResident(2)  # type: Any, Any
    old.reasoner, new.reasoner = MadeReasoner(), MadeReasoner()
    thread = start(old)
    thread.submit(told.job(1))
    until(lambda: thread.busy_s() > 0 and thread.waiting == 0)
    thread.ask(chat(thread, events))
    thread.swap(new)
    go.set()
    until(lambda: bool(events))
    assert isinstance(events[0], StaleQuestionError) and len(events) == 1
    assert new.reasoner.pieces == old.reasoner.pieces == []


def test_a_question_that_fails_is_told_and_the_next_one_is_answered(start: Any) -> None:
    resident, events = MadeResident(), []  # type: Any, list[Any]
    resident.reasoner = MadeReasoner(fails_at=2)
    thread = start(resident)
    thread.ask(chat(thread, events))
    until(lambda: any(isinstance(event, HostError) for event in events))
    resident.reasoner.fails_at = None
    again: list[Any] = []
    thread.ask(chat(thread, again))
    until(lambda: again and again[-1] is None)


def test_without_a_reasoner_a_question_is_refused(start: Any) -> None:
    events: list[Any] = []
    thread = start(MadeResident())
    thread.ask(chat(thread, events))
    until(lambda: bool(events))
    assert "no reasoner" in str(events[0])


def test_a_reply_keeps_its_bundle_until_it_is_done(start: Any) -> None:
    begun, go, told, events = threading.Event(), threading.Event(), Told(), []  # type: Any, Any, Any, list[Any]
    old, new, reasoner = MadeResident(1), MadeResident(2), MadeReasoner(words=3)

    def held(*arguments: Any, **more: Any) -> Iterator[Any]:
        for event in reasoner.steps(*arguments, **more):
            if isinstance(event, Started):
                begun.set()
                go.wait(10)
                # The other bundle takes over, and serves, before the next step of this reply
                thread.swap(new)
                thread.submit(told.job(1))
            if isinstance(event, Part):
                assert old.closed == 0 and [outcome.generation for _, outcome in told.outcomes] == [2]
            yield event

    old.reasoner = SimpleNamespace(steps=held)
    thread = start(old)
    thread.ask(chat(thread, events))
    assert begun.wait(10)
    go.set()
    until(lambda: events and events[-1] is None)
    assert isinstance(events[-2], Finished)
    until(lambda: old.closed == 1)
    assert new.closed == 0 and old.left == 1 and new.left == 0


def test_a_bundle_that_was_never_served_is_closed_too(start: Any) -> None:
    go, told = threading.Event(), Told()
    one, two, three = (MadeResident(number, work=lambda request: go.wait(10)) for number in (1, 2, 3))
    thread = start(one)
    thread.submit(told.job(1))
    until(lambda: thread.busy_s() > 0)
    thread.swap(two)
    thread.swap(three)
    go.set()
    until(lambda: thread.resident is three)
    until(lambda: one.closed == two.closed == 1)
    assert three.closed == 0


def test_the_end_does_what_waits_and_takes_nothing_more(start: Any) -> None:
    go, told, events = threading.Event(), Told(), []  # type: Any, Any, list[Any]
    resident = MadeResident(work=lambda request: go.wait(10))
    resident.reasoner = MadeReasoner()
    thread = start(resident)
    thread.submit(told.job(1, "under way"))
    until(lambda: thread.busy_s() > 0 and thread.waiting == 0)
    thread.submit(told.job(2, "waits"))
    thread.ask(chat(thread, events))
    thread.stop()
    for call in (
        lambda: thread.submit(told.job(3)),
        lambda: thread.ask(chat(thread, [])),
        lambda: thread.swap(MadeResident()),
    ):
        with pytest.raises(StoppingError):
            call()
    go.set()
    assert thread.join(10) and not thread.alive
    assert told.codes() == [("under way", None), ("waits", None)]
    assert isinstance(events[-2], Finished) and resident.closed == 1


def test_what_is_given_up_is_told(start: Any) -> None:
    go, told, events = threading.Event(), Told(), []  # type: Any, Any, list[Any]
    resident = MadeResident(work=lambda request: go.wait(10))
    resident.reasoner = MadeReasoner()
    thread = start(resident)
    thread.submit(told.job(1, "under way"))
    until(lambda: thread.busy_s() > 0 and thread.waiting == 0)
    thread.submit(told.job(2, "waits"))
    thread.ask(chat(thread, events))
    thread.stop(abandon=True)
    assert told.codes() == [("waits", protocol.STOPPING)]
    go.set()
    assert thread.join(10)
    assert told.codes()[-1] == ("under way", None) and events == [None]


@pytest.mark.parametrize("harm", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_death_is_told_to_everyone(start: Any, deaths: list[BaseException], harm: BaseException) -> None:
    go, told, events = threading.Event(), Told(), []  # type: Any, Any, list[Any]

    def die(request: Any) -> None:
        go.wait(10)
        raise harm

    resident = MadeResident(work=die)
    resident.reasoner = MadeReasoner()
    thread = start(resident)
    thread.submit(told.job(1, "under way"))
    until(lambda: thread.busy_s() > 0 and thread.waiting == 0)
    thread.submit(told.job(2, "waits"))
    thread.ask(chat(thread, events))
    go.set()
    until(lambda: bool(deaths))
    assert deaths == [harm] and not thread.alive
    assert told.codes() == [("under way", protocol.FAILED), ("waits", protocol.FAILED)]
    assert isinstance(events[0], StoppingError)
    with pytest.raises(StoppingError, match="died"):
        thread.submit(told.job(3))


@pytest.mark.parametrize("trouble", [HostError("no memory"), RuntimeError("CUDA error")])
@pytest.mark.parametrize("what", ["think", "keep", "leave"])
def test_what_fails_beside_a_tick_is_not_the_end(
    start: Any, deaths: list[BaseException], what: str, trouble: Exception
) -> None:
    resident, told, failed = MadeResident(), Told(), []  # type: Any, Any, list[None]

    def fail(*arguments: Any) -> bool:
        failed.append(None)
        raise trouble

    setattr(resident, what, fail)
    thread = start(resident)
    for number in range(2):
        thread.submit(told.job(1))
        until(lambda number=number: len(told.outcomes) == number + 1 and thread.busy_s() == 0)
    thread.swap(MadeResident(2))
    until(lambda: thread.resident is not resident)
    thread.submit(told.job(1))
    until(lambda: len(told.outcomes) == 3)
    assert {outcome.code for _, outcome in told.outcomes} == {None} and thread.alive and not deaths
    until(lambda: len(failed) >= (1 if what == "leave" else 2))


def test_engines_that_can_not_be_freed_are_not_the_end(start: Any) -> None:
    def fail() -> None:
        raise InternalError("lost")

    old, new = MadeResident(1), MadeResident(2)
    old.close = fail  # type: ignore[method-assign]
    thread = start(old)
    thread.swap(new)
    until(lambda: thread.resident is new)
    assert thread.alive and METADATA["family"] == "edge"
