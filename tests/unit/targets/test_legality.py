"""What may run where: every refusal with its source, every doubt as a caution."""

from __future__ import annotations

import dataclasses

import pytest

from motedge.errors import HostError
from motedge.quant.recipe import builtin_recipes
from motedge.quant.schemes import OPSET_BLOCKED, OPSET_FP4, SCHEMES, quantized_opset
from motedge.runtime.backends.tensorrt.versions import RTX, RTX_CAPABILITIES
from motedge.targets.catalog import SoftwareRow, Target, load_target, precisions, targets
from motedge.targets.legality import (
    Candidate,
    EngineLibrary,
    Legality,
    engine_libraries,
    find_library,
    judge,
)

ORIN, THOR, ADA, SPARK, CPU, H200 = (
    load_target(name)
    for name in ("jetson-orin-nano-8gb", "jetson-agx-thor-t5000", "rtx-4090", "dgx-spark", "cpu", "h200")
)


def ask(
    target: Target, dialect: str, dtype: str, *schemes: str, tensorrt: str | None = None, opset: int | None = None
) -> Legality:
    """A graph of the dialect's own opset, or of the one that its schemes need."""
    chosen = tuple(SCHEMES[name] for name in schemes)
    made = quantized_opset({"fused": 23, "primitive": 20}[dialect], dialect, dtype, chosen) if opset is None else opset
    return judge(target, find_library(target, tensorrt), Candidate(dialect, dtype, made, chosen))


def said(legality: Legality) -> str:
    return "; ".join(reason.what for reason in legality.reasons)


@pytest.mark.parametrize(
    ("target", "scheme", "words"),
    [(ORIN, "fp8", "8.9"), (ORIN, "nvfp4", "10.0"), (ADA, "nvfp4", "10.0"), (H200, "nvfp4-w4a16", "10.0")],
    ids=["orin fp8", "orin nvfp4", "ada nvfp4", "hopper nvfp4"],
)
def test_a_format_that_the_gpu_lacks(target: Target, scheme: str, words: str) -> None:
    found = ask(target, "fused", "fp16", scheme)
    assert not found.legal and words in said(found) and str(target.compute_capability) in said(found)
    assert all(reason.source for reason in found.reasons)


@pytest.mark.parametrize("target", targets().values(), ids=lambda target: target.id)
def test_every_recipe_is_judged_as_the_schemes_and_the_formats_say(target: Target) -> None:
    """The least compute capability is written down with the schemes and with the formats; both must hold here."""
    sm = target.compute_capability
    for recipe in builtin_recipes().values():
        dialect, dtype = ("primitive", "fp32") if sm is None else ("fused", "fp16")
        found = ask(target, dialect, dtype, *(scheme.id for scheme in recipe.schemes()))
        expected = sm is None or all(sm >= scheme.least_sm for scheme in recipe.schemes())
        assert found.legal == expected, (recipe.id, said(found))
        assert expected == all(precisions()[scheme.weight].legal(target) for scheme in recipe.schemes())


@pytest.mark.parametrize("version", ["10.3", "10.3.0.30"])
def test_fused_graphs_need_a_newer_tensorrt(version: str) -> None:
    found = ask(ORIN, "fused", "fp16", tensorrt=version)
    assert "fused" in said(found) and "opset 23" in said(found)
    assert ask(ORIN, "primitive", "fp16", tensorrt=version).legal
    assert ask(ORIN, "fused", "fp16").legal


def test_int4_on_the_oldest_tensorrt_is_a_doubt_and_no_refusal() -> None:
    found = ask(ORIN, "primitive", "fp16", "int4-awq", tensorrt="10.3")
    assert found.legal and any("INT4 was not verified" in reason.what for reason in found.cautions)
    assert not ask(ORIN, "fused", "fp16", "int4-awq").cautions
    # Any other graph of opset 21 is refused there
    assert not ask(ORIN, "primitive", "fp16", tensorrt="10.3", opset=21).legal


def test_there_is_no_fused_attention_in_fp32() -> None:
    assert "attention" in said(ask(THOR, "fused", "fp32"))
    slow = ask(THOR, "primitive", "fp32")
    assert slow.legal and "slower" in slow.cautions[0].what


def test_the_emulation_is_for_cpus() -> None:
    assert "emulation" in said(ask(THOR, "primitive", "fp32", "nvfp4"))
    found = ask(CPU, "primitive", "fp32", "nvfp4")
    assert found.legal and "emulated" in found.cautions[0].what
    assert "primitive-fp32" in said(ask(CPU, "primitive", "fp16", "nvfp4"))


def test_cpus_run_no_bf16_and_nothing_that_no_backend_takes() -> None:
    assert "bf16" in said(ask(CPU, "fused", "bf16"))
    assert "onnxruntime runs" in said(ask(CPU, "fused", "fp32"))
    assert ask(CPU, "fused", "fp16").legal and ask(CPU, "primitive", "fp32", "int8-sq").legal


def test_a_gpu_that_the_builder_does_not_know() -> None:
    library = EngineLibrary("tensorrt-rtx", "1.7.1.116", "test", RTX)
    found = judge(H200, library, Candidate("fused", "fp16", 23))
    assert "9.0" in said(found) and all(name in said(found) for name in RTX_CAPABILITIES)
    assert judge(SPARK, library, Candidate("fused", "fp16", 23)).legal


def test_opsets_are_those_that_quantize_writes() -> None:
    four, floats = SCHEMES["int4-awq"], SCHEMES["nvfp4"]
    assert quantized_opset(20, "primitive", "fp16", [four]) == OPSET_BLOCKED
    assert quantized_opset(20, "primitive", "fp16", [floats]) == OPSET_FP4
    assert quantized_opset(20, "primitive", "fp32", [floats]) == OPSET_BLOCKED
    assert quantized_opset(20, "primitive", "fp16", [SCHEMES["fp8"]]) == 20
    assert quantized_opset(23, "fused", "bf16", [four]) == 23


def test_libraries_are_those_of_the_releases() -> None:
    assert find_library(ORIN).dialects[0] == "fused"
    assert find_library(ORIN, "10.3").dialects == ("primitive",)
    assert find_library(THOR, "11").version == "11.4.1"
    assert find_library(SPARK).name == "tensorrt-rtx" and find_library(CPU).row is None
    for target in targets().values():
        assert find_library(target) in engine_libraries(target)


@pytest.mark.parametrize("version", ["9.9", "10", "8.6"])
def test_a_tensorrt_that_no_release_brings(version: str) -> None:
    if version == "10":
        assert find_library(ORIN, version).version.startswith("10.")  # type: ignore[union-attr]
        return
    with pytest.raises(HostError, match="no release of jetson-orin-nano-8gb has TensorRT") as caught:
        find_library(ORIN, version)
    assert "10.3.0.30" in str(caught.value)


def test_a_device_whose_releases_have_no_supported_library() -> None:
    old = SoftwareRow("JetPack 4.6", None, None, "8.2.1", "3.6", "vendor", "of this test")
    with pytest.raises(HostError, match="names no supported engine library"):
        find_library(dataclasses.replace(ORIN, software=(old,)))
