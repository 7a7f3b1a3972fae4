"""Which forwards are listened to, and what is heard, against numpy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from motedge.export.modules.layers import Linear
from motedge.quant.fidelity.activations import ActivationObserver, spread_forwards
from motedge.quant.fidelity.figures import Figures
from motedge.quant.fidelity.weights import SiteError
from motedge.quant.parameters import SiteParameters
from motedge.quant.replay import BRANCHES, Forward
from motedge.quant.schemes import SCHEMES
from motedge.quant.sites import module_sites


def _forwards(requests: int, plan: list[tuple[int, str]]) -> list[Forward]:
    """Every request runs the same steps and branches; the outputs say whose it is."""
    return [
        Forward(step, branch, {}, {"request": np.float32([number])})
        for number in range(requests)
        for step, branch in plan
    ]


ALWAYS = [(step, branch) for step in range(4) for branch in BRANCHES]
# Edge's policy: both branches at the first step alone
FIRST_STEP = [(0, BRANCHES[0]), (0, BRANCHES[1]), *((step, BRANCHES[0]) for step in range(1, 4))]


@pytest.mark.parametrize("plan", [ALWAYS, FIRST_STEP, [(0, BRANCHES[0])]])
@pytest.mark.parametrize("requests", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 8, 20])
def test_every_step_and_branch_is_listened_to(plan: list, requests: int, count: int) -> None:
    chosen = spread_forwards(_forwards(requests, plan), count)
    heard = Counter((forward.step, forward.branch) for forward in chosen)
    assert set(heard) == set(plan) and len(set(heard.values())) == 1
    assert len(chosen) <= max(len(plan), count + len(plan) / 2)
    assert len({(f.step, f.branch, float(f.outputs["request"][0])) for f in chosen}) == len(chosen)


def test_different_requests_take_part() -> None:
    chosen = spread_forwards(_forwards(2, ALWAYS), 8)
    assert {float(forward.outputs["request"][0]) for forward in chosen} == {0.0, 1.0}


class _Tower(nn.Module):
    """One layer with one projection, named as a tower's."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Module()
        layer.mlp = nn.Module()
        layer.mlp.up_proj = Linear(32, 8, torch.float32)
        layer.mlp.up_proj.weight = nn.Parameter(torch.ones(32, 8), requires_grad=False)
        self.layers = nn.ModuleList([layer])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0].mlp.up_proj(x)


def _error(site: str) -> SiteError:
    return SiteError("gen_step", site, 0, "mlp.up_proj", "", 8.0, 256, Figures(0.0, 1.0, None, 0.0, 256))


@pytest.mark.parametrize("smoothed", [False, True])
def test_figures_range_and_clipping(smoothed: bool) -> None:
    tower, random = _Tower(), np.random.RandomState(4)
    site = next(iter(module_sites(tower)))
    scale = torch.linspace(0.5, 2.0, 32) if smoothed else None
    known = SiteParameters(SCHEMES["int8-sq"], 2.0, scale)
    observer = ActivationObserver(tower, {site: known}, torch.float32)
    x = random.randn(2, 50, 32).astype(np.float32)
    for part in x:
        tower(torch.from_numpy(part))
    observer.close()
    tower(torch.full((1, 32), 1e6))
    found = observer.complete([_error(site), _error("layers.9.other")])
    values = x.reshape(-1, 32) * (1.0 if scale is None else scale.numpy())
    step = np.float32(2.0) / np.float32(127)
    rounded = np.clip(np.rint(values / step), -128, 127) * step
    heard = found[0].activation
    assert heard is not None and heard.elements == 2 * 50 * 32
    expected = np.linalg.norm(rounded - values) / np.linalg.norm(values)
    assert heard.relative_l2 == pytest.approx(expected, rel=1e-5)
    assert heard.sqnr_db == pytest.approx(-20 * np.log10(expected), rel=1e-5)
    assert found[0].range_ratio == pytest.approx(np.abs(values).max() / 2.0, rel=1e-6)
    assert found[0].clipped == pytest.approx((np.abs(values) > 2.0).mean())
    assert found[1].activation is None and found[1].range_ratio is None


def test_the_largest_value_counts_wherever_it_is() -> None:
    """Long inputs are looked at in part, but one value out of range must not be missed."""
    tower = _Tower()
    site = next(iter(module_sites(tower)))
    observer = ActivationObserver(tower, {site: SiteParameters(SCHEMES["fp8"], 4.0)}, torch.float32)
    x = torch.full((3000, 32), 1.0)
    x[1501, 7] = -20.0
    tower(x)
    found = observer.complete([_error(site)])[0]
    observer.close()
    assert found.range_ratio == pytest.approx(5.0)
    assert found.activation is not None and found.activation.elements < 3000 * 32 / 2


def test_an_input_that_is_not_finite_is_said() -> None:
    tower = _Tower()
    site = next(iter(module_sites(tower)))
    observer = ActivationObserver(tower, {site: SiteParameters(SCHEMES["fp8"], 4.0)}, torch.float32)
    tower(torch.full((4, 32), torch.inf))
    found = observer.complete([_error(site)])[0]
    observer.close()
    assert found.range_ratio is None and found.activation is not None and found.activation.non_finite == 4 * 32


def test_weight_only_sites_are_not_listened_to() -> None:
    tower = _Tower()
    site = next(iter(module_sites(tower)))
    observer = ActivationObserver(tower, {site: SiteParameters(SCHEMES["int8-w8a16"])}, torch.float32)
    tower(torch.ones(4, 32))
    assert observer.complete([_error(site)])[0].activation is None
    observer.close()
