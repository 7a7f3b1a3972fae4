"""CUresult names become errors that a user can act on; the ledger tells what is held."""

from __future__ import annotations

import pytest

from motedge.errors import EXIT_ENVIRONMENT, InternalError
from motedge.runtime.cuda.error_names import CAPTURE, STICKY, cuda_error
from motedge.runtime.cuda.errors import CaptureError, CudaError, OutOfDeviceMemoryError, StickyCudaError
from motedge.runtime.cuda.ledger import Ledger


@pytest.mark.parametrize("name", sorted(STICKY))
def test_lost_contexts(name: str) -> None:
    error = cuda_error(name, "work failed")
    assert isinstance(error, StickyCudaError)
    assert error.sticky
    assert error.why == STICKY[name]


@pytest.mark.parametrize("name", sorted(CAPTURE))
def test_captures(name: str) -> None:
    error = cuda_error(name, "cuMemAlloc failed")
    assert isinstance(error, CaptureError)
    assert not error.sticky
    assert "before the capture" in str(error)


def test_others() -> None:
    error = cuda_error("CUDA_ERROR_OUT_OF_MEMORY", "no room", text="out of memory")
    assert isinstance(error, OutOfDeviceMemoryError)
    assert "CUDA_ERROR_OUT_OF_MEMORY: out of memory" in str(error)
    plain = cuda_error("CUDA_ERROR_NO_BINARY_FOR_GPU", "a module can't be loaded")
    assert type(plain) is CudaError
    assert "SM" in str(plain)
    unknown = cuda_error("CUresult 4711", "something failed")
    assert type(unknown) is CudaError
    assert "CUresult 4711" in str(unknown)
    assert unknown.exit_code == EXIT_ENVIRONMENT


def test_ledger() -> None:
    ledger = Ledger()
    assert ledger.in_words() == "nothing"
    ledger.add("weights", 1000)
    ledger.add("weights", 500)
    ledger.add("state", 2000)
    assert ledger.as_dict() == {"state": 2000, "weights": 1500}
    assert list(ledger.as_dict()) == ["state", "weights"]
    assert ledger.in_words() == "3,500 bytes (state 2,000, weights 1,500)"
    ledger.remove("weights", 500)
    ledger.remove("weights", 1000)
    assert ledger.as_dict() == {"state": 2000}
    with pytest.raises(InternalError, match="never held"):
        ledger.remove("weights", 1)
    with pytest.raises(InternalError, match="never held"):
        ledger.remove("state", 2001)
    ledger.clear()
    assert ledger.total_bytes == 0


def test_a_long_ledger_is_cut() -> None:
    ledger = Ledger()
    for number in range(9):
        ledger.add(f"part {number}", number + 1)
    assert "and 3 more" in ledger.in_words()
