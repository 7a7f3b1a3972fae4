"""A lock in the order of asking: one that takes it again and again keeps nobody else waiting."""

from __future__ import annotations

import threading
import time

import pytest

from motedge.runtime.fair_lock import FairLock


def test_who_asked_first_is_first() -> None:
    lock, order = FairLock(), list[int]()
    threads = []

    def work(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        for number in range(5):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            while len(lock._waiting) < number + 2:
                time.sleep(1e-4)
    for thread in threads:
        thread.join()
    assert order == list(range(5))


def test_who_has_it_may_take_it_again() -> None:
    lock, entered = FairLock(), threading.Event()
    with lock:
        with lock:
            pass
        other = threading.Thread(target=lambda: [entered.set() for _ in [lock.__enter__()]] and lock.__exit__())
        other.start()
        while len(lock._waiting) < 2:
            time.sleep(1e-4)
        # Still the first one's, who took it twice and gave it back once
        assert not entered.is_set()
    other.join()
    assert entered.is_set()


def test_an_error_inside_gives_it_back() -> None:
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with lock:
        pass
