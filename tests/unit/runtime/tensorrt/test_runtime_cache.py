"""TensorRT-RTX's compiled kernels on disk: kept, taken again, and dropped when they are damaged or do not fit."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
from tensorrt_runtime_stub import stage_of, stub_library

from motedge.runtime.backends.tensorrt.runtime_cache import cache_path

DIMS = {"T": 3, "A": 5, "U": 6, "N": 17}


def _run(bench: Any, library: Any, **settings: Any) -> Any:
    engine = bench.load("rtx", library=library, **settings)
    context = engine.context(DIMS)
    workspace = bench.cuda.allocate(context.activation_bytes, "workspace")
    context.use_activation_memory(workspace.pointer, workspace.nbytes)
    bench.bind(engine, context, DIMS, bench.inputs("gen_step", DIMS))
    context.enqueue(bench.cuda.stream())
    return engine


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kernels"))


def test_kernels_are_compiled_once(bench: Any) -> None:
    first, second = (stub_library("rtx", bench.cuda) for _ in range(2))
    engine = _run(bench, first)
    assert len(stage_of(first).compiled) == 1
    assert engine.save_runtime_cache()
    # Nothing new
    assert not engine.save_runtime_cache()
    (kept,) = _files(bench.folder)
    assert kept.name.startswith("gen_step.engine.")
    engine.close()
    _run(bench, second).close()
    assert stage_of(second).compiled == []
    # Captures are the loop's, and kernels are compiled in the first run rather than beside later ones
    assert stage_of(second).configs == [("USER_MANAGED", "DISABLED", "EAGER")]


def test_closing_keeps_them_too(bench: Any) -> None:
    _run(bench, stub_library("rtx", bench.cuda)).close()
    assert len(_files(bench.folder)) == 1


@pytest.mark.parametrize("damage", ["cut", "bit", "magic", "empty"])
def test_a_damaged_file_is_dropped(bench: Any, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    _run(bench, stub_library("rtx", bench.cuda)).close()
    (path,) = _files(bench.folder)
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-3] ^= 1
    if damage == "magic":
        content[0] ^= 1
    path.write_bytes({"cut": content[:-5], "empty": b""}.get(damage, content))
    library = stub_library("rtx", bench.cuda)
    with caplog.at_level(logging.WARNING):
        _run(bench, library)
    assert "it is damaged" in caplog.text
    assert len(stage_of(library).compiled) == 1
    assert not path.exists()


def test_what_the_library_refuses_is_dropped(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    _run(bench, stub_library("rtx", bench.cuda)).close()
    library = stub_library("rtx", bench.cuda)
    stage_of(library).accepts_cache = False
    with caplog.at_level(logging.WARNING):
        engine = _run(bench, library)
    assert "of another environment" in caplog.text
    assert len(stage_of(library).compiled) == 1
    assert engine.save_runtime_cache()
    assert len(_files(bench.folder)) == 1


def test_a_folder_of_its_own_and_one_that_can_not_be_written(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = bench.folder / "cache"
    _run(bench, stub_library("rtx", bench.cuda), cache_folder=elsewhere).close()
    assert _files(bench.folder) == [] and len(_files(elsewhere)) == 1
    blocked = bench.folder / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        _run(bench, stub_library("rtx", bench.cuda), cache_folder=blocked).close()
    assert "are not kept" in caplog.text or "can't be read" in caplog.text


def test_the_name_tells_engine_version_and_gpu_apart(bench: Any) -> None:
    facts, engine = bench.cuda.facts, bench.path("gen_step")
    names = {
        cache_path(engine, None, "1.7.1", facts, None).name,
        cache_path(engine, "0" * 64, "1.7.1", facts, None).name,
        cache_path(engine, None, "1.8", facts, None).name,
        cache_path(engine, None, "1.7.1", dataclasses.replace(facts, name="another GPU"), None).name,
        cache_path(engine, None, "1.7.1", dataclasses.replace(facts, driver_cuda=(13, 1)), None).name,
    }
    assert len(names) == 5


def test_tensorrt_proper_compiles_nothing(bench: Any) -> None:
    engine = bench.load("11.4")
    assert engine.runtime_cache is None
    assert not engine.save_runtime_cache()
