"""What lies beside the compiled kernels: which source they come from, and which GPUs they have code for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from motedge.errors import HostError

SCHEMA = "motedge.kernels/v1"
# MOTEDGE_KERNEL_INTERFACE of kernels/interface.h: argument lists and tables as this side writes them
INTERFACE = 1
FATBIN_NAME, RECORD_NAME = "motedge_kernels.fatbin", "motedge_kernels.json"
_SOURCE_SUFFIXES = (".cu", ".cuh", ".h")


@dataclass(frozen=True)
class KernelRecord:
    """One build of the kernels."""

    # Of the fatbin
    sha256: str
    # `source_hash` of the folder that it was compiled from
    source_sha256: str
    interface: int
    # CUDA version of nvcc, "13.0": a driver of an older major version does not load its code
    toolkit: str
    # Compute capabilities with machine code, 10 major + minor
    sm: tuple[int, ...]
    # The one whose PTX is in it, for newer GPUs
    ptx: int

    def write(self, path: Path) -> None:
        """Writes the JSON form."""
        path.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> KernelRecord:
        """From the JSON form.

        Raises:
            HostError: no such file, or not a record of this schema.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields.pop("schema") != SCHEMA:
                raise ValueError(f"not of schema {SCHEMA}")
            return cls(**{**fields, "sm": tuple(int(sm) for sm in fields["sm"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise HostError(
                "the record of the compiled kernels can't be read", got=repr(error), fix="compile them again"
            ) from error

    def refusal(self, compute_capability: str, driver_cuda: tuple[int, int]) -> Optional[str]:
        """Why a GPU, "9.0", with a driver for that CUDA can't run this build; None where it can."""
        if int(self.toolkit.partition(".")[0]) > driver_cuda[0]:
            return f"compiled with CUDA {self.toolkit}, the driver takes CUDA {driver_cuda[0]}.{driver_cuda[1]}"
        major, _, minor = compute_capability.partition(".")
        # Machine code runs on its own compute capability and on later minor versions of it
        if any(sm // 10 == int(major) and sm % 10 <= int(minor) for sm in self.sm):
            return None
        newer = self.ptx <= 10 * int(major) + int(minor)
        toolkit = tuple(int(part) for part in self.toolkit.split(".")[:2])
        if newer and toolkit <= driver_cuda:
            return None
        held = ", ".join(f"{sm // 10}.{sm % 10}" for sm in self.sm)
        return f"no code for compute capability {compute_capability}, only for {held}"


def source_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the kernels' source files."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _SOURCE_SUFFIXES):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()
