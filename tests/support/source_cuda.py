"""The kernels' own source run on the CPU, block by block: what the GPU will compute, without one. Needs g++."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from host_cuda import HostCuda
from kernel_twins import KERNELS

from motedge.runtime.kernels.record import source_hash

_HERE = Path(__file__).resolve().parent / "cuda_on_cpu"
_KERNELS = _HERE.parents[2] / "kernels"
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-unknown-pragmas")
# A misaligned or overflowing access ends the process at once
_STRICT = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
_PROBLEMS = {1: "it wrote beyond its shared memory", 2: "it takes another number of arguments"}


class SourceCuda(HostCuda):
    """A HostCuda whose kernels are those of kernels/*.cu, compiled for the CPU."""

    def __init__(self, **options: Any) -> None:
        super().__init__(kernels={name: functools.partial(self._run, name) for name in KERNELS}, **options)
        self._library = compiled()
        self._shared_bytes = 0

    def launch(
        self, kernel: Any, grid: Any, block: Any, arguments: Sequence[Any], stream: Any, shared_bytes: int = 0
    ) -> None:
        self._shared_bytes = shared_bytes
        super().launch(kernel, grid, block, arguments, stream, shared_bytes)

    def _run(self, name: str, cuda: Any, grid: Any, block: Any, *arguments: Any) -> None:
        held = [np.array(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        sizes = [(ctypes.c_int * 3)(*size) for size in (grid, block)]
        result = getattr(self._library, f"run_{name}")(addresses, len(held), *sizes, self._shared_bytes)
        assert result == 0, f"{name}: {_PROBLEMS[result]}"


def missing() -> str:
    """Why the source can't be compiled here; empty where it can."""
    return "" if shutil.which("g++") else "no g++"


@functools.lru_cache(maxsize=1)
def compiled() -> ctypes.CDLL:
    """The kernels as a library of the host, kept by content between runs of the tests."""
    content = source_hash(_KERNELS) + "".join(path.read_text() for path in sorted(_HERE.iterdir()))
    digest = hashlib.sha256((content + " ".join(_FLAGS + _STRICT)).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"motedge-kernels-on-cpu-{digest}.so"
    if not path.is_file():
        partial = path.with_suffix(f".{hashlib.sha256(str(id(path)).encode()).hexdigest()[:8]}")
        command = ["g++", *_FLAGS, *_STRICT, "-include", str(_HERE / "cuda_words.h"), "-o", str(partial)]
        done = subprocess.run([*command, str(_HERE / "run_kernels.cpp")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        partial.replace(path)
    return ctypes.CDLL(str(path))
