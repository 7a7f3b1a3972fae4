"""Processes of our own: what they say comes, and whatever ends one of the two, the other does not wait in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import child_work
import pytest
from child_work import LARGE, echo, fail, send_large, sleep

from motedge.child_process import ChildGoneError, ChildProcess

# Far beyond what ending takes, far below what a child would sleep
SOON_S = 8.0


@contextmanager
def running(target: Callable[..., None], *args: object) -> Iterator[ChildProcess]:
    """A child that is closed afterwards."""
    child = ChildProcess(target, *args, name="test")
    try:
        yield child
    finally:
        child.close()


def test_values_go_and_come() -> None:
    with running(echo, "you said") as child:
        for value in ({"a": [1.5]}, b"x" * LARGE):
            child.send(value)
            assert child.receive() == ("you said", value)
        process = child._process
        child.close(SOON_S)
        # By itself, at the end of its pipe
        assert process.exitcode == 0


def test_one_that_is_killed_in_the_middle_of_a_message_is_told() -> None:
    with running(send_large) as child:
        pid = child.receive()
        while not child.connection.poll(0.01):
            pass
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildGoneError, match="SIGKILL") as caught:
            child.receive()
        assert "memory is exhausted" in str(caught.value)
        with pytest.raises(ChildGoneError):
            child.send("anybody?")


# In the middle of a message its pipe may end first, and it with that
@pytest.mark.parametrize(("target", "ends"), [(sleep, [-signal.SIGKILL]), (send_large, [-signal.SIGKILL, 0])])
def test_closing_ends_it_at_once(target: Callable[..., None], ends: list[int]) -> None:
    child = ChildProcess(target, name="test")
    child.receive()
    process, begun = child._process, time.monotonic()
    child.close()
    assert process.exitcode in ends and time.monotonic() - begun < SOON_S


def test_what_goes_to_the_whole_group_does_not_end_it() -> None:
    with running(echo, "still") as child:
        pid = child._process.pid or 0
        # Before any code of it has run: only Ctrl-C can come that early to a group that goes on
        os.kill(pid, signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM):
            child.send("here")
            assert child.receive() == ("still", "here")
            os.kill(pid, number)
        child.send("here")
        assert child.receive() == ("still", "here")


def test_one_that_ends_by_itself_is_told() -> None:
    with running(fail) as child, pytest.raises(ChildGoneError, match="exit code 3"):
        child.receive()


def test_who_forgets_to_close_it_ends_nevertheless_and_it_too(tmp_path: Path) -> None:
    script = tmp_path / "forgets.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(child_work.__file__).parent)!r})\n"
        "from child_work import sleep\n"
        "from motedge.child_process import ChildProcess\n"
        "if __name__ == '__main__':\n"
        "    child = ChildProcess(sleep, name='forgotten')\n"
        "    child.receive()\n"
        "    print(child._process.pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
