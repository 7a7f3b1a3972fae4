"""A folder with one engine and its record."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motedge.files import write_json
from motedge.runtime.engine_files import BUILD_FILE, EngineFile, EngineFiles

CONTENT = b"a plan" * 100


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., EngineFiles]:
    """Writes engines and build.json; keyword arguments change the one engine's fields."""

    def make(**changes: Any) -> EngineFiles:
        engine = EngineFile(
            graph="gen_step",
            variant="fused-bf16",
            file="gen_step.fused-bf16.sm87.tensorrt-10.3.0.30.engine",
            bytes=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            builder="tensorrt",
            builder_version="10.3.0.30",
            compute_capabilities=("8.7",),
            platform="aarch64-linux",
            created="2026-11-01T00:00:00+00:00",
            seconds=1.0,
            peak_memory_bytes=10_000,
            peak_anonymous_bytes=9_000,
            device_memory_bytes=400,
            settings={},
            source="0" * 64,
        )
        engine = dataclasses.replace(engine, **changes)
        files = EngineFiles(tmp_path, "jetson-orin-nano-8gb", (engine,))
        (tmp_path / engine.file).write_bytes(CONTENT)
        write_json(tmp_path / BUILD_FILE, files.to_dict())
        return files

    return make
