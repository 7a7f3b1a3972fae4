"""Quantizing bundles with a reasoner: its graphs by their weights, und with those of und_prefill in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny import MINI

import motedge
from motedge.bundle import Bundle
from motedge.checkpoint.reader import Checkpoint
from motedge.cli.main import main
from motedge.errors import UsageError
from motedge.export.extras import find_graph
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.torch_engine import TorchEngine
from motedge.export.variants import REFERENCE, parse_variants
from motedge.quant.fake_quant import fake_quantized
from motedge.quant.parameters import SiteParameters
from motedge.quant.plan import make_plan
from motedge.quant.recipe import load_recipe, parse_recipe
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import Engine
from motedge.runtime.reasoner.sampling import SamplingOptions
from motedge.runtime.samples import Sample

BASE, RECIPE = "primitive-fp32", "fp8-w8a16"
# Of an fp32 graph against the same numbers in torch
TOLERANCE = 1e-5
REASONER = ("und", "vision_encoder")
HEAD = 'schema = "motedge.recipe/v1"\nid = "mine"\nrevision = 1\nsummary = "for a test"\n'


@pytest.fixture(scope="module", params=("edge", pytest.param("nano", marks=pytest.mark.slow)))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def source(family: str, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("source") / family
    options = ExportOptions(MINI, parse_variants(BASE), "graphs", ("reasoner",))
    export_bundle(Checkpoint.open(checkpoints[family]), out, options)
    return Bundle.open(out)


@pytest.fixture(scope="module")
def quantized(source: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("quantized") / "bundle"
    assert main(["quantize", str(source.root), "--recipe", RECIPE, "--out", str(out)]) == 0
    return Bundle.open(out)


def outputs(bundle: Bundle, engine: Engine) -> Mapping[str, np.ndarray]:
    """What a graph makes of the bundle's own sample."""
    contract = engine.contract
    arrays = Sample.of(bundle, contract.graph).arrays(bundle)
    dims = {}
    for spec in contract.inputs:
        sizes = zip(spec.dims, arrays[f"in.{spec.name}"].shape, strict=True)
        dims.update({name: size for name, size in sizes if isinstance(name, str) and name not in contract.sizes})
    context = engine.context(dims)
    for spec in contract.inputs:
        context.set_input(spec.name, np.ascontiguousarray(arrays[f"in.{spec.name}"], np.float32))
    context.run()
    return {spec.name: np.array(context.output(spec.name)) for spec in contract.outputs}


@pytest.mark.parametrize("graph", REASONER)
def test_the_graph_computes_what_its_numbers_say(
    source: Bundle, quantized: Bundle, family: str, checkpoints: dict[str, Path], graph: str
) -> None:
    plan = make_plan(source, load_recipe(RECIPE))
    known = {site: SiteParameters(scheme) for site, scheme in plan.schemes[graph].items()}
    module = find_graph(graph).module(Checkpoint.open(checkpoints[family]), MINI, REFERENCE)
    plain = outputs(source, TorchEngine(module, source.contract(graph)))
    with fake_quantized(module, known, torch.float32):
        expected = outputs(source, TorchEngine(module, source.contract(graph)))
    engine = open_engine(quantized, graph, variant=BASE, recipe=RECIPE)
    found = outputs(quantized, engine)
    engine.close()
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= TOLERANCE * max(1.0, np.abs(value).max()), name
        assert np.linalg.norm(found[name] - plain[name]) > 1e-3 * np.linalg.norm(plain[name]), name


def test_und_takes_what_und_prefill_has_written(source: Bundle, quantized: Bundle) -> None:
    quantized.check_files()
    for bundle, variant in ((source, BASE), (quantized, f"{BASE}-{RECIPE}")):
        lent = set(bundle.variant("und_prefill", variant).weights) & set(bundle.variant("und", variant).weights)
        assert lent, variant
        last = f"layers.{bundle.manifest.model['config']['num_hidden_layers'] - 1}."
        model = onnx.load(str(bundle.path(bundle.variant("und", variant).file)), load_external_data=False)
        prefill = onnx.load(str(bundle.path(bundle.variant("und_prefill", variant).file)), load_external_data=False)
        places = {
            t.name: {e.key: e.value for e in t.external_data}
            for t in model.graph.initializer
            if t.external_data and not t.name.endswith("norm.weight")
        }
        for tensor in prefill.graph.initializer:
            if tensor.name in places:
                assert places[tensor.name] == {e.key: e.value for e in tensor.external_data}
        own = {name for name, place in places.items() if f"graphs/{place['location']}" not in lent}
        assert own and all(name.startswith((last, "lm_head")) for name in own), own


def test_the_reasoner_writes_from_it(quantized: Bundle) -> None:
    image = np.random.RandomState(3).randint(0, 256, (64, 96, 3)).astype(np.uint8)
    with motedge.load_reasoner(quantized.root, recipe=RECIPE) as reasoner:
        reply = list(reasoner.ask("what is this?", [image], options=SamplingOptions(max_new_tokens=3)))[-1]
    assert len(reply.token_ids) == 3


def test_graphs_that_a_recipe_leaves_alone_stay(source: Bundle, family: str, tmp_path: Path) -> None:
    """und stays with the weights that it shares with the unquantized und_prefill."""
    text = HEAD + '[und_prefill]\ndefault = "int8-w8a16"\n[vision_encoder]\ndefault = "fp8-w8a16"\n'
    last = "*.layers.-1.*" if family == "edge" else "blocks.-1.*"
    (tmp_path / "mine.toml").write_text(f'{text}[[vision_encoder.rules]]\nmatch = "{last}"\nscheme = "none"\n')
    options = ["--recipe", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "b")]
    assert main(["quantize", str(source.root), *options]) == 0
    bundle = Bundle.open(tmp_path / "b")
    bundle.check_files()
    assert bundle.graph("und") == source.graph("und")
    assert set(bundle.graph("vision_encoder").variants) == {f"{BASE}-mine"}
    assert bundle.variant("vision_encoder", f"{BASE}-mine").facts["sites"].keys() == {"fp8-w8a16"}
    assert main(["verify", str(bundle.root), "--recipe", "mine"]) == 0


@pytest.mark.parametrize("graph", REASONER)
@pytest.mark.parametrize("scheme", ["fp8", "int8-sq", "int4-awq", "nvfp4"])
def test_schemes_with_calibration_are_refused(source: Bundle, graph: str, scheme: str) -> None:
    recipe = parse_recipe(f'{HEAD}[{graph}]\ndefault = "{scheme}"\n', "mine.toml")
    with pytest.raises(UsageError, match=f"can't quantize {graph} by {scheme}") as caught:
        make_plan(source, recipe)
    assert "fp8-w8a16" in str(caught.value) and "und_prefill and gen_step only" in str(caught.value)
