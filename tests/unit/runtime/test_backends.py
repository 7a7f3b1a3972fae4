"""Choosing a variant, and what stands between a bundle and onnxruntime."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from motedge.bundle import Bundle, Variant
from motedge.errors import BundleError, ContractError, HostError, UsageError
from motedge.runtime.backends import choose_variant, open_engine, require_recipe
from motedge.runtime.engine import EngineOptions

GRAPH = "gen_step"
DIMS = {"T": 3, "A": 5, "U": 5, "N": 17}


def _bundle_with(root, *ids: str) -> Bundle:
    """The bundle with these variants of gen_step, all on the one file that there is."""
    bundle = Bundle.open(root)
    file = bundle.variant(GRAPH, "primitive-fp32").file
    variants = {}
    for name in ids:
        dialect, dtype, *recipe = name.split("-")
        variants[name] = Variant(file, (), dialect, dtype, 17, recipe=recipe[0] if recipe else None)
    graphs = {**bundle.manifest.graphs, GRAPH: dataclasses.replace(bundle.graph(GRAPH), variants=variants)}
    return Bundle(bundle.root, dataclasses.replace(bundle.manifest, graphs=graphs))


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [
        (("fused-bf16", "primitive-fp16", "primitive-fp32"), "primitive-fp32"),
        (("fused-bf16", "fused-fp16", "primitive-fp16"), "primitive-fp16"),
        (("fused-bf16", "fused-fp16"), "fused-fp16"),
        (("primitive-fp32-int8", "fused-fp16"), "fused-fp16"),
    ],
)
def test_the_first_that_runs_is_chosen(onnx_bundle, ids, chosen) -> None:
    assert choose_variant(_bundle_with(onnx_bundle, *ids), GRAPH) == chosen


def test_an_explicit_variant_is_taken_or_refused(onnx_bundle) -> None:
    bundle = _bundle_with(onnx_bundle, "primitive-fp32", "primitive-fp32-int8", "fused-bf16")
    assert choose_variant(bundle, GRAPH, variant="primitive-fp32-int8") == "primitive-fp32-int8"
    with pytest.raises(UsageError, match="no bf16 kernels"):
        choose_variant(bundle, GRAPH, variant="fused-bf16")
    with pytest.raises(BundleError, match="did you mean 'primitive-fp32'"):
        choose_variant(bundle, GRAPH, variant="primitve-fp32")


@pytest.mark.parametrize(
    ("ids", "variant", "recipe", "chosen"),
    [
        (("primitive-fp32", "primitive-fp32-fp8"), None, "fp8", "primitive-fp32-fp8"),
        (("primitive-fp16-fp8", "primitive-fp32-fp8"), None, None, "primitive-fp32-fp8"),
        (("primitive-fp16-fp8", "primitive-fp32-fp8"), "primitive-fp16", "fp8", "primitive-fp16-fp8"),
        # A bundle's only recipe needs no naming, with a variant either
        (("primitive-fp16-fp8", "primitive-fp32-fp8"), "primitive-fp16", None, "primitive-fp16-fp8"),
        (("primitive-fp32-fp8", "primitive-fp32-int4"), None, "int4", "primitive-fp32-int4"),
        # A graph that the recipe left alone
        (("primitive-fp32",), None, "fp8", "primitive-fp32"),
        (("primitive-fp32", "primitive-fp16"), "primitive-fp16", "fp8", "primitive-fp16"),
    ],
)
def test_a_recipe_chooses_among_quantized_variants(onnx_bundle, ids, variant, recipe, chosen) -> None:
    assert choose_variant(_bundle_with(onnx_bundle, *ids), GRAPH, variant=variant, recipe=recipe) == chosen


def test_several_recipes_and_none_named(onnx_bundle) -> None:
    bundle = _bundle_with(onnx_bundle, "primitive-fp32-fp8", "primitive-fp32-int4")
    with pytest.raises(UsageError, match="quantized in several ways") as caught:
        choose_variant(bundle, GRAPH)
    assert "fp8, int4" in str(caught.value)


def test_an_unknown_recipe(onnx_bundle) -> None:
    bundle = _bundle_with(onnx_bundle, "primitive-fp32", "primitive-fp32-int8")
    require_recipe(bundle, "int8")
    with pytest.raises(UsageError, match="did you mean 'int8'"):
        require_recipe(bundle, "int9")
    with pytest.raises(UsageError, match="motedge quantize"):
        require_recipe(_bundle_with(onnx_bundle, "primitive-fp32"), "fp8")


def test_nothing_that_runs(onnx_bundle) -> None:
    with pytest.raises(BundleError, match="no bf16 kernels") as caught:
        choose_variant(_bundle_with(onnx_bundle, "fused-bf16"), GRAPH)
    assert "--variants primitive-fp32" in str(caught.value)


def test_an_unknown_backend(onnx_bundle) -> None:
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'"):
        open_engine(Bundle.open(onnx_bundle), GRAPH, backend="onnxruntim")


def test_an_unknown_graph(onnx_bundle) -> None:
    with pytest.raises(BundleError, match="did you mean 'gen_step'"):
        open_engine(Bundle.open(onnx_bundle), "gen_steps")


def test_a_changed_file_is_not_loaded(onnx_bundle) -> None:
    bundle = Bundle.open(onnx_bundle)
    path = onnx_bundle / bundle.variant(GRAPH, "primitive-fp32").file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"differs from what was exported|not an ONNX model"):
        open_engine(bundle, GRAPH)


def test_data_outside_the_bundle_is_not_read(onnx_bundle, tmp_path, seal) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "secret").write_bytes(bytes(4))
    path = onnx_bundle / "graphs/gen_step.primitive-fp32.onnx"
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == "third")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    path.write_bytes(model.SerializeToString())
    seal(onnx_bundle)
    with pytest.raises(BundleError, match="outside its folder"):
        open_engine(Bundle.open(onnx_bundle), GRAPH)


def test_a_file_that_is_no_model(onnx_bundle, seal) -> None:
    path = onnx_bundle / "graphs/gen_step.primitive-fp32.onnx"
    path.write_bytes(b"\xff" * 100)
    seal(onnx_bundle)
    with pytest.raises(BundleError, match="not an ONNX model"):
        open_engine(Bundle.open(onnx_bundle), GRAPH)
    # Well-formed as a message, yet not a graph
    path.write_bytes(b"")
    seal(onnx_bundle)
    with pytest.raises(BundleError, match="can't load graph 'gen_step'"):
        open_engine(Bundle.open(onnx_bundle), GRAPH)


def test_an_opset_of_the_future(onnx_bundle, seal) -> None:
    onnx = pytest.importorskip("onnx")
    path = onnx_bundle / "graphs/gen_step.primitive-fp32.onnx"
    model = onnx.load(path)
    model.opset_import[0].version = 99
    path.write_bytes(model.SerializeToString())
    seal(onnx_bundle)
    with pytest.raises(HostError, match="upgrade onnxruntime"):
        open_engine(Bundle.open(onnx_bundle), GRAPH)


def test_a_graph_that_is_not_as_its_contract(onnx_bundle, seal) -> None:
    path = onnx_bundle / "contracts/gen_step.json"
    contract = json.loads(path.read_text())
    contract["inputs"][0]["dtype"] = "int64"
    path.write_text(json.dumps(contract))
    seal(onnx_bundle)
    with pytest.raises(BundleError, match=r"inputs of .* differ from the contract"):
        open_engine(Bundle.open(onnx_bundle), GRAPH)


def _take_fp16_kv(root) -> None:
    """Makes gen_step take K and V in fp16."""
    onnx = pytest.importorskip("onnx")
    path = root / "graphs/gen_step.primitive-fp32.onnx"
    model = onnx.load(path)
    value = next(i for i in model.graph.input if i.name == "und_kv")
    value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for node in model.graph.node:
        node.input[:] = ["kv32" if name == "und_kv" else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["und_kv"], ["kv32"], to=onnx.TensorProto.FLOAT))
    onnx.save(model, path)


def test_kv_travel_in_the_dtype_of_the_generator(onnx_bundle, tables, model, gen_inputs, numpy_engine, seal) -> None:
    from motedge.runtime.denoise import DenoiseLoop, SamplerSettings

    _take_fp16_kv(onnx_bundle)
    seal(onnx_bundle)
    bundle = _bundle_with(onnx_bundle, "primitive-fp16")
    gen = open_engine(bundle, GRAPH)
    assert gen.dtype == "fp16"
    context = gen.context(DIMS)
    with pytest.raises(ContractError, match="expected: float16"):
        context.set_input("und_kv", np.zeros((2, 2, 1, 5, 16), np.float32))
    loop = DenoiseLoop(open_engine(bundle, "und_prefill"), gen, tables, model.config)
    plain = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine(GRAPH), tables, model.config)
    result, expected = (x.run(gen_inputs(), SamplerSettings()) for x in (loop, plain))
    np.testing.assert_allclose(result.action, expected.action, atol=1e-3, rtol=0)
    assert loop.prompts.get(gen_inputs().cond_tokens).dtype == np.float16


@pytest.fixture
def engine(onnx_bundle):
    engine = open_engine(Bundle.open(onnx_bundle), GRAPH, options=EngineOptions(threads=1))
    yield engine
    engine.close()


def _inputs(engine, dims=DIMS) -> dict[str, np.ndarray]:
    random, sizes = np.random.RandomState(0), {**engine.contract.sizes, **dims}
    return {s.name: random.standard_normal(s.shape(sizes)).astype(np.float32) for s in engine.contract.inputs}


def _bound(engine, inputs, dims=DIMS):
    context = engine.context(dims)
    for name, value in inputs.items():
        context.set_input(name, value)
    return context


def test_runs_and_equals_numpy(engine, model) -> None:
    assert engine.dtype == "fp32"
    inputs = _inputs(engine)
    context = _bound(engine, inputs)
    context.run()
    for spec, expected in zip(engine.contract.outputs, model.functions[GRAPH](inputs)):
        np.testing.assert_allclose(context.output(spec.name), expected, rtol=1e-5, atol=1e-6)


def test_inputs_are_read_where_they_lie(engine, model) -> None:
    """Changing a bound array is enough; the output's buffer stays the same memory."""
    inputs = _inputs(engine)
    context = _bound(engine, inputs)
    output = context.output("vision_velocity")
    context.run()
    before = output.copy()
    inputs["vision"] *= 2
    inputs["t"][0] = 500
    context.run()
    assert context.output("vision_velocity") is output
    assert not np.array_equal(before, output)
    np.testing.assert_allclose(output, model.functions[GRAPH](inputs)[0], rtol=1e-5, atol=1e-6)


def test_a_new_array_is_bound_and_kept_alive(engine, model) -> None:
    inputs = _inputs(engine)
    context = _bound(engine, inputs)
    replacement = inputs["und_kv"] + 1
    context.set_input("und_kv", replacement.copy())
    context.run()
    expected = model.functions[GRAPH]({**inputs, "und_kv": replacement})[0]
    np.testing.assert_allclose(context.output("vision_velocity"), expected, rtol=1e-5, atol=1e-6)


def test_contexts_of_other_sizes_live_side_by_side(engine, model) -> None:
    other = {"T": 2, "A": 3, "U": 12, "N": 11}
    pairs = [(_inputs(engine, d), d) for d in (DIMS, other)]
    contexts = [_bound(engine, i, d) for i, d in pairs]
    for context in contexts * 2:
        context.run()
    for context, (inputs, _) in zip(contexts, pairs):
        np.testing.assert_allclose(
            context.output("action_velocity"), model.functions[GRAPH](inputs)[1], rtol=1e-5, atol=1e-6
        )


def test_the_loop_on_onnxruntime_equals_the_loop_on_numpy(onnx_bundle, numpy_engine, tables, model, gen_inputs) -> None:
    from motedge.runtime.denoise import DenoiseLoop, SamplerSettings

    bundle = Bundle.open(onnx_bundle)
    ours = DenoiseLoop(open_engine(bundle, "und_prefill"), open_engine(bundle, GRAPH), tables, model.config)
    plain = DenoiseLoop(numpy_engine("und_prefill"), numpy_engine(GRAPH), tables, model.config)
    for changes in ({}, {"seed": 8}, {"cond_tokens": np.arange(12)}):
        a, b = (loop.run(gen_inputs(**changes), SamplerSettings()) for loop in (ours, plain))
        np.testing.assert_allclose(a.vision, b.vision, atol=1e-5, rtol=0)
        np.testing.assert_allclose(a.action, b.action, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("visio", lambda v: v, "no input 'visio'"),
        ("vision_velocity", lambda v: v, "no input 'vision_velocity'"),
        ("vision", lambda v: v.astype(np.float64), "expected: float32"),
        ("vision", lambda v: v[:, :2].copy(), "got: .*2, 2, 3, 4"),
        ("vision", lambda v: np.asfortranarray(v), "C order"),
        ("vision", lambda v: v.tolist(), "a numpy array"),
    ],
)
def test_refuses_arrays(engine, name, change, message) -> None:
    context = engine.context(DIMS)
    with pytest.raises(ContractError, match=message):
        context.set_input(name, change(_inputs(engine)["vision"]))


def test_refuses_a_run_without_all_inputs(engine) -> None:
    inputs = _inputs(engine)
    del inputs["t"]
    with pytest.raises(ContractError, match=r"\['t'\]"):
        _bound(engine, inputs).run()


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({**DIMS, "U": 13}, "another range of U"),
        ({**DIMS, "T": 1}, "another range of T"),
        ({"T": 3, "A": 5, "U": 5}, "not known"),
    ],
)
def test_refuses_sizes(engine, dims, message) -> None:
    with pytest.raises(ContractError, match=message):
        engine.context(dims)


def test_an_output_by_a_wrong_name(engine) -> None:
    with pytest.raises(ContractError, match="no output 'velocity'"):
        engine.context(DIMS).output("velocity")


def test_closed(engine) -> None:
    engine.close()
    with pytest.raises(ContractError, match="closed"):
        engine.context(DIMS)


def test_a_failure_inside_the_library_names_the_graph(engine) -> None:
    context = _bound(engine, _inputs(engine))
    short = np.zeros((3, 4), np.float32)
    # Past the check of shapes, as a wrong contract would be
    context._binding.bind_input("action_in_weight", "cpu", 0, np.float32, short.shape, short.ctypes.data)
    with pytest.raises(HostError, match="onnxruntime failed in graph 'gen_step'"):
        context.run()


def test_options() -> None:
    with pytest.raises(UsageError, match="threads"):
        EngineOptions(threads=0)
