"""The made arm's loop against a server: chunks that overlap, and DROID's open loop."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from serve_scene import MadeResident, chunk_of, served

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "remote_arm.py"


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
        answers = [each.communicate(timeout=30)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    open_loop, overlapping = (json.loads(answer)["stream"]["counters"] for answer in answers)
    # 45 periods: 32 actions, a wait, and on
    assert open_loop["gaps"] == 1 and 2 <= open_loop["gap_ticks"] <= 10
    assert overlapping["gap_ticks"] == 0 and overlapping["chunks_used"] >= 3
    assert open_loop["source_errors"] == overlapping["source_errors"] == 0
