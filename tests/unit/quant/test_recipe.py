"""Recipes: what a file may say, who decides where rules overlap, and which devices can run the result."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motedge.errors import UsageError
from motedge.quant.recipe import (
    SCHEMA,
    GraphRecipe,
    Recipe,
    Rule,
    builtin_recipes,
    load_recipe,
    parse_recipe,
)
from motedge.quant.schemes import SCHEMES
from motedge.targets.catalog import load_target

SITES = [f"layers.{layer}.{name}" for layer in range(3) for name in ("self_attn.add_q_proj", "mlp_moe_gen.up_proj")]
HEAD = f'schema = "{SCHEMA}"\nid = "mine"\nrevision = 1\nsummary = "for a test"\n'
SCHEME_NAMES = st.sampled_from([*SCHEMES, "none"])


def _recipe(*rules: tuple[str, str], default: str = "fp8") -> Recipe:
    return Recipe("mine", 1, "for a test", {"gen_step": GraphRecipe(default, tuple(Rule(*rule) for rule in rules))})


def _ids(recipe: Recipe) -> dict[str, str]:
    return {site: scheme.id for site, scheme in recipe.resolve("gen_step", SITES).items()}


def test_the_first_rule_that_matches_decides() -> None:
    found = _ids(_recipe(("layers.0.*", "none"), ("*.mlp_moe_gen.*", "nvfp4")))
    assert [name for name in SITES if name not in found] == SITES[:2]
    assert {found[name] for name in SITES[2:] if "mlp" in name} == {"nvfp4"}
    assert {found[name] for name in SITES[2:] if "attn" in name} == {"fp8"}


def test_layers_may_be_counted_from_the_end() -> None:
    found = _ids(_recipe(("layers.-1.*", "int8-w8a16"), ("layers.-3.*", "none")))
    assert found == {**dict.fromkeys(SITES[2:4], "fp8"), **dict.fromkeys(SITES[4:], "int8-w8a16")}


@pytest.mark.parametrize(
    ("prefix", "pattern"), [("model.visual.encoder.layers", "*.layers.-1.*"), ("blocks", "blocks.-1.*")]
)
def test_layers_of_a_vision_encoder_may_be_counted_from_the_end(prefix: str, pattern: str) -> None:
    sites = [f"{prefix}.{layer}.mlp.fc1" for layer in range(12)]
    rules = (Rule(pattern, "none"),)
    recipe = Recipe("mine", 1, "for a test", {"vision_encoder": GraphRecipe("int8-w8a16", rules)})
    assert list(recipe.resolve("vision_encoder", sites)) == sites[:-1]


@given(st.lists(st.tuples(st.sampled_from(["*", "layers.1.*", "*up_proj", "layers.-1.*"]), SCHEME_NAMES), max_size=4))
@settings(max_examples=60, deadline=None)
def test_toml_round_trip_and_rule_order(rules: list[tuple[str, str]]) -> None:
    recipe = _recipe(*rules)
    again = parse_recipe(recipe.to_toml(), "round trip")
    assert again == recipe and again.fingerprint() == recipe.fingerprint()
    try:
        found = _ids(recipe)
    except UsageError as error:
        assert "never decides" in str(error)
        return
    for site in SITES:
        matching = [scheme for pattern, scheme in rules if _plain_match(pattern, site)]
        expected = matching[0] if matching else "fp8"
        assert found.get(site, "none") == expected


def _plain_match(pattern: str, site: str) -> bool:
    return {
        "*": True,
        "layers.1.*": site.startswith("layers.1."),
        "*up_proj": site.endswith("up_proj"),
        "layers.-1.*": site.startswith("layers.2."),
    }[pattern]


def test_a_rule_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="matches nothing") as caught:
        _ids(_recipe(("*.mlp_moe_gen.up_porj", "none")))
    assert "layers.*.mlp_moe_gen.up_proj" in str(caught.value)
    with pytest.raises(UsageError, match="never decides"):
        _ids(_recipe(("*", "fp8"), ("layers.0.*", "none")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "is not TOML"),
        ('id = "mine"', "is not a recipe"),
        (HEAD, "quantizes nothing"),
        (HEAD + '[gen_step]\ndefault = "none"', "quantizes nothing"),
        (HEAD + '[gen_stepp]\ndefault = "fp8"', "did you mean 'gen_step'"),
        (HEAD + '[gen_step]\ndefalt = "fp8"', "did you mean 'default'"),
        (HEAD + '[gen_step]\ndefault = "fp9"', "did you mean 'fp8'"),
        (HEAD + "[gen_step]\ndefault = 8", "wrong kind"),
        (HEAD + "[gen_step]\nrules = []", "lacks its default"),
        (HEAD + '[gen_step]\ndefault = "fp8"\nrules = 3', "wrong kind"),
        (HEAD + '[gen_step]\ndefault = "fp8"\n[[gen_step.rules]]\nmatch = "*"', "lacks a field"),
        (
            HEAD + '[gen_step]\ndefault = "fp8"\n[[gen_step.rules]]\nmatch = "*"\nshceme = "fp8"',
            "did you mean 'scheme'",
        ),
        (HEAD.replace('"mine"', '"Mine"') + '[gen_step]\ndefault = "fp8"', "id does not fit"),
        (HEAD.replace('"mine"', '"fp16"') + '[gen_step]\ndefault = "fp8"', "id does not fit"),
        (HEAD.replace("revision = 1", "revision = 0") + '[gen_step]\ndefault = "fp8"', "revision does not fit"),
        (HEAD.replace("revision = 1\n", "") + '[gen_step]\ndefault = "fp8"', "lacks a field"),
    ],
)
def test_what_a_file_may_not_say(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_recipe(text, "mine.toml")


def test_loading_by_name_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + '[gen_step]\ndefault = "int8-sq"\n')
    assert load_recipe(str(file)).id == "mine"
    with pytest.raises(UsageError, match="did you mean 'nvfp4'"):
        load_recipe("nvpf4")
    with pytest.raises(UsageError, match="can't read the recipe"):
        load_recipe(str(tmp_path / "absent.toml"))


def test_the_built_in_recipes() -> None:
    known = builtin_recipes()
    assert set(known) == {"fp8", "int8-sq", "int4-awq", "nvfp4", "w8a16", "fp8-w8a16", "nvfp4-w4a16", "mixed"}
    for recipe in known.values():
        assert recipe.resolve("gen_step", SITES), recipe.id
        # No calibration runs these
        for graph in ("und", "vision_encoder"):
            alone = recipe.resolve(graph, SITES).values()
            assert alone and not any(scheme.needs_calibration for scheme in alone), recipe.id
    mixed = {site: scheme.id for site, scheme in known["mixed"].resolve("gen_step", SITES).items()}
    assert [mixed[site] for site in SITES] == ["fp8", "fp8", "fp8", "nvfp4", "fp8", "fp8"]


@pytest.mark.parametrize(
    ("recipe", "target", "runs"),
    [
        ("fp8", "jetson-agx-orin-64gb", False),
        ("int8-sq", "jetson-agx-orin-64gb", True),
        ("fp8", "rtx-4090", True),
        ("nvfp4", "h100", False),
        ("mixed", "h200", False),
        ("nvfp4", "jetson-agx-thor-t5000", True),
        ("nvfp4", "cpu", True),
    ],
)
def test_which_device_runs_what(recipe: str, target: str, runs: bool) -> None:
    if runs:
        load_recipe(recipe).check_target(load_target(target))
        return
    with pytest.raises(UsageError, match=f"{recipe!r} can't run on {target}") as caught:
        load_recipe(recipe).check_target(load_target(target))
    assert "w8a16" in str(caught.value)
