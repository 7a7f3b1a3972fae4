"""Single operators of opset 20 in opset 17: the same values, or a refusal that names the operator."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from motedge.errors import InternalError
from motedge.export.opset17 import lower_to_opset17

X = np.random.RandomState(2).standard_normal((2, 3, 4, 6)).astype(np.float32)
# y of x, fp32 [B, 3, 4, 6], B dynamic. Constants come after the operators
EQUAL = {
    "mean": "y = ReduceMean<keepdims=0, noop_with_empty_axes=0>(x, axes) axes=-1,1",
    "mean of all": "y = ReduceMean<keepdims=1>(x)",
    "maximum": "y = ReduceMax<keepdims=1>(x, axes) axes=2",
    "equal parts": "a, b, c = Split<axis=1, num_outputs=3>(x) y = Concat<axis=3>(a, c, b)",
    "parts that are said": "a, b = Split<axis=3>(x, sizes) y = Concat<axis=3>(b, a) sizes=2,4",
    "range of a shape": "s = Shape<start=1, end=3>(x) y = Cast<to=1>(s)",
    "from the end": "s = Shape<start=-2>(x) y = Cast<to=1>(s)",
    "clamped": "s = Shape<start=-9, end=9>(x) y = Cast<to=1>(s)",
    "one dim": "s = Shape<start=0, end=1>(x) t = Squeeze(s) y = Cast<to=1>(t)",
    "cast": "s = Cast<to=10, saturate=1>(x) y = Cast<to=1, saturate=1>(s)",
    "pad": 'y = Pad<mode="reflect">(x, pads) pads=0,0,1,1,0,0,0,2',
    "pool": "y = AveragePool<kernel_shape=[2, 2], strides=[2, 2], dilations=[1, 1], count_include_pad=1>(x)",
    "the rest": "s = Relu(x) t = Mul(s, x) y = Softmax<axis=-1>(t)",
}
REFUSED = {
    "uneven parts": ("Split", "y, b, c, d = Split<axis=3, num_outputs=4>(x)"),
    "a dynamic axis": ("Split", "y, b = Split<axis=0, num_outputs=2>(x)"),
    "nothing of a shape": ("Shape", "s = Shape<start=2, end=2>(x) y = Cast<to=1>(s)"),
    "new operator": ("Gelu", "y = Gelu(x)"),
    "new form": ("IsNaN", "s = IsNaN(x) y = Cast<to=1>(s)"),
    "dilated": ("AveragePool", "y = AveragePool<kernel_shape=[2, 2], dilations=[2, 2]>(x)"),
    "wrapped": ("Pad", 'y = Pad<mode="wrap">(x, pads) pads=0,0,1,1,0,0,0,2'),
    "no reduction": ("ReduceMean", "y = ReduceMean<noop_with_empty_axes=1>(x)"),
    "another triangle": ("Trilu", "y = Trilu<upper=1>(x, k) k=1"),
}


def model(text: str) -> ir.Model:
    """The operators as a model of opset 20; what follows the last one are whole-number initializers."""
    body, _, tail = text.rpartition(")")
    constants = [part.split("=") for part in tail.split()]
    given = ", ".join(f"int64[{len(v.split(','))}] {n} = {{{v}}}" for n, v in constants)
    operators = "".join(f"{part})\n" for part in f"{body})".split(")") if part.strip())
    shape = "float[B, 3, 4, 6] x"
    source = f'<ir_version: 9, opset_import: ["" : 20]> g ({shape}) => (float[] y) <{given}> {{ {operators} }}'
    proto = onnx.parser.parse_model(source)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index:05d}/{node.op_type}"
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def run(made: ir.Model) -> np.ndarray:
    proto = ir.serde.serialize_model(made)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


@pytest.mark.parametrize("text", EQUAL.values(), ids=EQUAL)
def test_the_same_values(text: str) -> None:
    made = model(text)
    expected = run(made)
    lower_to_opset17(made)
    assert made.graph.opset_imports[""] == 17
    # onnxruntime has another kernel for AveragePool of that opset, which adds in another order
    np.testing.assert_allclose(run(made), expected, rtol=1e-6, atol=1e-7)
    names = [node.name for node in made.graph]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("operator", "text"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_form_is_refused_by_name(operator: str, text: str) -> None:
    with pytest.raises(InternalError, match=rf"operator {operator} \(n0"):
        lower_to_opset17(model(text))


@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_the_causal_mask(tokens: int) -> None:
    """Scores [B, 3, 4, 6] give way to a square as large as the input's first dim."""
    text = """<ir_version: 9, opset_import: ["" : 20]> g (float[S, S] x) => (float[S, S] y)
        <bool true = {1}, int64 k = {1}, float low = {-inf}> {
        s = Shape<start=0, end=1>(x)
        square = Concat<axis=0>(s, s)
        ones = Expand(true, square)
        mask = Trilu<upper=1>(ones, k)
        masked = Where(mask, low, x)
        y = Softmax<axis=-1>(masked) }"""
    proto = onnx.parser.parse_model(text.replace("{-inf}", "{0}"))
    low = next(t for t in proto.graph.initializer if t.name == "low")
    low.CopyFrom(onnx.numpy_helper.from_array(np.array(-np.inf, np.float32), "low"))
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index:05d}/{node.op_type}"
    made = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    x = np.random.RandomState(tokens).standard_normal((tokens, tokens)).astype(np.float32)
    results = []
    for lower in (False, True):
        if lower:
            lower_to_opset17(made)
        data = ir.serde.serialize_model(made).SerializeToString()
        results.append(onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0])
    np.testing.assert_array_equal(*results)
    assert np.isfinite(results[0]).all() and results[0].sum() == pytest.approx(tokens)
    kinds = [node.op_type for node in made.graph]
    assert "Trilu" not in kinds and "Expand" not in kinds
    values = [v.const_value.numpy() for v in made.graph.initializers.values()]
    assert all(np.isfinite(value).all() for value in values)
