"""The CUDA layer on a real GPU, through each provider that is installed. Skipped without a GPU.

Where there is no pytest, as in the kit for Python 3.9, the program is run by itself:

    PYTHONPATH=.:tests/support:$PYTHONPATH $PY39 tests/support/cuda_on_gpu.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from motedge.errors import HostError
from motedge.runtime.cuda.choose import has_bindings, pycuda_problem
from motedge.runtime.cuda.driver import load_driver

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.gpu
@pytest.mark.device
@pytest.mark.parametrize("provider", ["cuda-bindings", "pycuda"])
def test_every_promise(provider: str) -> None:
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
    command = [sys.executable, str(ROOT / "tests/support/cuda_on_gpu.py"), provider]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
