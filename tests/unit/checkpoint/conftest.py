"""Tiny checkpoints, made once a session, and copies of one that a test may damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from motedge.checkpoint.make import make_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[[str], Path]:
    """family -> a tiny policy checkpoint, shared: do not write into it."""
    folder = tmp_path_factory.mktemp("tiny")

    def get(family: str) -> Path:
        root = folder / family
        return root if root.exists() else make_checkpoint(root, family, "policy-droid", "tiny", seed=7)

    return get


@pytest.fixture
def broken(tiny, tmp_path) -> Path:
    """A copy of the tiny Edge checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny("edge"), tmp_path / "edge"))


@pytest.fixture
def change_weights() -> Callable[..., None]:
    """Rewrites one weight file: `change(file, lambda tensors: ...)`."""
    from safetensors.torch import load_file, save_file

    def change(file: Path, edit: Callable[[dict], object]) -> None:
        # Copied out of the map, because the file is then written over
        tensors = {key: value.clone() for key, value in load_file(file).items()}
        edit(tensors)
        save_file(tensors, file, metadata={"format": "pt"})

    return change
