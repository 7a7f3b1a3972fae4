"""Compiles kernels/*.cu into one fatbin, with a record of what it was made of beside it.

    python scripts/build_kernels.py                  into the package, where motedge finds it
    python scripts/build_kernels.py --sm 87          for one device alone, quicker
    python scripts/build_kernels.py --output FOLDER  elsewhere; MOTEDGE_KERNELS=FOLDER/motedge_kernels.fatbin

Needs nvcc, no GPU. Architectures that this nvcc does not know are left out and named: CUDA 12.6 has no 110.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[1]
# The package lies beside this script; it need not be installed
if importlib.util.find_spec("motedge") is None:
    sys.path.insert(0, str(ROOT))

from motedge.errors import HostError, MotedgeError, UsageError  # noqa: E402
from motedge.files import atomic_path  # noqa: E402
from motedge.runtime.kernels.library import package_fatbin  # noqa: E402
from motedge.runtime.kernels.record import FATBIN_NAME, INTERFACE, RECORD_NAME, KernelRecord, source_hash  # noqa: E402

LOG = logging.getLogger("build_kernels")
SOURCES = ROOT / "kernels"
# A100; Orin; Ada; H100 and H200; Thor; RTX 50 and RTX PRO (NVIDIA, CUDA GPU compute capability)
SM = (80, 87, 89, 90, 110, 120)
FLAGS = ("-fatbin", "-std=c++17", "-O3", "-Werror", "all-warnings")


def main() -> int:
    """Compiles; the exit codes are those of motedge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", help="the compiler; by default NVCC, CUDACXX, the PATH, CUDA_HOME, /usr/local/cuda")
    parser.add_argument("--sm", type=int, nargs="+", help=f"10 major + minor; by default {' '.join(map(str, SM))}")
    parser.add_argument("--output", type=Path, default=package_fatbin().parent, help="folder; by default the package's")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="[kernels] %(message)s")
    try:
        record = build(find_nvcc(args.nvcc), args.sm, args.output)
    except MotedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    LOG.info("%s for %s", args.output / FATBIN_NAME, " ".join(f"sm_{sm}" for sm in record.sm))
    return 0


def build(nvcc: str, asked: Optional[Sequence[int]], output: Path) -> KernelRecord:
    """Compiles for the architectures that were asked for, or for all that nvcc knows of SM.

    Raises:
        HostError: nvcc fails.
        UsageError: nvcc does not know an architecture that was asked for.
    """
    toolkit = _toolkit(nvcc)
    known = {int(name) for name in re.findall(r"^sm_(\d+)$", _run([nvcc, "--list-gpu-code"]), re.MULTILINE)}
    unknown = [sm for sm in asked or SM if sm not in known]
    if unknown and asked:
        raise UsageError(f"nvcc {toolkit} does not compile for {unknown}", expected=f"some of {sorted(known)}")
    if unknown:
        LOG.warning("nvcc %s does not know %s: left out", toolkit, " ".join(f"sm_{sm}" for sm in unknown))
    chosen = tuple(sorted(sm for sm in asked or SM if sm in known))
    declared = re.search(r"MOTEDGE_KERNEL_INTERFACE (\d+)", (SOURCES / "interface.h").read_text(encoding="utf-8"))
    if declared is None or int(declared[1]) != INTERFACE:
        raise HostError(
            "kernels/interface.h and record.py do not agree", got=declared and declared[1], expected=INTERFACE
        )
    targets = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in chosen]
    targets.append(f"-gencode=arch=compute_{chosen[-1]},code=compute_{chosen[-1]}")
    with atomic_path(output / FATBIN_NAME) as partial:
        before = source_hash(SOURCES)
        _run([nvcc, *FLAGS, *targets, "-o", str(partial), str(SOURCES / "motedge_kernels.cu")])
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
        record = KernelRecord(digest, before, INTERFACE, toolkit, chosen, chosen[-1])
        # A reader between the two renames finds another hash than recorded, and does without
        with atomic_path(output / RECORD_NAME) as partial_record:
            record.write(partial_record)
    return record


def find_nvcc(asked: Optional[str]) -> str:
    """Path of nvcc.

    Raises:
        HostError: there is none.
    """
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    candidates = [asked] if asked else [os.environ.get("NVCC"), os.environ.get("CUDACXX"), "nvcc", f"{home}/bin/nvcc"]
    for candidate in candidates:
        found = shutil.which(candidate) if candidate else None
        if found:
            return found
    raise HostError(
        "there is no nvcc",
        expected="CUDA's compiler, 12.0 or newer",
        got=", ".join(filter(None, candidates)),
        fix="install the CUDA toolkit (on a Jetson: apt install cuda-nvcc-*), or name it: --nvcc PATH",
        why="the kernels are compiled on your machine; motedge also runs without them",
    )


def _toolkit(nvcc: str) -> str:
    text = _run([nvcc, "--version"])
    release = re.search(r"release (\d+\.\d+)", text)
    if release is None:
        raise HostError("nvcc does not say its version", got=text.strip().splitlines()[-1:])
    return release[1]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError(f"{command[0]} can't be run", got=error) from error
    if done.returncode != 0:
        raise HostError(
            f"{command[0]} failed", got=f"exit code {done.returncode}\n{done.stderr or done.stdout}".strip()
        )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
