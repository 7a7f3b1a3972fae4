"""The example and the page as a user would run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from motedge.client.envelope_limits import parse_envelope

ROOT = Path(__file__).resolve().parents[3]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples/chunk_stream.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_fast_policy_leaves_no_gap() -> None:
    done = _run("--latency-ms", "20")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    counters = report["stream"]["counters"]
    assert (counters["gap_ticks"], counters["chunks_late"], counters["missed_ticks"]) == (0, 0, 0)
    # The made jumps of 0.4 rad reach the envelope, and no joint is ever faster than 2.61 rad/s
    assert report["envelope"]["clamped"] > 0
    assert report["fastest_joint_rad_s"] <= 2.61
    assert 0 < report["stream"]["jitter_ms"]["max"] < 3


def test_a_slow_policy_shows_in_the_report() -> None:
    done = _run("--latency-ms", "900", "--seconds", "60")
    assert done.returncode == 0, done.stderr
    counters = json.loads(done.stdout)["stream"]["counters"]
    assert counters["gap_ticks"] > 0
    assert counters["chunks_late"] > 0
    assert counters["rows_overrun"] > 0


@pytest.mark.parametrize("arguments", [("--latency-ms", "-1"), ("--seconds", "nan")])
def test_bad_arguments(arguments: tuple[str, str]) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert "must be finite" in done.stderr


def test_the_pages_blocks_run() -> None:
    page = (ROOT / "docs/client.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    # The second needs a server: tests/integration/test_serve_protocol.py
    assert len(programs) == 2
    done = subprocess.run([sys.executable, "-c", programs[0]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "passed=5" in done.stdout
    (limits,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert parse_envelope(limits, "docs/client.md").names == ("joint_position_0",)
