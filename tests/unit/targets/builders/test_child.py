"""A build in a process of its own: results, errors, death, interruption."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from builder_graphs import make_request

from motedge.errors import HostError, InternalError
from motedge.targets.builders.builder import BuildError, BuildRequest
from motedge.targets.builders.child import build_in_child

BUILT = '{"device_memory_bytes": 7, "layers": {}, "raised_precision": [], "version_compatible": false, '
BUILT += '"refittable": true, "weights_stripped": false, "data_files": [], "notes": ["n"]}'
LEAVE_HALF = "import json,sys,pathlib; r = json.load(open(sys.argv[1]))['request']; "
LEAVE_HALF += "pathlib.Path(r['out'] + '.partial').write_text('half'); "


def _program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_result_progress_and_peak_memory(tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    code = f"""
import time
x = b"x" * 60_000_000
print('a library that prints'); print('{{"phase": "timing", "share": 0.5}}', flush=True); time.sleep(0.3); del x
print('{{"built": {BUILT}, "resident": 150000000}}', flush=True)
"""
    request = make_request(tmp_path)
    built, peak, seconds = build_in_child("x", request, lambda *s: steps.append(s), program=_program(code))
    assert built.device_memory_bytes == 7
    assert built.notes == ("n",)
    assert steps == [("timing", 0.5)]
    # Resident as the child says itself, its own memory as looked at from here
    assert peak.resident == 150_000_000
    assert 60_000_000 < (peak.anonymous or 0) < 90_000_000
    assert 0.3 < seconds < 30


@pytest.mark.parametrize(("kind", "expected"), [("BuildError", BuildError), ("HostError", HostError)])
def test_errors_come_back_as_they_were(tmp_path: Path, kind: str, expected: type[Exception]) -> None:
    fields = '"what": "w", "expected": null, "got": "g", "why": null, "fix": "f"'
    code = f'print(\'{{"error": {{"kind": "{kind}", {fields}}}}}\'); raise SystemExit(3)'
    with pytest.raises(expected, match="w\n  got:      g\n  fix:      f"):
        build_in_child("x", make_request(tmp_path), lambda *s: None, program=_program(code))


def test_a_bug_stays_a_bug(tmp_path: Path) -> None:
    code = 'print(\'{"error": {"kind": "ZeroDivisionError", "what": "w"}}\')'
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        build_in_child("x", make_request(tmp_path), lambda *s: None, program=_program(code))


@pytest.mark.parametrize(
    ("name", "says"), [("SIGKILL", "was ended by the system"), ("SIGSEGV", "inside the engine library")]
)
def test_a_killed_build_leaves_nothing(tmp_path: Path, name: str, says: str) -> None:
    code = LEAVE_HALF + f"import os, signal; os.kill(os.getpid(), signal.{name})"
    with pytest.raises(HostError, match=says) as caught:
        build_in_child("x", make_request(tmp_path), lambda *s: None, program=_program(code))
    assert "gen_step" in str(caught.value)
    assert "highest memory was" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gen_step.onnx"]


def test_an_interrupted_job_ends_its_child(tmp_path: Path) -> None:
    # A shell starts what runs in its background with SIGINT ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupt_a_job(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_a_job(tmp_path: Path) -> None:
    code = LEAVE_HALF + (
        "import os, time; print(json.dumps({'phase': str(os.getpid()), 'share': 0}), flush=True); time.sleep(60)"
    )
    started: list[int] = []

    def interrupt(phase: str, share: float) -> None:
        started.append(int(phase))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        build_in_child("x", make_request(tmp_path), interrupt, program=_program(code))
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gen_step.onnx"]


def test_requests_survive_the_way_to_the_child(tmp_path: Path) -> None:
    request = make_request(tmp_path, {"layers.0.up_proj": ("fp16", "int4")})
    assert BuildRequest.from_dict(request.to_dict()) == request


def test_the_real_child_reports_an_unknown_builder(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="unknown builder 'tensor-rt'") as caught:
        build_in_child("tensor-rt", make_request(tmp_path), lambda *s: None)
    assert "tensorrt" in caught.value.fix
