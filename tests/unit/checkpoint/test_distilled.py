"""How a checkpoint says that it is distilled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from motedge.checkpoint.distilled import INDEX, PUBLISHED_SIGMAS, SCHEDULER, read_distilled_sigmas
from motedge.checkpoint.inspect import inspect_checkpoint
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import CheckpointError


def _write(root: Path, name: str, value: Any) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(value))


def test_a_made_one(tmp_path: Path) -> None:
    root = make_checkpoint(tmp_path / "super", "super", "4step", "tiny", seed=7)
    checkpoint = Checkpoint.open(root)
    assert (checkpoint.variant, checkpoint.distilled_sigmas) == ("4step", PUBLISHED_SIGMAS)
    report = inspect_checkpoint(root)
    assert report["distilled_sigmas"] == list(PUBLISHED_SIGMAS) and not report["problems"]
    # Part of its identity
    before = checkpoint.fingerprint()
    _write(root, INDEX, {"is_distilled": True, "distilled_sigmas": [1.0, 0.5]})
    assert Checkpoint.open(root).fingerprint() != before


def test_any_other_has_none(tiny: Any) -> None:
    assert Checkpoint.open(tiny("edge")).distilled_sigmas is None


@pytest.mark.parametrize(
    "files",
    [
        {INDEX: {"is_distilled": True, "distilled_sigmas": [1.0, 0.75]}},
        {INDEX: {"distilled_sigmas": [1, 0.75, 0.0]}},
        {SCHEDULER: {"fixed_step_sampler_config": {"t_list": [1.0, 0.75], "sample_type": "sde"}}},
        {SCHEDULER: {"fixed_step_sampler_config": {"t_list": [1.0, 0.75, 0.0]}}, INDEX: {"is_distilled": True}},
        {INDEX: {"distilled_sigmas": [1.0, 0.75]}, SCHEDULER: {"fixed_step_sampler_config": {"t_list": [1.0, 0.75]}}},
    ],
)
def test_forms(tmp_path: Path, files: dict[str, Any]) -> None:
    for name, value in files.items():
        _write(tmp_path, name, value)
    assert read_distilled_sigmas(tmp_path) == (1.0, 0.75)


@pytest.mark.parametrize(
    "files", [{}, {INDEX: {"is_distilled": False}}, {SCHEDULER: {"flow_shift": 5.0}}, {INDEX: [1]}]
)
def test_none(tmp_path: Path, files: dict[str, Any]) -> None:
    for name, value in files.items():
        _write(tmp_path, name, value)
    assert read_distilled_sigmas(tmp_path) is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({INDEX: {"is_distilled": True}}, "distilled_sigmas is wrong"),
        ({INDEX: {"distilled_sigmas": "1, 0.5"}}, "distilled_sigmas is wrong"),
        ({INDEX: {"distilled_sigmas": [1.0, True]}}, "distilled_sigmas is wrong"),
        ({INDEX: {"distilled_sigmas": [0.5, 1.0]}}, "distilled_sigmas is wrong"),
        ({INDEX: {"distilled_sigmas": [0.0]}}, "distilled_sigmas is wrong"),
        ({INDEX: {"distilled_sigmas": [1000.0, 500.0]}}, "distilled_sigmas is wrong"),
        ({INDEX: {"distilled_sigmas": [1.0, float("nan"), 0.5]}}, "distilled_sigmas is wrong"),
        (
            {SCHEDULER: {"fixed_step_sampler_config": {"t_list": [1.0], "sample_type": "ode"}}},
            "sampler_config is wrong",
        ),
        ({SCHEDULER: {"fixed_step_sampler_config": {"sample_type": "sde"}}}, "t_list is wrong"),
        (
            {INDEX: {"distilled_sigmas": [1.0, 0.5]}, SCHEDULER: {"fixed_step_sampler_config": {"t_list": [1.0, 0.6]}}},
            "two lists",
        ),
    ],
)
def test_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    for name, value in files.items():
        _write(tmp_path, name, value)
    with pytest.raises(CheckpointError, match=message):
        read_distilled_sigmas(tmp_path)


def test_not_json(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        read_distilled_sigmas(tmp_path)
