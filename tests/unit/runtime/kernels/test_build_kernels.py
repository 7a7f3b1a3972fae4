"""The kernels compile for every device with warnings as errors; what the build says when it can't."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
from kernel_twins import KERNELS

from motedge.errors import HostError
from motedge.runtime.kernels.record import FATBIN_NAME, RECORD_NAME, KernelRecord, source_hash

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = ROOT / "scripts" / "build_kernels.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_kernels", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = script()


def nvcc() -> str:
    try:
        return str(BUILD.find_nvcc(None))
    except HostError:
        pytest.skip("no nvcc")


def build(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


def test_every_architecture_compiles_without_a_warning() -> None:
    version = subprocess.run([nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256((source_hash(ROOT / "kernels") + version).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"motedge-kernels-{digest}"
    if not (folder / RECORD_NAME).is_file():
        done = build("--output", folder)
        assert done.returncode == 0, done.stderr
    record = KernelRecord.read(folder / RECORD_NAME)
    assert record.source_sha256 == source_hash(ROOT / "kernels")
    assert (folder / FATBIN_NAME).stat().st_size > 10_000
    if record.toolkit.startswith("13."):
        assert record.sm == BUILD.SM and record.ptx == 120


def test_the_module_has_every_kernel_that_is_launched(tmp_path: Path) -> None:
    cubin = tmp_path / "kernels.cubin"
    source = str(ROOT / "kernels" / "motedge_kernels.cu")
    subprocess.run([nvcc(), "-cubin", "-std=c++17", "-arch=sm_90", "-o", str(cubin), source], check=True)
    image = cubin.read_bytes()
    for name in KERNELS:
        assert f".text.{name}\0".encode() in image


def fake_nvcc(folder: Path, body: str) -> str:
    path = folder / "nvcc"
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--version*) echo "release 12.6, V12.6"; exit;; esac\n'
        'case "$*" in *--list-gpu-code*) printf "sm_80\\nsm_87\\n"; exit;; esac\n'
        f"{body}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_an_older_compiler_leaves_out_what_it_does_not_know(tmp_path: Path) -> None:
    compiler = fake_nvcc(tmp_path, 'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo image > "$2"; shift; done')
    done = build("--nvcc", compiler, "--output", tmp_path / "out")
    assert done.returncode == 0 and "sm_110 sm_120: left out" in done.stderr
    record = KernelRecord.read(tmp_path / "out" / RECORD_NAME)
    assert (record.sm, record.ptx, record.toolkit) == ((80, 87), 87, "12.6")
    done = build("--nvcc", compiler, "--sm", 87, 110, "--output", tmp_path / "other")
    assert done.returncode == 2 and "[110]" in done.stderr and not (tmp_path / "other").exists()


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    compiler = fake_nvcc(tmp_path, 'echo "solver.cu(1): error: what is this" >&2; exit 2')
    done = build("--nvcc", compiler, "--output", tmp_path / "out")
    assert done.returncode == 3 and "what is this" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_without_a_compiler_the_message_says_what_to_do(tmp_path: Path) -> None:
    done = build("--nvcc", tmp_path / "nothing", "--output", tmp_path / "out")
    assert done.returncode == 3 and "there is no nvcc" in done.stderr and "fix:" in done.stderr


@pytest.mark.slow
def test_cmake_compiles_and_tests(tmp_path: Path) -> None:
    nvcc()
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(tmp_path),
        "-DMOTEDGE_SM=90",
        f"-DPython3_EXECUTABLE={sys.executable}",
    ]
    for command in (configure, ["cmake", "--build", str(tmp_path)], ["ctest", "--test-dir", str(tmp_path)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert KernelRecord.read(tmp_path / RECORD_NAME).sm == (90,)
