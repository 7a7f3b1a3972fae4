"""The catalogue of devices."""

from __future__ import annotations

import pytest

from motedge.errors import InternalError, UsageError
from motedge.targets.catalog import Figure, load_target, targets


def test_every_device_says_where_its_figures_are_from() -> None:
    known = targets()
    assert len(known) == 18
    for name, target in known.items():
        assert target.id == name and target.name
        assert len(target.capability.source) > 10


def test_capabilities() -> None:
    found = {
        name: load_target(name).compute_capability for name in ("jetson-orin-nano-8gb", "h200", "dgx-spark", "cpu")
    }
    assert found == {"jetson-orin-nano-8gb": 8.7, "h200": 9.0, "dgx-spark": 12.1, "cpu": None}


def test_an_unknown_device() -> None:
    with pytest.raises(UsageError, match="did you mean 'jetson-agx-orin-64gb'"):
        load_target("jetson-agx-orin")


def test_a_mark_that_is_none() -> None:
    with pytest.raises(InternalError, match="marked 'guessed'"):
        Figure(1.0, "guessed", "somewhere")
