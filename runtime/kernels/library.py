"""The compiled kernels of this installation, or the reason why there are none."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Optional

from motedge.errors import HostError
from motedge.runtime.cuda import Cuda, Kernel
from motedge.runtime.device.staging import Staging
from motedge.runtime.kernels.record import FATBIN_NAME, INTERFACE, RECORD_NAME, KernelRecord, source_hash

# Names a fatbin in another place; its record lies beside it
VARIABLE = "MOTEDGE_KERNELS"
_FIX = "python scripts/build_kernels.py, which needs nvcc"
_SOURCES = ("interface.h", "solver.cu", "ingest.cu")


class KernelLibrary:
    """A module of compiled kernels, known to run on one GPU."""

    def __init__(self, cuda: Cuda, image: bytes, record: KernelRecord) -> None:
        """`image`: the fatbin. For those who have checked that it fits; others take `load` or `find`."""
        self._cuda, self._image, self.record = cuda, image, record
        self._staging: Optional[Staging] = None

    @property
    def staging(self) -> Staging:
        """For the uploads of what is made of this library, however often that is; the context must be current."""
        if self._staging is None:
            self._staging = Staging(self._cuda)
        return self._staging

    def kernel(self, name: str) -> Kernel:
        """A kernel by its name in the source.

        Raises:
            CudaError: the driver refuses the module, or there is no such kernel.
        """
        return self._cuda.kernel(self._image, name)

    @classmethod
    def find(cls, cuda: Cuda) -> tuple[Optional[KernelLibrary], Optional[str]]:
        """The library, or None and why: for those who can do without."""
        try:
            return cls.load(cuda), None
        except HostError as error:
            return None, f"{error.what}: {error.got}" if error.got else error.what

    @classmethod
    def load(cls, cuda: Cuda, path: Optional[Path] = None) -> KernelLibrary:
        """Reads and checks the fatbin at `path`, else where MOTEDGE_KERNELS says, else that of the package.

        Raises:
            HostError: there is none, it is damaged or of another source, or has no code for this GPU.
        """
        fatbin = path or _configured()
        if not fatbin.is_file():
            raise HostError("there are no compiled kernels", got=f"no file {fatbin.name}", fix=_FIX)
        record = KernelRecord.read(fatbin.with_name(RECORD_NAME))
        image = fatbin.read_bytes()
        if hashlib.sha256(image).hexdigest() != record.sha256:
            raise HostError("the compiled kernels are damaged", got="other content than recorded", fix=_FIX)
        if record.interface != INTERFACE:
            raise HostError(
                "the compiled kernels belong to another version of motedge",
                expected=f"interface {INTERFACE}",
                got=f"interface {record.interface}",
                fix=_FIX,
            )
        sources = source_folder()
        if sources is not None and source_hash(sources) != record.source_sha256:
            raise HostError("the compiled kernels are older than their source", got="another hash", fix=_FIX)
        facts = cuda.facts
        refusal = record.refusal(facts.compute_capability, facts.driver_cuda)
        if refusal:
            raise HostError(f"the compiled kernels don't run on {facts.name}", got=refusal, fix=f"{_FIX} for this GPU")
        return cls(cuda, image, record)


def package_fatbin() -> Path:
    """Where a build is installed."""
    return Path(__file__).resolve().parent / "data" / FATBIN_NAME


def source_folder() -> Optional[Path]:
    """The kernels' source, in a checkout; None in an installed package."""
    folder = Path(__file__).resolve().parents[2] / "kernels"
    return folder if all((folder / name).is_file() for name in _SOURCES) else None


def _configured() -> Path:
    named = os.environ.get(VARIABLE)
    if not named:
        return package_fatbin()
    path = Path(named)
    if not path.is_file():
        raise HostError(f"{VARIABLE} names no file", got=named, fix=f"name a {FATBIN_NAME}, or unset it")
    return path
