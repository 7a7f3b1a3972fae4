"""The runtime's engines on a real TensorRT and GPU. Skipped without either.

Where there is no pytest, as in the kit with TensorRT 8.6 for Python 3.9, the program is run by itself:

    PYTHONPATH=.:tests/support:$PYTHONPATH $PY39 tests/support/trt_engine_on_gpu.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motedge.errors import HostError
from motedge.runtime.cuda.choose import has_bindings, pycuda_problem
from motedge.runtime.cuda.driver import load_driver

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.trt
@pytest.mark.gpu
@pytest.mark.device
@pytest.mark.parametrize("provider", ["cuda-bindings", "pycuda"])
def test_engines_run(provider: str) -> None:
    pytest.importorskip("tensorrt")
    if not has_bindings():
        pytest.skip("cuda-bindings is not installed")
    problem = pycuda_problem() if provider == "pycuda" else None
    if problem is not None:
        pytest.skip(problem)
    try:
        load_driver()
    except HostError as error:
        pytest.skip(str(error))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/support"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "tests/support/trt_engine_on_gpu.py"), provider]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    entries = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = [entry for entry in entries if not entry.get("passed", True)]
    assert not failed, failed
    assert done.returncode == 0, done.stdout + done.stderr
