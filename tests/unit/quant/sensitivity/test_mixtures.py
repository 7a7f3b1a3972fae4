from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import UsageError
from motedge.quant.sensitivity.mixtures import CostModel, metric_of
from motedge.quant.sensitivity.sketch import pack
from motedge.quant.sensitivity.space import Choice, Space
from motedge.quant.sensitivity.tasks import Records, mixture_id, site_id
from motedge.quant.sites import Site

GEN, UND = "gen_step", "und_prefill"
COSTS = {"a": (4e-4, 1e-2), "b": (1e-6, 2e-4), "c": (9e-4, 4e-2)}


def _space() -> tuple[Space, Records]:
    choices, records = [], {}
    for number, (name, (fp8, nvfp4)) in enumerate(COSTS.items()):
        graph = UND if name == "b" else GEN
        choices.append(Choice(graph, Site(name, number, 16, 100), ("fp8", "nvfp4")))
        # At right angles: nothing in common
        direction = np.eye(len(COSTS))[number]
        for scheme, action, vision in (("fp8", fp8, 0.0), ("nvfp4", nvfp4, 0.5)):
            records[site_id(graph, name, scheme)] = {
                "vision": vision,
                "action": action,
                "action_deviation": pack(direction),
                "vision_deviation": pack(direction),
            }
    return Space(tuple(choices), {}), records


def test_bytes_and_errors_add_up() -> None:
    space, records = _space()
    model = CostModel(space, records, "action")
    mixture = {GEN: {"a": "fp8"}, UND: {"b": "nvfp4"}}
    assert space.bytes_of(mixture) == 1600 * (8 + 4.5 + 16) / 8
    assert model.added(mixture) == pytest.approx(4e-4 + 2e-4)
    assert model.predict(mixture) == pytest.approx(4e-4 + 2e-4)
    assert (model.least_bytes, model.plain_bytes) == (3 * 1600 * 4.5 / 8, 3 * 1600 * 2)


def test_the_metric_decides_what_counts() -> None:
    assert metric_of({"vision": 0.5, "action": 0.1}, "action") == 0.1
    assert metric_of({"vision": 0.5, "action": 0.1}, "velocity") == pytest.approx(0.3)


def test_the_sensitive_site_keeps_its_bits() -> None:
    space, records = _space()
    model = CostModel(space, records, "action")
    within = model.within_bytes(1600 * (4.5 + 8 + 16) / 8)
    # b in 4 bits, and of the other two the worse one unquantized
    assert within == {UND: {"b": "nvfp4"}, GEN: {"a": "fp8"}}
    assert model.within_error(0.0) == {}
    assert space.bytes_of(model.within_error(1.0)) == model.least_bytes


def test_errors_that_cancel_or_add_are_seen() -> None:
    space, records = _space()
    same = pack(np.array([1.0, 0.0, 0.0]))
    for scheme in ("fp8", "nvfp4"):
        records[site_id(GEN, "a", scheme)]["action_deviation"] = same
        records[site_id(GEN, "c", scheme)]["action_deviation"] = same
    both = {GEN: {"a": "fp8", "c": "fp8"}}
    model = CostModel(space, records, "action")
    assert model.added(both) == pytest.approx(4e-4 + 9e-4)
    assert model.predict(both) == pytest.approx((2e-2 + 3e-2) ** 2, rel=1e-3)
    records[site_id(GEN, "c", "fp8")]["action_deviation"] = pack(np.array([-1.0, 0.0, 0.0]))
    assert CostModel(space, records, "action").predict(both) == pytest.approx((2e-2 - 3e-2) ** 2, rel=1e-3)


def test_what_is_impossible_is_not_chosen() -> None:
    space, records = _space()
    records[site_id(GEN, "a", "nvfp4")] = {"impossible": "is all zeros"}
    model = CostModel(space, records, "action")
    assert model.within_error(1.0)[GEN]["a"] == "fp8"
    assert model.possible({GEN: {"a": "nvfp4", "c": "nvfp4"}}) == {GEN: {"c": "nvfp4"}}
    with pytest.raises(UsageError, match="that small") as caught:
        model.within_bytes(1600 * 3 * 4.5 / 8)
    assert "3400 bytes" in caught.value.expected


def test_a_mixtures_id_does_not_depend_on_order() -> None:
    assert mixture_id({GEN: {"a": "fp8", "c": "fp8"}, UND: {}}) == mixture_id({UND: {}, GEN: {"c": "fp8", "a": "fp8"}})
    assert mixture_id({GEN: {"a": "fp8"}}) != mixture_id({GEN: {"a": "nvfp4"}})
