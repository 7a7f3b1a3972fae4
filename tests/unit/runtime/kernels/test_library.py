"""Which compiled kernels are taken, and what is said where there are none."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from host_cuda import HostCuda

from motedge.errors import HostError
from motedge.runtime.kernels import library as library_module
from motedge.runtime.kernels.library import KernelLibrary, source_folder
from motedge.runtime.kernels.record import FATBIN_NAME, INTERFACE, RECORD_NAME, KernelRecord, source_hash

SOURCES = Path(__file__).resolve().parents[4] / "kernels"
IMAGE = b"not a real fatbin"
RECORD = KernelRecord(hashlib.sha256(IMAGE).hexdigest(), source_hash(SOURCES), INTERFACE, "13.0", (80, 87, 90), 90)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a build that is as it should be, named by MOTEDGE_KERNELS."""
    (tmp_path / FATBIN_NAME).write_bytes(IMAGE)
    RECORD.write(tmp_path / RECORD_NAME)
    monkeypatch.setenv("MOTEDGE_KERNELS", str(tmp_path / FATBIN_NAME))
    return tmp_path


def test_a_build_that_fits_is_taken(build: Path) -> None:
    cuda = HostCuda(kernels={"add": print})
    library, reason = KernelLibrary.find(cuda)
    assert library is not None and reason is None and library.record == RECORD
    with cuda.current():
        assert library.kernel("add").name == "add"
    assert KernelLibrary.load(cuda, build / FATBIN_NAME).record == RECORD


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (replace(RECORD, sha256="0" * 64), "damaged"),
        (replace(RECORD, interface=INTERFACE + 1), f"interface {INTERFACE + 1}"),
        (replace(RECORD, source_sha256="0" * 64), "older than their source"),
        (replace(RECORD, sm=(120,), ptx=120), "no code for compute capability 9.0"),
        (replace(RECORD, toolkit="14.0"), "the driver takes CUDA 13.0"),
    ],
)
def test_one_that_does_not_fit_is_left_with_a_reason(build: Path, record: KernelRecord, words: str) -> None:
    record.write(build / RECORD_NAME)
    library, reason = KernelLibrary.find(HostCuda())
    assert library is None and reason is not None and words in reason
    with pytest.raises(HostError, match="build_kernels"):
        KernelLibrary.load(HostCuda())


def test_without_a_build_the_reason_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MOTEDGE_KERNELS", raising=False)
    monkeypatch.setattr(library_module, "package_fatbin", lambda: tmp_path / FATBIN_NAME)
    assert KernelLibrary.find(HostCuda()) == (None, f"there are no compiled kernels: no file {FATBIN_NAME}")


def test_a_wrong_path_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOTEDGE_KERNELS", str(tmp_path / "nothing.fatbin"))
    library, reason = KernelLibrary.find(HostCuda())
    assert library is None and reason is not None and "nothing.fatbin" in reason


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": "motedge.kernels/v2"}', '{"schema": "motedge.kernels/v1"}']
)
def test_a_damaged_record_is_a_reason(build: Path, text: str) -> None:
    (build / RECORD_NAME).write_text(text)
    library, reason = KernelLibrary.find(HostCuda())
    assert library is None and reason is not None and "can't be read" in reason
    (build / RECORD_NAME).unlink()
    assert KernelLibrary.find(HostCuda())[0] is None


@pytest.mark.parametrize(
    ("compute_capability", "driver", "runs"),
    [
        ("8.0", (13, 0), True),
        ("8.6", (13, 0), True),  # code for 8.0 runs on 8.6
        ("8.9", (13, 0), True),
        ("9.0", (13, 0), True),
        ("7.5", (13, 0), False),
        ("11.0", (13, 0), True),  # by PTX
        ("12.0", (13, 2), True),
        ("9.0", (12, 8), False),
        ("9.0", (14, 0), True),
    ],
)
def test_what_runs_where(compute_capability: str, driver: tuple[int, int], runs: bool) -> None:
    assert (RECORD.refusal(compute_capability, driver) is None) == runs


def test_ptx_needs_a_driver_as_new_as_its_compiler() -> None:
    record = replace(RECORD, toolkit="13.1")
    assert record.refusal("11.0", (13, 0)) is not None
    assert record.refusal("9.0", (13, 0)) is None
    assert record.refusal("11.0", (13, 1)) is None


def test_both_sides_state_the_same_interface() -> None:
    text = (SOURCES / "interface.h").read_text()
    assert re.findall(r"MOTEDGE_KERNEL_INTERFACE (\d+)", text) == [str(INTERFACE)]
    assert source_folder() == SOURCES


def test_the_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    def made(files: dict[str, str]) -> str:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return source_hash(tmp_path)

    first = made({"a.cu": "1", "b.h": "2"})
    assert first == made({"b.h": "2", "a.cu": "1", "notes.txt": "anything"})
    assert (
        len({first, made({"a.cu": "2", "b.h": "1"}), made({"a.cu": "12", "b.h": ""}), made({"c.cu": "1", "b.h": "2"})})
        == 4
    )
