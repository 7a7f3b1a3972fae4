"""The roofline's arithmetic, the towers' work against published counts, and the fit against what it is fitted to."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from motedge.checkpoint.presets import preset
from motedge.errors import InternalError, UsageError
from motedge.targets.catalog import Target, load_target, targets
from motedge.targets.roofline import fit as fitting
from motedge.targets.roofline.fit import Fit, borrowed, efficiency_of, judge
from motedge.targets.roofline.model import (
    PRECISIONS,
    decode_token,
    encode_image,
    generator_step,
    latent_rows,
    prompt_prefill,
    total,
)
from motedge.targets.roofline.published import PublishedFigure, published_figures
from motedge.targets.roofline.roofline import Efficiency, predict
from motedge.targets.roofline.work import OperatorWork, Work

FULL = Efficiency(1.0, 1.0, 1.0, 1.0, 0.0, ())
# Of a DROID request: generator rows, prompt tokens
ROWS, PROMPT = 3093, 158


@pytest.fixture
def thor() -> Target:
    return load_target("jetson-agx-thor-t5000")


def test_a_kernel_takes_its_longer_side(thor: Target) -> None:
    rate, bandwidth = thor.dense_tflops["bf16"].value, thor.bandwidth_gbps.value
    assert rate and bandwidth
    heavy = OperatorWork("gemm", 1e12, 1e6, 0.0, "bf16")
    light = OperatorWork("gemm", 1e6, 1e9, 1e9, "bf16", times=3)
    time = predict(Work((heavy, light)), thor, FULL)
    assert time.time_s == pytest.approx(1 / rate + 3 * 2 / bandwidth)
    assert time.bound == "memory" and time.low_s == time.time_s == time.high_s
    assert predict(Work((heavy,)), thor, FULL).bound == "compute"
    halved = dataclasses.replace(FULL, gemm=0.5, log_error=0.1)
    slower = predict(Work((heavy,)), thor, halved)
    assert slower.time_s == pytest.approx(2 / rate)
    assert slower.high_s / slower.time_s == pytest.approx(slower.time_s / slower.low_s) == pytest.approx(halved.factor)


@pytest.mark.parametrize(
    ("kind", "type_", "share"),
    [("gemm", "fp8", "narrow"), ("conv", "fp16", "gemm"), ("attention", "bf16", "attention")],
)
def test_which_share_counts(thor: Target, kind: str, type_: str, share: str) -> None:
    work = Work((OperatorWork(kind, 1e12, 0.0, 0.0, type_),))
    whole = predict(work, thor, FULL).time_s
    for name in ("gemm", "attention", "narrow"):
        changed = predict(work, thor, dataclasses.replace(FULL, **{name: 0.25})).time_s
        assert changed == pytest.approx(whole * (4 if name == share else 1)), name


def test_what_is_not_known_is_said(thor: Target) -> None:
    work = Work((OperatorWork("gemm", 1e12, 0.0, 0.0, "fp8"),))
    with pytest.raises(UsageError, match="bandwidth of Jetson T2000 is not known"):
        predict(work, load_target("jetson-t2000"))
    with pytest.raises(UsageError, match=r"fp8 rate of Jetson AGX Orin 64 GB is not known\n.*no fast path"):
        predict(work, load_target("jetson-agx-orin-64gb"))
    # What only moves data needs no rate
    assert predict(Work((OperatorWork("elementwise", 9.0, 0.0, 1e9, "fp8"),)), thor).time_s > 0


@pytest.mark.parametrize(("family", "linear", "attention"), [("edge", 8.72, 2.31), ("nano", 43.0, 5.9)])
def test_flops_of_a_forward_are_the_published_ones(family: str, linear: float, attention: float) -> None:
    work = generator_step(preset(family, "full").transformer, ROWS, PROMPT)
    found = {
        kind: sum(o.times * o.flops for o in work.operators if o.kind == kind) / 1e12 for kind in ("gemm", "attention")
    }
    assert found["gemm"] == pytest.approx(linear, rel=2e-3)
    assert found["attention"] == pytest.approx(attention, rel=6e-3)


def test_sizes() -> None:
    edge, nano = (preset(family, "full").transformer for family in ("edge", "nano"))
    assert generator_step(edge, 10, 10).weight_bytes == pytest.approx(2 * 1.4094e9, rel=1e-3)
    assert prompt_prefill(nano, 10).weight_bytes == pytest.approx(2 * 6.946e9, rel=1e-3)
    assert generator_step(edge, 10, 10, PRECISIONS["fp8"]).weight_bytes == pytest.approx(1.4094e9, rel=1e-3)
    assert decode_token(edge, 0).weight_bytes == pytest.approx(2 * (1.4094e9 + 0.2684e9), rel=1e-3)
    assert latent_rows(33, 540, 640, 33) == ROWS
    assert latent_rows(189, 480, 832) == 18_720 and latent_rows(61, 480, 832, 60) == 6_300
    parts = [(2, generator_step(edge, 10, 10)), (1, encode_image((544, 736)))]
    assert total(parts).flops == pytest.approx(2 * parts[0][1].flops + parts[1][1].flops)


def test_the_encoder_is_counted_like_its_module() -> None:
    """Multiplications of the convolutions of our own module, counted by hooks on a small picture of the true widths."""
    torch = pytest.importorskip("torch")
    from motedge.export.modules.layers import Precision
    from motedge.export.modules.vae_encoder import Conv2d, VaeEncoder

    canvas, counted = (64, 96), [0.0]

    def count(module: object, inputs: tuple[object, ...], output: object) -> None:
        weight = module.weight  # type: ignore[attr-defined]
        counted[0] += 2.0 * weight.numel() * output.shape[-1] * output.shape[-2]  # type: ignore[attr-defined]

    with torch.device("meta"):
        module = VaeEncoder(preset("edge", "full").vae, Precision("fused", torch.bfloat16), (4, 6))
        for part in module.modules():
            if isinstance(part, Conv2d):
                part.register_forward_hook(count)
        module(torch.empty(1, 3, *canvas))
    work = encode_image(canvas)
    assert sum(o.times * o.flops for o in work.operators if o.kind == "conv") == pytest.approx(counted[0], rel=0.05)


def test_a_published_figure_is_checked() -> None:
    good = published_figures()[0]
    for change in ({"mark": "rumour"}, {"precision": "fp7"}, {"computed": "all"}, {"seconds": 0.0}, {"why": "because"}):
        with pytest.raises(InternalError, match=r"published\.toml"):
            dataclasses.replace(good, **change)
    with pytest.raises(UsageError, match="unknown target"):
        dataclasses.replace(good, target="jetson-thor")


def _figures(share: float, beside_s: float) -> list[PublishedFigure]:
    """The fitted figures as if every device reached the same share of everything."""
    efficiency = Efficiency(share, share, share, share, 0.0, ())
    made = []
    for figure in published_figures():
        if figure.fitted:
            time = predict(figure.work(), load_target(figure.target), efficiency).time_s
            time += beside_s if figure.computed == "request" else 0.0
            made.append(dataclasses.replace(figure, seconds=time))
    return made


def test_the_fit_finds_what_made_the_figures() -> None:
    """Shares far from what is thought before any figure is seen; the prior pulls each parameter a little."""
    nothing = Fit([])
    unseen = nothing.efficiency("thor")
    figures = _figures(0.25, unseen.request_s)
    fit = Fit(figures)
    assert min(unseen.gemm, unseen.attention) > 0.4
    for architecture in ("thor", "hopper", "ada", "blackwell"):
        found = fit.efficiency(architecture)
        assert (found.gemm, found.attention) == pytest.approx((0.25, 0.25), rel=0.1), architecture
    for figure in figures:
        missed, before = (abs(math.log(f.predicted_s(figure) / figure.seconds)) for f in (fit, nothing))
        assert missed < 0.25 * before, figure.id


@pytest.mark.parametrize("beside_s", [0.0125, 0.2])
def test_what_a_request_takes_beside_its_stages_is_seen(beside_s: float) -> None:
    """Few figures tell it, so the fit goes only part of the way from what is thought before; it does go there."""
    before = Fit([]).efficiency("thor").request_s
    found = Fit(_figures(0.5, beside_s)).efficiency("thor").request_s
    way = math.log(found / before) / math.log(beside_s / before)
    assert 0.2 < way < 1.05


def _judged_with(monkeypatch: pytest.MonkeyPatch, figures: tuple[PublishedFigure, ...]) -> fitting.Judgement:
    monkeypatch.setattr(fitting, "published_figures", lambda: figures)
    judge.cache_clear()
    try:
        return judge()
    finally:
        judge.cache_clear()


@pytest.mark.parametrize("origin", ["InstinctFlash", "FlashRT"])
def test_the_judgement_has_not_seen_what_it_judges(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """Twice as slow figures of one origin must not move their own prediction, whoever published the software."""
    before = {row.figure.id: row.unseen_s for row in judge().rows}
    slower = [dataclasses.replace(f, seconds=2 * f.seconds) if f.origin == origin else f for f in published_figures()]
    after = _judged_with(monkeypatch, tuple(slower))
    mine = [row for row in after.rows if row.figure.origin == origin]
    assert len({row.figure.publisher for row in mine}) > 1
    for row in mine:
        assert row.unseen_s == pytest.approx(before[row.figure.id], rel=1e-6)
    assert any(row.unseen_s > 1.01 * before[row.figure.id] for row in after.rows if row.figure.origin != origin)


def test_a_class_is_judged_without_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_thor(figure: PublishedFigure) -> bool:
        return load_target(figure.target).architecture == "thor"

    before = {row.figure.id: row for row in judge().rows}
    slower = [dataclasses.replace(f, seconds=2 * f.seconds) if on_thor(f) else f for f in published_figures()]
    after = _judged_with(monkeypatch, tuple(slower))
    for row in after.rows:
        if on_thor(row.figure):
            assert row.unseen_class_s == pytest.approx(before[row.figure.id].unseen_class_s, rel=1e-6)


def test_the_error_is_that_of_the_table() -> None:
    judged = judge()
    errors: dict[str, list[float]] = {}
    for row in judged.rows:
        if row.figure.fitted and row.figure.computed != "decode":
            errors.setdefault(row.figure.origin, []).append(math.log(row.unseen_s / row.figure.seconds) ** 2)
    assert len(errors) >= 5
    assert judged.log_error == pytest.approx(math.sqrt(np.mean([np.mean(values) for values in errors.values()])))
    fitted = [abs(math.log(row.ratio)) for row in judged.rows if row.figure.fitted]
    assert judged.worst.figure.fitted and abs(math.log(judged.worst.ratio)) == max(fitted)
    assert judged.mean_factor() == pytest.approx(math.exp(np.mean(fitted)))
    # Figures of software that leaves the machine idle are missed by more, and not hidden
    assert judged.mean_factor(everything=True) > judged.mean_factor()
    counted = [row for row in judged.rows if row.counts]
    factor = efficiency_of("thor").factor
    inside = sum(1 / factor <= row.ratio <= factor for row in counted)
    assert judged.within == pytest.approx(inside / len(counted))
    # Every row that is not fitted says why, and is in the table all the same
    assert {row.figure.id for row in judged.rows} == {figure.id for figure in published_figures()}


def test_classes_without_figures_are_trusted_less() -> None:
    assert borrowed("thor") is None and efficiency_of("thor").sources
    assert "no policy time" in str(borrowed("orin"))
    assert efficiency_of("orin").factor > efficiency_of("thor").factor
    assert efficiency_of("orin").log_error == judge().class_log_error
    for target in targets().values():
        found = efficiency_of(target.architecture)
        assert all(0 < share < 1 for share in (found.gemm, found.attention, found.narrow, found.memory))
