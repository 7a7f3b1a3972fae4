from __future__ import annotations

import random

import pytest

from motedge.quant.recipe import GraphRecipe, Recipe, Rule, parse_recipe
from motedge.quant.sensitivity.rules import all_schemes, compact_rules

PROJECTIONS = ("self_attn.add_q_proj", "self_attn.add_k_proj", "mlp_moe_gen.up_proj", "mlp_moe_gen.down_proj")
SITES = [f"layers.{layer}.{projection}" for layer in range(12) for projection in PROJECTIONS]


def _read_back(schemes: dict[str, str]) -> tuple[dict[str, str], int]:
    """Through the file's text, as the quantizer reads it."""
    default, rules = compact_rules(schemes)
    recipe = Recipe("mixed", 1, "", {"gen_step": GraphRecipe(default, tuple(Rule(*rule) for rule in rules))})
    found = parse_recipe(recipe.to_toml(), "mixed.toml").resolve("gen_step", list(schemes))
    return {site: found[site].id if site in found else "none" for site in schemes}, len(rules)


@pytest.mark.parametrize("seed", range(20))
def test_rules_say_what_was_assigned(seed: int) -> None:
    generator = random.Random(seed)
    names = ("fp8", "nvfp4", "none")[: generator.choice((1, 2, 3))]
    schemes = {site: generator.choice(("fp8", *names)) for site in SITES}
    assert _read_back(schemes)[0] == schemes


def test_a_projection_that_differs_takes_one_rule_and_its_exception_another() -> None:
    schemes = {site: "none" if site.endswith("down_proj") else "nvfp4" for site in SITES}
    schemes["layers.7.mlp_moe_gen.down_proj"] = "fp8"
    assert _read_back(schemes) == (schemes, 2)


def test_a_layer_that_differs_takes_one_rule() -> None:
    schemes = {site: "none" if site.startswith(("layers.1.", "layers.11.")) else "nvfp4" for site in SITES}
    assert _read_back(schemes) == (schemes, 2)


def test_a_uniform_assignment_takes_none() -> None:
    assert compact_rules(dict.fromkeys(SITES, "fp8")) == ("fp8", [])


def test_sites_without_a_scheme_are_none() -> None:
    assert all_schemes(["a", "b"], {"b": "fp8"}) == {"a": "none", "b": "fp8"}
