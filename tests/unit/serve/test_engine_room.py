"""Whose the engines are where a load is not waited for any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest
from serve_scene import MadeResident, until

from motedge.serve.engine_room import EngineRoom
from motedge.serve.metrics import ServeMetrics
from motedge.serve.options import ServeOptions


def ended(error: BaseException) -> None:
    raise AssertionError(error)


@pytest.mark.parametrize("taken", [True, False], ids=["after", "before"])
def test_engines_of_a_reload_that_is_given_up_are_closed_once(taken: bool) -> None:
    """Given up after they were taken over, or before."""
    go, residents = threading.Event(), [MadeResident(1), MadeResident(2)]

    def load(number: int) -> MadeResident:
        if number == 2:
            go.wait(10)
        return residents[number - 1]

    async def scene() -> None:
        room = EngineRoom(load, ServeOptions(), ServeMetrics(), ended)
        await room.first_load()
        gpu = room.gpu
        assert gpu is not None
        reload = asyncio.ensure_future(room.reload())
        await asyncio.sleep(0.01)
        if not taken:
            room.drain()
        go.set()
        # The loop does nothing meanwhile, so that it hears of the load after it gave up
        until(lambda: gpu.resident is residents[1] if taken else residents[1].closed > 0)
        time.sleep(0.02)
        reload.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reload
        await asyncio.sleep(0.05)
        assert residents[1].closed == (0 if taken else 1)
        room.close()

    asyncio.run(scene())
    assert [made.closed for made in residents] == [1, 1]


def test_engines_of_a_first_load_that_is_given_up_are_closed() -> None:
    go, made = threading.Event(), MadeResident(1)

    async def scene() -> None:
        room = EngineRoom(lambda number: (go.wait(10), made)[1], ServeOptions(), ServeMetrics(), ended)
        load = asyncio.ensure_future(room.first_load())
        await asyncio.sleep(0.01)
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await load
        go.set()
        await asyncio.sleep(0.05)

    asyncio.run(scene())
    until(lambda: made.closed == 1)
