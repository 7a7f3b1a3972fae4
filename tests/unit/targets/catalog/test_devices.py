"""The devices of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from motedge.errors import UsageError
from motedge.quant.schemes import LEAST_SM
from motedge.targets.catalog import Figure, Target, legal_precisions, load_target, precisions, targets

# Compute capabilities that TensorRT for RTX makes engines for
RTX_CAPABILITIES = (7.5, 8.0, 8.6, 8.9, 12.0, 12.1)


def _figures(target: Target) -> Iterator[tuple[str, Figure]]:
    yield "capability", target.capability
    yield "memory_gb", target.memory_gb
    yield "available_gb", target.available_gb
    yield "bandwidth_gbps", target.bandwidth_gbps
    yield from target.dense_tflops.items()
    for mode in target.power_modes:
        yield mode.name, mode.power_w
        for figure in (mode.compute_scale, mode.bandwidth_scale, mode.gpu_clock_mhz):
            if figure is not None:
                yield mode.name, figure


def test_every_device_says_where_its_figures_are_from() -> None:
    known = targets()
    assert len(known) == 18
    for name, target in known.items():
        assert target.id == name and target.name and target.software
        for what, figure in _figures(target):
            assert len(figure.source) > 5, (name, what)
            assert figure.known or figure.mark == "unknown" or what == "capability", (name, what)


def test_capabilities() -> None:
    found = {
        name: load_target(name).compute_capability for name in ("jetson-orin-nano-8gb", "h200", "dgx-spark", "cpu")
    }
    assert found == {"jetson-orin-nano-8gb": 8.7, "h200": 9.0, "dgx-spark": 12.1, "cpu": None}


@pytest.mark.parametrize("target", targets().values(), ids=lambda target: target.id)
def test_figures_agree_with_each_other(target: Target) -> None:
    rates = target.dense_tflops
    if target.available_gb.value is not None and target.memory_gb.value is not None:
        assert 0.6 * target.memory_gb.value < target.available_gb.value < target.memory_gb.value
    assert target.engine != "tensorrt-rtx" or target.compute_capability in RTX_CAPABILITIES
    if target.kind == "cpu":
        return
    assert set(rates) == {"fp32", *(kind for kind in ("fp16", "bf16", "int8", "fp8", "nvfp4") if _legal(kind, target))}
    values = {kind: figure.value for kind, figure in rates.items() if figure.value is not None}
    # Dense: half the bits, twice the rate, within what makers round
    assert values["int8"] / values["fp16"] == pytest.approx(2, rel=0.04) or target.kind == "rtx"
    if "nvfp4" in values:
        assert values["nvfp4"] / values["fp16"] == pytest.approx(4, rel=0.01) or target.kind == "rtx"
    assert values.get("fp32", 0) < values["fp16"]


def _legal(kind: str, target: Target) -> bool:
    return kind in legal_precisions(target)


def test_power_modes_only_take_away() -> None:
    for target in targets().values():
        assert len({mode.name for mode in target.power_modes}) == len(target.power_modes)
        for mode in target.power_modes:
            for scale in (mode.compute_scale, mode.bandwidth_scale):
                assert scale is None or scale.value is None or 0 < scale.value <= 1, (target.id, mode.name)
        full = [m for m in target.power_modes if m.compute_scale is not None and m.compute_scale.value == 1.0]
        assert full or not target.power_modes, target.id


def test_precisions_agree_with_the_quantization_schemes() -> None:
    for name, (least, _) in LEAST_SM.items():
        assert precisions()[name].least_sm.value == least


def test_legal_precisions() -> None:
    assert legal_precisions(load_target("jetson-agx-orin-64gb")) == ("fp32", "fp16", "bf16", "int8", "int4")
    assert "nvfp4" not in legal_precisions(load_target("h200"))
    assert "fp8" in legal_precisions(load_target("rtx-4090"))
    assert set(legal_precisions(load_target("jetson-t3000"))) == set(precisions())
    assert "bf16" not in legal_precisions(load_target("cpu"))


def test_newer_software_comes_last() -> None:
    for target in targets().values():
        releases = [row.l4t for row in target.software if row.l4t is not None]
        assert releases == sorted(releases, key=lambda text: tuple(map(int, text.split(".")))), target.id


def test_tensorrt_11_is_counted_on_only_where_its_notes_name_the_board() -> None:
    newest = {name: load_target(name).software[-1] for name in ("jetson-agx-orin-64gb", "jetson-orin-nano-8gb")}
    assert newest["jetson-agx-orin-64gb"].accepts == ("11.4.1",)
    assert newest["jetson-orin-nano-8gb"].accepts == ()
    assert newest["jetson-orin-nano-8gb"].tensorrt == "10.16"


def test_an_unknown_device() -> None:
    with pytest.raises(UsageError, match="did you mean 'jetson-agx-orin-64gb'"):
        load_target("jetson-agx-orin")


def test_a_part_number_names_one_device() -> None:
    parts = [part for target in targets().values() for part in target.signs.parts]
    assert len(set(parts)) == len(parts)
