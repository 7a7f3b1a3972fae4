from __future__ import annotations

from typing import Any

import pytest

from motedge.errors import UsageError
from motedge.quant.sensitivity.options import DEFAULT_MAX_ERROR, SearchOptions, Target


def test_without_a_target_it_is_the_gates() -> None:
    assert Target().max_error == DEFAULT_MAX_ERROR
    assert Target().bytes_for(1000) is None


def test_bits_become_bytes() -> None:
    assert Target(max_bits=4.5).bytes_for(16) == 9
    assert Target(max_bytes=123).bytes_for(16) == 123


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_error": 0.1, "max_bits": 8.0}, "more than one target"),
        ({"max_error": 0.0}, "max_error is wrong"),
        ({"max_bytes": -1}, "max_bytes is wrong"),
        ({"max_bits": float("nan")}, "max_bits is wrong"),
    ],
)
def test_targets_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Target(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "actoin"}, "did you mean 'action'"),
        ({"compute": "fp16"}, "unknown type"),
        ({"forwards": 0}, "number of forwards"),
        ({"front": -1}, "number of mixtures"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        SearchOptions(**changes)
    assert message in str(caught.value)
