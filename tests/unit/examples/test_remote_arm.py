"""The made arm's loop against a server: chunks that overlap, and DROID's open loop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_scene import MadeResident, chunk_of, served

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "remote_arm.py"
# As they are started, with the option that takes the address
PROGRAMS = {
    "remote_arm": ([str(EXAMPLE)], "--url"),
    "drive_remote": (["-m", "examples.drive_remote"], "--server"),
    "mujoco_arm": (["-m", "examples.mujoco_arm"], "--server"),
}
NEEDS = {"drive_remote": ("gymnasium", "Box2D", "pygame"), "mujoco_arm": ("mujoco",)}


def slow(request: Any) -> Any:
    """32 rows, after 0.2 s: 3 periods."""
    time.sleep(0.2)
    made = chunk_of(request)
    return replace(made, actions=np.repeat(made.actions[:1], 32, 0))


def test_the_open_loop_waits_and_the_overlapping_one_does_not() -> None:
    with served(MadeResident(work=slow)) as running:
        common = [sys.executable, str(EXAMPLE), "--url", running.url, "--seconds", "3"]
        both = [
            subprocess.Popen([*common, *options], stdout=subprocess.PIPE, text=True)
            for options in (["--open-loop"], ["--horizon", "20", "--lead-s", "0.8"])
        ]
        answers = [each.communicate(timeout=120)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    open_loop, overlapping = (json.loads(answer)["stream"]["counters"] for answer in answers)
    # 45 periods: 32 actions, a wait, and on
    assert open_loop["gaps"] == 1 and 2 <= open_loop["gap_ticks"] <= 10
    assert overlapping["gap_ticks"] == 0 and overlapping["chunks_used"] >= 3
    assert open_loop["source_errors"] == overlapping["source_errors"] == 0


def ended(program: str, url: str, *options: str) -> tuple[int, str]:
    """Exit code and what it said on stderr."""
    for package in NEEDS.get(program, ()):
        pytest.importorskip(package)
    words, address = PROGRAMS[program]
    command = [sys.executable, *words, address, url, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_server_that_is_not_there_is_told_while_it_is_waited_for(program: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{bound.getsockname()[1]}"
        code, told = ended(program, url, "--connect-timeout-s", "3.5")
    assert code == 3 and f"{program}: waiting for {url}: connection refused; up to 2 s\n" in told
    assert told.count("waiting for") == 1 and f"no policy server at {url}" in told


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_token_that_is_missing_or_wrong_is_told(program: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("another-one-of-some-length")
    with served(token="a-secret-of-some-length") as running:
        code, told = ended(program, running.url)
        assert code == 3 and "asks for a token, and none was given" in told and "--token-file FILE" in told
        code, told = ended(program, running.url, "--token-file", str(token))
        assert code == 3 and "refuses the token that was given" in told
    token.write_text("")
    code, told = ended(program, running.url, "--token-file", str(token))
    assert code == 2 and f"the token file {token} is empty" in told


def started(url: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLE), "--url", url, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_interrupt_while_it_waits_for_a_server() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with started(f"ws://127.0.0.1:{nobody.getsockname()[1]}") as running:
            assert running.stderr is not None and "waiting for" in running.stderr.readline()
            running.send_signal(signal.SIGINT)
            out, told = running.communicate(timeout=120)
    assert running.returncode == 130 and out == told == ""


def test_an_interrupt_while_it_drives_leaves_the_report() -> None:
    resident = MadeResident(work=slow)
    with served(resident) as running, started(running.url, "--seconds", "60") as arm:
        end_s = time.monotonic() + 30
        # The second is asked for while the first is driven
        while len(resident.requests) < 2 and time.monotonic() < end_s:
            time.sleep(0.02)
        arm.send_signal(signal.SIGINT)
        out, told = arm.communicate(timeout=120)
    assert arm.returncode == 0 and "Traceback" not in told
    assert json.loads(out)["stream"]["counters"]["chunks_used"] >= 1
