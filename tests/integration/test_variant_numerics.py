"""fp16 variants against fp32, every size of the profile against the torch modules, embodiments against diffusers."""

from __future__ import annotations

from pathlib import Path

import diffusers_oracle as oracle
import numpy as np
import pytest
import torch
from graph_run import gen_inputs, run_graph, torch_engine, und_inputs, velocity
from tiny import FAMILIES, MINI

from motedge.bundle import Bundle
from motedge.errors import ContractError
from motedge.runtime.backends import open_engine
from motedge.runtime.verify import verify_bundle

TOLERANCE = 1e-5
# onnxruntime computes fp16 on a CPU in fp32 wherever it has no kernel, so that weights and a few operators round alone:
# 12 times along the residual stream of three layers, each 2**-11 at most and 0.4 of that on average, which add up as
# their root to 6.8e-4. Measured are 2.6e-4 to 5.2e-4. What a device rounds: test_sixteen_bit.py.
FP16_RELATIVE_L2 = 1e-3
FP16_COSINE = 1 - FP16_RELATIVE_L2**2


@pytest.mark.parametrize("family", ["edge", "nano"])
@pytest.mark.parametrize("variant", ["primitive-fp16", "fused-fp16"])
def test_fp16_agrees_with_fp32(family: str, variant: str, full_variants: dict[str, Path]) -> None:
    reports = verify_bundle(Bundle.open(full_variants[family]), variant=variant)
    compared = [c for report in reports for c in report.comparisons]
    assert [c.tensor for c in compared] == ["und_kv", "vision_velocity", "action_velocity", "latent"]
    for c in compared:
        assert c.relative_l2 <= FP16_RELATIVE_L2 and c.cosine >= FP16_COSINE


@pytest.mark.parametrize("family", ["edge", "nano"])
def test_fp32_agrees_with_its_samples(family: str, full_variants: dict[str, Path]) -> None:
    reports = verify_bundle(Bundle.open(full_variants[family]), variant="primitive-fp32")
    assert all(report.passed for report in reports if report.none is None)
    assert all(c.max_abs_error <= TOLERANCE for report in reports for c in report.comparisons)
    assert [report.none for report in reports if report.none] == ["left out: --samples graphs"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [2, 3, 160, 512])
def test_prefill_at_every_length_of_the_profile(
    family: str, count: int, bundles: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    bundle = Bundle.open(bundles[family])
    assert bundle.contract("und_prefill").profile["S"] == (2, 160, 512)
    inputs = und_inputs(bundle, [31 + i % 900 for i in range(count)])
    expected = run_graph(torch_engine(checkpoints[family], "und_prefill"), inputs)["und_kv"]
    result = run_graph(open_engine(bundle, "und_prefill"), inputs)["und_kv"]
    np.testing.assert_allclose(result, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("frames", "rows", "prompt"), [(2, 2, 2), (4, 16, 512), (2, 16, 33), (4, 2, 7), (3, 9, 160)])
def test_step_at_every_size_of_the_profile(
    family: str, frames: int, rows: int, prompt: int, bundles: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    bundle = Bundle.open(bundles[family])
    profile = bundle.contract("gen_step").profile
    assert (profile["T"], profile["A"], profile["U"]) == ((2, 3, 4), (2, 9, 16), (2, 160, 512))
    request = _request(frames, rows, list(range(40, 40 + prompt)), domain=8)
    shape = bundle.contract("gen_step").tensor("und_kv").shape({**bundle.contract("gen_step").sizes, "U": prompt})
    und_kv = np.random.RandomState(5).standard_normal(shape).astype(np.float32)
    inputs = gen_inputs(bundle, request, 642.0, und_kv)
    expected = run_graph(torch_engine(checkpoints[family], "gen_step"), inputs)
    result = run_graph(open_engine(bundle, "gen_step"), inputs)
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize("dims", [{"T": 5}, {"T": 1}, {"A": 17}, {"A": 1}, {"U": 513}, {"U": 1}])
def test_a_size_outside_the_profile_is_refused(dims: dict[str, int], bundles: dict[str, Path]) -> None:
    engine = open_engine(Bundle.open(bundles["edge"]), "gen_step")
    with pytest.raises(ContractError, match="exported for another range"):
        engine.context({"T": 3, "A": 9, "U": 20, "N": 36, **dims})


@pytest.mark.parametrize("family", FAMILIES)
def test_embodiments_switch_without_a_new_export(
    family: str, bundles: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    """Domains 0, 8 and 31 on the same graphs, all 64 columns, against the whole model of diffusers."""
    bundle, reference = Bundle.open(bundles[family]), oracle.load_transformer(checkpoints[family])
    actions = []
    for domain in (0, 8, 31):
        request = _request(3, 9, list(range(40, 63)), domain)
        vision, action = oracle.velocity(reference, request, 999.0)
        result = velocity(bundle, request, 999.0)
        np.testing.assert_allclose(result[0], vision.numpy(), atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(result[1], action.numpy(), atol=TOLERANCE, rtol=0)
        actions.append(result[1])
    assert np.abs(actions[0] - actions[1]).max() > 0.1 and np.abs(actions[1] - actions[2]).max() > 0.1


def _request(frames: int, rows: int, tokens: list[int], domain: int) -> oracle.Request:
    random = np.random.RandomState(frames * 100 + rows)
    vision = torch.from_numpy(random.standard_normal((48, frames, *MINI.grid)).astype(np.float32))
    action = torch.from_numpy(random.standard_normal((rows, 64)).astype(np.float32))
    return oracle.Request(tokens, vision, action, [0], [0], MINI.fps, 0, domain)
