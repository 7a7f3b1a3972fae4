"""The whole report: everything that was found, and the verdicts, as one value and as JSON."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import motedge
from motedge.doctor.accelerators import Gpu, Jetson, gpus, jetson
from motedge.doctor.host import Host, examine_host
from motedge.doctor.packages import Package, cuda_libraries, engine_libraries, onnxruntime_providers, packages
from motedge.doctor.verdict import Verdict, export_verdict, run_cpu_verdict, run_gpu_verdict

SCHEMA = "motedge.doctor/v1"


@dataclass(frozen=True)
class Report:
    """What `motedge doctor` says."""

    motedge: str
    python: str
    python_path: str
    host: Host
    packages: tuple[Package, ...]
    onnxruntime_providers: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    # Why no GPU is named, None if one is
    gpu_reason: Optional[str]
    jetson: Optional[Jetson]
    # What talks to the GPU's driver -> version, None where it is not installed
    cuda_libraries: Mapping[str, Optional[str]]
    # Import name -> version, None where it is not installed
    engine_libraries: Mapping[str, Optional[str]]
    verdicts: tuple[Verdict, ...]

    def verdict(self, task: str) -> Verdict:
        """The verdict of one task, by name."""
        return next(v for v in self.verdicts if v.task == task)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}


def examine(folder: Path, root: Path = Path("/")) -> Report:
    """Looks at this machine; `folder` is where the disk is measured, `root` the file system (another one in tests).

    Raises:
        HostError: motedge is not installed as a package.
    """
    found = packages()
    providers, import_error = onnxruntime_providers()
    gpu_list, gpu_reason = gpus()
    board = jetson(root)
    engines, cuda = engine_libraries(), cuda_libraries()
    # Before JetPack 6 a Jetson has a GPU and no nvidia-smi
    gpu_missing = None if gpu_list or board is not None else gpu_reason or "nvidia-smi names none"
    return Report(
        motedge=motedge.__version__,
        python=platform.python_version(),
        python_path=sys.executable,
        host=examine_host(folder, root),
        packages=tuple(found),
        onnxruntime_providers=tuple(providers),
        gpus=tuple(gpu_list),
        gpu_reason=gpu_reason,
        jetson=board,
        cuda_libraries=cuda,
        engine_libraries=engines,
        verdicts=(
            export_verdict(found),
            run_cpu_verdict(found, providers, import_error),
            run_gpu_verdict(gpu_missing, cuda, engines, providers),
        ),
    )
