"""The gate before an engine is loaded: each thing that can be wrong, and that a sound engine passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from motedge.errors import BundleError, HostError
from motedge.runtime.engine_files import EngineFiles, LoadHost, check_engine
from motedge.runtime.engine_files.gate import this_platform

HOST = LoadHost("tensorrt", "10.3.0.30", "8.7", 1_000_000, "aarch64-linux")
Maker = Callable[..., EngineFiles]


def _change(**changes: object) -> LoadHost:
    return dataclasses.replace(HOST, **changes)


def test_a_sound_engine_passes(make_files: Maker) -> None:
    files = make_files()
    assert check_engine(files, files.engines[0], HOST) == files.folder / files.engines[0].file


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (_change(compute_capability="8.9"), "built for another GPU"),
        (_change(compute_capability=None), "no GPU"),
        (_change(version="10.3.0.26"), "another version of tensorrt"),
        (_change(version="10.13.3.9"), "a plan is only good for the version that wrote it"),
        (_change(platform="x86_64-linux"), "another platform"),
        (_change(library="tensorrt-rtx"), "is an engine of tensorrt"),
        (_change(free_memory_bytes=999), "too little free memory"),
    ],
)
def test_another_machine_is_refused(make_files: Maker, host: LoadHost, says: str) -> None:
    files = make_files()
    with pytest.raises(HostError, match=says):
        check_engine(files, files.engines[0], host)


def test_memory_counts_activations_and_what_must_stay_free(make_files: Maker) -> None:
    files = make_files()
    # 600 bytes of plan and 400 of activations
    just = _change(free_memory_bytes=1000)
    assert check_engine(files, files.engines[0], just)
    with pytest.raises(HostError, match=r"1\.00 kB: 600 B of weights and kernels, 400 B of activations, 1 B"):
        check_engine(files, files.engines[0], just, reserve_bytes=1)
    assert check_engine(files, files.engines[0], _change(free_memory_bytes=None), reserve_bytes=10**12)


def test_weights_that_are_streamed_need_no_room(make_files: Maker) -> None:
    host = _change(free_memory_bytes=500, weight_budget_bytes=100)
    streams = make_files(settings={"weight_streaming": True})
    assert check_engine(streams, streams.engines[0], host)
    for budget in (None, 101):
        with pytest.raises(HostError, match="too little free memory"):
            check_engine(streams, streams.engines[0], dataclasses.replace(host, weight_budget_bytes=budget))
    # More than there is of them is all of them
    roomy = _change(free_memory_bytes=1000, weight_budget_bytes=10**9)
    assert check_engine(streams, streams.engines[0], roomy)
    whole = make_files(settings={"weight_streaming": False})
    with pytest.raises(HostError, match=r"600 B of weights and kernels"):
        check_engine(whole, whole.engines[0], host)


def test_data_files_count_and_are_checked(make_files: Maker) -> None:
    files = make_files(data_files={"weights.data": {"bytes": 5, "sha256": "0" * 64}})
    engine = files.engines[0]
    with pytest.raises(BundleError, match=r"weights\.data is missing"):
        check_engine(files, engine, HOST)
    (files.folder / "weights.data").write_bytes(b"12345")
    with pytest.raises(BundleError, match=r"weights\.data differs"):
        check_engine(files, engine, HOST)
    assert check_engine(files, engine, HOST, check_content=False)
    assert engine.total_bytes == engine.bytes + 5


def test_a_changed_file(make_files: Maker) -> None:
    files = make_files()
    engine, path = files.engines[0], files.folder / files.engines[0].file
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        check_engine(files, engine, HOST)
    assert check_engine(files, engine, HOST, check_content=False)
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match="599 bytes"):
        check_engine(files, engine, HOST, check_content=False)
    path.unlink()
    with pytest.raises(BundleError, match="is missing"):
        check_engine(files, engine, HOST)


def test_host_code_needs_trust(make_files: Maker) -> None:
    files = make_files(version_compatible=True)
    engine = files.engines[0]
    with pytest.raises(HostError, match="holds host code"):
        check_engine(files, engine, HOST)
    assert check_engine(files, engine, HOST, trust_host_code=True)
    # One major further, never back and never two
    for version in ("10.16.2.10", "11.4.0"):
        assert check_engine(files, engine, _change(version=version), trust_host_code=True)
    for version in ("10.2.0", "12.0.0"):
        with pytest.raises(HostError, match="another version"):
            check_engine(files, engine, _change(version=version), trust_host_code=True)


def test_host_code_is_refused_before_the_file_is_read(make_files: Maker) -> None:
    files = make_files(version_compatible=True)
    (files.folder / files.engines[0].file).unlink()
    with pytest.raises(HostError, match="host code"):
        check_engine(files, files.engines[0], HOST)


def test_engines_made_ahead_of_time_run_on_either_processor(make_files: Maker) -> None:
    files = make_files(builder="tensorrt-rtx", builder_version="1.7.1.116", compute_capabilities=("12.1",))
    spark = LoadHost("tensorrt-rtx", "1.7.2.5", "12.1", None, "x86_64-linux")
    assert check_engine(files, files.engines[0], spark)
    with pytest.raises(HostError, match="another version"):
        check_engine(files, files.engines[0], dataclasses.replace(spark, version="1.8.0"))


def test_a_cpu_engine_needs_no_gpu(make_files: Maker) -> None:
    files = make_files(
        builder="onnxruntime", builder_version="1.32.0", compute_capabilities=(), platform="x86_64-linux"
    )
    assert check_engine(files, files.engines[0], LoadHost("onnxruntime", "1.32.1", None, None))
    assert LoadHost("onnxruntime", "1.32.1", None, None).platform == this_platform()


def test_a_name_that_leads_out_of_the_folder(make_files: Maker) -> None:
    files = make_files()
    for name in ("../secret", "/etc/passwd", "..", ""):
        with pytest.raises(BundleError, match="outside its folder"):
            check_engine(files, dataclasses.replace(files.engines[0], file=name), HOST)
