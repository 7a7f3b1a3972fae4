"""Real cuda-bindings over a libcuda whose GPU is the host: what the GPU program checks, and that nothing is left.

In processes of their own, for libcuda is found once a process. Skipped without cuda-bindings or a C compiler.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motedge.runtime.cuda.choose import has_bindings

ROOT = Path(__file__).resolve().parents[4]
SUPPORT = ROOT / "tests/support"
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.skipif(not has_bindings(), reason="cuda-bindings is not installed"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="libcuda.so.1 is Linux's"),
]
# What a program below starts with; `left` is what the driver still holds
PRELUDE = """
import ctypes, gc, json
import numpy as np
from cuda_kernels_ptx import PTX
from motedge.errors import MotedgeError
from motedge.runtime.cuda.choose import open_cuda
fake = ctypes.CDLL("libcuda.so.1")
fake.fake_live.restype = ctypes.c_long
KINDS = ("memory", "pinned", "stream", "event", "module", "graph", "exec", "retained", "depth")
def left():
    return {kind: fake.fake_live(kind.encode()) for kind in KINDS if fake.fake_live(kind.encode())}
def fill(cuda):
    with cuda.current():
        stream, block = cuda.stream("high"), cuda.allocate(4000, "block")
        host, event = cuda.pinned((1000,), np.float32), cuda.event()
        kernel = cuda.kernel(PTX, "add_value")
        graph = cuda.capture(stream, lambda: cuda.copy(block.pointer, host.ctypes.data, 4000, stream))
    return stream, block, event, kernel, graph
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libcuda")
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(SUPPORT / "fake_libcuda.c"), "-ldl"], check=True)
    return folder


@pytest.fixture
def run(library: Path) -> Run:
    def run_it(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), str(SUPPORT)])
        given = {**os.environ, "LD_LIBRARY_PATH": str(library), "PYTHONPATH": path, "MOTEDGE_CUDA_PROVIDER": ""}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env={**given, **environment}, capture_output=True, text=True, check=False, timeout=120
        )

    return run_it


def _said(run: Run, code: str, **environment: str) -> str:
    done = run("-c", PRELUDE + code, MOTEDGE_CUDA_PROVIDER="cuda-bindings", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_every_check_of_the_gpu_program(run: Run) -> None:
    done = run(str(SUPPORT / "cuda_on_gpu.py"), "cuda-bindings")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry for entry in entries if not entry["passed"]] == []
    assert done.returncode == 0, done.stderr
    assert len(entries) > 15


def test_close_leaves_nothing(run: Run) -> None:
    code = """
cuda = open_cuda()
things = fill(cuda)
before = left()
cuda.close()
print(json.dumps([before, left(), cuda.ledger]))
"""
    before, after, ledger = json.loads(_said(run, code))
    assert before == {"memory": 1, "pinned": 1, "stream": 1, "event": 1, "module": 1, "exec": 1, "retained": 1}
    assert after == ledger == {}


def test_whoever_holds_a_part_holds_the_whole(run: Run) -> None:
    code = """
stream, block, event, kernel, graph = fill(open_cuda())
gc.collect()
held = left()
del stream, event, kernel, graph
gc.collect()
assert left() == held
del block
gc.collect()
print(json.dumps([len(held), left()]))
"""
    assert json.loads(_said(run, code)) == [7, {}]


def test_free_works_anywhere_and_once(run: Run) -> None:
    code = """
import threading
cuda = open_cuda()
stream, block, *_ = fill(cuda)
thread = threading.Thread(target=block.free)
thread.start(); thread.join()
block.free()
assert "block" not in cuda.ledger
assert left().get("memory") is None and left().get("depth") is None
print("ok")
"""
    assert _said(run, code) == "ok"


def test_errors_inside_current_leave_the_stack_as_it_was(run: Run) -> None:
    code = """
cuda = open_cuda()
for error in (ZeroDivisionError, KeyboardInterrupt):
    try:
        with cuda.current(), cuda.current():
            assert left()["depth"] == 2
            raise error
    except error:
        assert left().get("depth") is None
print("ok")
"""
    assert _said(run, code) == "ok"


FAILS = """
try:
    open_cuda()
except MotedgeError as error:
    print(error)
print(left())
"""


def test_no_gpu(run: Run) -> None:
    said = _said(run, FAILS, FAKE_CUDA_DEVICES="0")
    assert "CUDA_ERROR_NO_DEVICE" in said
    assert "CUDA_VISIBLE_DEVICES" in said
    assert said.endswith("{}")


def test_gpu_of_another_number(run: Run) -> None:
    said = _said(run, FAILS.replace("open_cuda()", "open_cuda(2)"))
    assert "there is no GPU 2" in said
    assert said.endswith("{}")


def test_driver_too_old(run: Run) -> None:
    said = _said(run, FAILS, FAKE_CUDA_DRIVER="11040")
    assert "too old" in said
    assert "11.4" in said
    assert said.endswith("{}")


def test_no_driver(run: Run, tmp_path: Path) -> None:
    code = FAILS.replace("print(left())", "")
    prelude = "from motedge.errors import MotedgeError\nfrom motedge.runtime.cuda.choose import open_cuda\n"
    done = run("-c", prelude + code, LD_LIBRARY_PATH=str(tmp_path))
    if "no NVIDIA driver" not in done.stdout:
        pytest.skip("this machine has a driver")
    assert done.returncode == 0, done.stderr
    assert "--gpus all" in done.stdout


def test_memory_that_another_process_holds(run: Run) -> None:
    code = """
cuda = open_cuda()
with cuda.current():
    other = ctypes.c_ulonglong()
    assert fake.cuMemAlloc_v2(ctypes.byref(other), ctypes.c_size_t(900_000)) == 0
    held = cuda.allocate(50_000, "weights")
    try:
        cuda.allocate(100_000, "workspace")
    except MotedgeError as error:
        print(error)
    held.free()
    cuda.allocate(100_000, "workspace").free()
print(cuda.ledger)
"""
    said = _said(run, code, FAKE_CUDA_MEMORY="1000000")
    assert "the GPU has no room for workspace" in said
    assert "100,000 bytes in one block" in said
    assert "50,000 of 1,000,000 bytes free" in said
    assert "weights 50,000" in said
    assert said.endswith("{}")


def test_a_lost_context_is_closed_without_a_word(run: Run) -> None:
    code = """
from motedge.runtime.cuda.recover import reset_context
cuda = open_cuda()
stream, block, event, kernel, graph = fill(cuda)
with cuda.current():
    try:
        cuda.launch(cuda.kernel(PTX, "write_null"), 1, 1, [np.uint64(0)], stream)
        stream.synchronize()
    except MotedgeError as error:
        print(type(error).__name__)
    block.free()
    graph.close()
cuda.close()
reset_context(0)
again = open_cuda()
fill(again)
again.close()
print(left(), cuda.ledger)
"""
    assert _said(run, code).split("\n") == ["StickyCudaError", "{} {}"]
