"""Which projections are sites, by module and by graph."""

from __future__ import annotations

import pytest
import torch

from motedge.checkpoint.presets import preset
from motedge.export.modules.gen import GenStep
from motedge.export.modules.layers import Precision
from motedge.export.modules.reasoner import Reasoner
from motedge.export.modules.und import UndPrefill
from motedge.export.modules.vision_qwen3 import QwenEncoder
from motedge.export.modules.vision_siglip2 import SiglipEncoder
from motedge.export.weights import plan_weights
from motedge.quant.sites import graph_sites, module_sites

PRECISION = Precision("primitive", torch.float32)


@pytest.mark.parametrize(("family", "projections"), [("edge", 6), ("nano", 7), ("super", 7)])
def test_sites_are_the_projections_of_the_layers_and_nothing_else(family: str, projections: int) -> None:
    config = preset(family, "tiny").transformer
    with torch.device("meta"):
        gen, und = GenStep(config, PRECISION, (5, 6)), UndPrefill(config, PRECISION)
    layers = config.num_hidden_layers
    assert len(module_sites(gen)) == projections * layers
    # The last und layer ends after K and V
    assert len(module_sites(und)) == projections * (layers - 1) + 2
    for name, (site, linear) in module_sites(gen).items():
        assert (site.name, site.inputs, site.outputs) == (name, *linear.weight.shape)
        assert not any(word in name for word in ("proj_in", "proj_out", "time", "norm", "action"))


def test_a_graph_has_the_sites_of_its_module() -> None:
    config = preset("edge", "tiny").transformer
    with torch.device("meta"):
        module = GenStep(config, PRECISION, (5, 6))
    initializers = [(spec.name, spec.shape) for spec in plan_weights(module)]
    assert graph_sites(initializers) == [site for site, _ in module_sites(module).values()]
    site = graph_sites(initializers)[0]
    assert site.key == f"{site.name}.weight"
    assert site.projection == "self_attn.add_q_proj"
    assert (site.layer, site.parameters) == (0, site.inputs * site.outputs)


@pytest.mark.parametrize(("family", "prefix"), [("edge", "model.visual.encoder.layers"), ("nano", "blocks")])
def test_the_reasoners_graphs_have_sites_in_their_layers_alone(family: str, prefix: str) -> None:
    made = preset(family, "tiny")
    config, vision = made.transformer, made.vision
    with torch.device("meta"):
        und, prefill = Reasoner(config, PRECISION), UndPrefill(config, PRECISION)
        encoder = (SiglipEncoder if family == "edge" else QwenEncoder)(vision, PRECISION)
    for module in (und, encoder):
        initializers = [(spec.name, spec.shape) for spec in plan_weights(module)]
        assert graph_sites(initializers) == [site for site, _ in module_sites(module).values()]
    # What both have is the same projection; und has the rest of the last layer too
    assert module_sites(prefill).keys() < module_sites(und).keys()
    assert all(module_sites(und)[name][0] == site for name, (site, _) in module_sites(prefill).items())
    assert not any("lm_head" in name for name in module_sites(und))
    sites = [site for site, _ in module_sites(encoder).values()]
    assert {site.name for site in sites} == {f"{prefix}.{site.layer}.{site.projection}" for site in sites}
    assert {site.layer for site in sites} == set(range(vision.num_hidden_layers))
    assert len(sites) == (6 if family == "edge" else 4) * vision.num_hidden_layers
