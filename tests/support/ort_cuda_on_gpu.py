"""onnxruntime with the CUDA provider on a real GPU, through motedge's engines: one line of JSON a check.

Python 3.9 or later with numpy, onnxruntime-gpu and cuda-bindings or pycuda; neither onnx nor pytest. Each check is a
process of its own, since a failed capture can end a process. From the repository's root, with the libraries of CUDA on
LD_LIBRARY_PATH or in NVIDIA's wheels:

    PYTHONPATH=.:tests/support python3 tests/support/ort_cuda_on_gpu.py BUNDLE [--out FILE] [--only CHECK ...]

BUNDLE holds primitive-fp32 and what else is to be tried; `ort_cuda_bundle.py OUT` writes a tiny one. `--simulate` tries
the program itself out, on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ort_cuda_checks import CHECKS, Finding
from ort_cuda_scene import Scene

from motedge.errors import MotedgeError

TIMEOUT_S = 150


def _run_one(name: str, root: str, simulate: bool) -> int:
    """One check in this process; 1 if a finding did not pass."""
    scene, passed = Scene(root, simulate), True
    try:
        with scene.cuda.current():
            for finding in CHECKS[name](scene):
                passed = passed and finding["passed"]
                _print(finding)
    except MotedgeError as error:
        _print({"check": name, "passed": False, "said": f"{type(error).__name__}: {error}"})
        return 1
    scene.close()
    return 0 if passed else 1


def _run_all(names: list[str], args: argparse.Namespace) -> list[Finding]:
    """Each check in a process of its own; one that dies is a finding too."""
    found: list[Finding] = []
    for name in names:
        command = [sys.executable, __file__, args.bundle, "--check", name, *(["--simulate"] if args.simulate else [])]
        environment = dict(os.environ)
        if name == "missing_library":
            environment.pop("LD_LIBRARY_PATH", None)
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False
            )
            out, code, tail = done.stdout, done.returncode, done.stderr[-600:]
        except subprocess.TimeoutExpired as late:
            out, code, tail = (late.stdout or b"").decode(), -1, f"not done after {TIMEOUT_S} s"
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        if code not in (0, 1) or (code == 1 and all(line["passed"] for line in lines)):
            lines.append({"check": f"{name}: the process died", "passed": False, "code": code, "stderr": tail})
        for line in lines:
            _print(line)
        _print({"check": f"{name}: done", "passed": True, "seconds": round(time.perf_counter() - start, 1)})
        found += lines
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs the checks; 0 when each passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--only", nargs="+", choices=tuple(CHECKS), default=list(CHECKS))
    parser.add_argument("--out", help="write all findings there, as JSON")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--check", choices=tuple(CHECKS), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.check:
        return _run_one(args.check, args.bundle, args.simulate)
    found = _run_all(args.only, args)
    if args.out:
        Path(args.out).write_text(json.dumps({"findings": found}, indent=1), encoding="utf-8")
    return 0 if found and all(entry["passed"] for entry in found) else 1


def _print(finding: Finding) -> None:
    sys.stdout.write(json.dumps(finding) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
