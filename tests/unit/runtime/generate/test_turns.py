"""Who waits for whom: requests and chunks on the host and on a GPU, in one thread or many."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from motedge.errors import UsageError
from motedge.runtime.generate.turns import DeviceTurns, HostTurns, Turns
from motedge.runtime.one_thread import OneThread


def _in_thread() -> DeviceTurns:
    return DeviceTurns(OneThread("test", "the test"))


KINDS: dict[str, Callable[[], Turns]] = {"host": HostTurns, "gpu": DeviceTurns, "one thread": _in_thread}


@pytest.fixture(params=KINDS)
def turns(request: pytest.FixtureRequest) -> Iterator[Turns]:
    made = KINDS[request.param]()
    yield made
    made.close(lambda: None)


def test_requests_wait_for_one_another(turns: Turns) -> None:
    busy, most = [0], [0]

    def work() -> None:
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        time.sleep(0.002)
        busy[0] -= 1

    threads = [threading.Thread(target=lambda: turns.request(work)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_request_may_ask_for_chunks(turns: Turns) -> None:
    assert turns.request(lambda: turns.chunk(lambda: 5)) == 5


def test_what_goes_wrong_comes_through_and_the_next_one_works(turns: Turns) -> None:
    def broken() -> None:
        raise UsageError("broken")

    for call in (turns.request, turns.chunk):
        with pytest.raises(UsageError, match="broken"):
            call(broken)
    assert turns.request(lambda: 1) == turns.chunk(lambda: 1) == 1


@pytest.mark.parametrize("kind", ["gpu", "one thread"])
def test_a_request_refuses_another_from_within(kind: str) -> None:
    turns = KINDS[kind]()

    def inside() -> None:
        for call in (turns.request, turns.close):
            with pytest.raises(UsageError, match="own watch"):
                call(lambda: None)

    turns.request(inside)
    assert turns.request(lambda: 2) == 2
    turns.close(lambda: None)


def test_all_of_it_in_one_thread_which_ends() -> None:
    turns, seen = _in_thread(), set()
    for call in (turns.request, turns.chunk, turns.request):
        call(lambda: seen.add(threading.get_ident()))
    turns.close(lambda: seen.add(threading.get_ident()))
    turns.close(lambda: seen.add(0))
    assert len(seen) == 1 and threading.get_ident() not in seen
    with pytest.raises(UsageError, match="the test was closed"):
        turns.chunk(lambda: None)


def test_an_interrupted_caller_is_noticed_in_the_thread() -> None:
    turns, noticed, caller = _in_thread(), threading.Event(), threading.get_ident()

    def work() -> None:
        # As a terminal does it: to the thread that waits
        signal.pthread_kill(caller, signal.SIGINT)
        for _ in range(500):
            if turns.given_up:
                noticed.set()
                return
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        turns.request(work)
    turns.close(lambda: None)
    assert noticed.is_set()


def test_a_wait_that_ran_out_inside_the_work_comes_through() -> None:
    turns = _in_thread()

    def work() -> None:
        raise TimeoutError("the device did not answer")

    with pytest.raises(TimeoutError, match="did not answer"):
        turns.request(work)
    turns.close(lambda: None)
