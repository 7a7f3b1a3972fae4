"""Calibration against ModelOpt's own, on the same forwards; reuse, interruption, what is refused."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from quant_scene import GEN, UND, MadeDataset, QuantScene
from torch import nn

from motedge.errors import BundleError, DataError, ExportError, UsageError
from motedge.quant.calibration.job import CalibrationOptions, calibrate, needs_of
from motedge.quant.calibration.options import Needs
from motedge.quant.calibration.result import Calibration
from motedge.quant.calibration.state import STATE
from motedge.quant.calibration.store import NUMBERS, calibration_digest, load_calibration, save_calibration
from motedge.quant.calibration.towers import _spread
from motedge.quant.plan import make_plan
from motedge.quant.recipe import load_recipe
from motedge.quant.replay import Forward, RequestReader, TappedEngine, encode_prompts, open_loop, run_requests
from motedge.quant.sites import module_sites
from motedge.quant.towers import open_tower

mtq = pytest.importorskip("modelopt.torch.quantization")
OPTIONS = CalibrationOptions(observations=2, held_out=1, awq_forwards=4)
FAMILIES = ("edge", "nano")


def needs(scene: QuantScene, recipe: str = "int4-awq") -> Needs:
    return needs_of(make_plan(scene.bundle, load_recipe(recipe)).schemes)


@pytest.fixture(scope="module")
def results(quant_scenes: dict[str, QuantScene], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Calibration]:
    work = tmp_path_factory.mktemp("calibration")
    return {
        family: calibrate(
            quant_scenes[family].bundle, MadeDataset(), needs(quant_scenes[family]), work / family, OPTIONS
        )
        for family in FAMILIES
    }


def forwards_of(scene: QuantScene, calibration: Calibration) -> list[list[Forward]]:
    """The forwards of each calibration observation, run again."""
    from motedge.quant.datasets.dataset import Moment

    dataset, reader = MadeDataset(), RequestReader(scene.bundle, scene.towers["vae_encoder"])
    moments = [Moment(*pair) for pair in calibration.data.calibration]
    requests = [reader.read(dataset.observation(moment), index) for index, moment in enumerate(moments)]
    prompts = encode_prompts(scene.bundle, scene.towers[UND], requests, reader.settings)
    heard: list[Forward] = []
    tap = TappedEngine(scene.towers[GEN], heard.append)
    loop = open_loop(scene.bundle, tap, prompts)
    found = []
    for request in requests:
        run_requests(loop, [request], reader.settings, tap)
        found.append(list(heard))
        heard.clear()
    loop.close()
    return found


def quantized_by_modelopt(scene: QuantScene, config: dict, algorithm: object, forwards: list[Forward]) -> nn.Module:
    """The whole generator with torch's Linear at its sites, quantized by ModelOpt on the given forwards."""
    tower = open_tower(scene.bundle, GEN)
    for name, (_, layer) in module_sites(tower.module).items():
        linear = nn.Linear(*layer.weight.shape, bias=False)
        linear.weight = nn.Parameter(layer.weight.t().contiguous(), requires_grad=False)
        parent, _, attribute = name.rpartition(".")
        setattr(tower.module.get_submodule(parent), attribute, linear)

    def forward_loop(module: nn.Module) -> None:
        for forward in forwards:
            inputs = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in forward.inputs.items()}
            module(**inputs)

    config = {**copy.deepcopy(config), "algorithm": algorithm}
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        return mtq.quantize(tower.module, config, forward_loop)


@pytest.mark.parametrize("family", FAMILIES)
def test_static_ranges_and_smoothquant_equal_modelopts(
    quant_scenes: dict[str, QuantScene], results: dict[str, Calibration], family: str
) -> None:
    scene, calibration = quant_scenes[family], results[family]
    forwards = [forward for heard in forwards_of(scene, calibration) for forward in heard]
    assert sum(calibration.data.forwards.values()) == len(forwards)
    smooth = {"method": "smoothquant", "alpha": 0.5}
    for recipe, config, algorithm in (
        ("fp8", mtq.FP8_DEFAULT_CFG, "max"),
        ("int8-sq", mtq.INT8_SMOOTHQUANT_CFG, smooth),
    ):
        module = quantized_by_modelopt(scene, config, algorithm, forwards)
        sites = list(calibration.graphs[GEN])
        ours = calibration.parameters(GEN, load_recipe(recipe).resolve(GEN, sites))
        for name, known in ours.items():
            quantizer = module.get_submodule(name).input_quantizer
            assert known.input_amax == pytest.approx(float(quantizer.amax), rel=1e-5), (recipe, name)
            if known.pre_quant_scale is not None:
                theirs = quantizer.pre_quant_scale.flatten()
                torch.testing.assert_close(known.pre_quant_scale, theirs, rtol=1e-5, atol=0)


def test_awq_layer_by_layer_equals_the_whole_model(
    quant_scenes: dict[str, QuantScene], results: dict[str, Calibration]
) -> None:
    scene, calibration = quant_scenes["edge"], results["edge"]
    heard = forwards_of(scene, calibration)
    chosen = _spread(len(heard), len(heard[0]), OPTIONS.awq_forwards)
    forwards = [heard[request][number] for request, numbers in sorted(chosen.items()) for number in numbers]
    assert len({(forward.step, forward.branch) for forward in forwards}) >= 3
    module = quantized_by_modelopt(scene, mtq.INT4_AWQ_CFG, mtq.INT4_AWQ_CFG["algorithm"], forwards)
    for name, known in calibration.graphs[GEN].items():
        theirs = module.get_submodule(name).input_quantizer.pre_quant_scale.flatten()
        torch.testing.assert_close(1 / known.awq_scale, theirs, rtol=1e-4, atol=0, msg=name)


def test_what_is_known_is_not_done_again(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene, dataset = quant_scenes["edge"], MadeDataset()
    first = calibrate(scene.bundle, dataset, needs(scene, "fp8"), tmp_path / "a", OPTIONS)
    save_calibration(tmp_path / "a", first)
    read = dataset.read
    again = calibrate(scene.bundle, dataset, needs(scene, "nvfp4"), tmp_path / "a", OPTIONS)
    assert (dataset.read, calibration_digest(again)) == (read, calibration_digest(first))
    # AWQ is added elsewhere; the ranges come along
    more = calibrate(scene.bundle, dataset, needs(scene, "int4-awq"), tmp_path / "b", OPTIONS, tmp_path / "a")
    name = next(iter(more.graphs[GEN]))
    assert torch.equal(more.graphs[GEN][name].amax, first.graphs[GEN][name].amax)
    assert more.graphs[GEN][name].awq_scale is not None
    other = dataclasses.replace(OPTIONS, seed=9)
    with caplog.at_level(logging.WARNING):
        calibrate(scene.bundle, dataset, needs(scene, "fp8"), tmp_path / "a", other)
    assert "other observations" in caplog.text


def test_an_interrupted_run_goes_on_to_the_same_result(
    quant_scenes: dict[str, QuantScene],
    results: dict[str, Calibration],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = quant_scenes["edge"]
    from motedge.quant.calibration import towers

    original, calls = towers.run_requests, []

    def stop_at_the_second(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(towers, "run_requests", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        calibrate(scene.bundle, MadeDataset(), needs(scene), tmp_path, OPTIONS)
    assert (tmp_path / STATE).is_file()
    result = calibrate(scene.bundle, MadeDataset(), needs(scene), tmp_path, OPTIONS)
    assert calibration_digest(result) == calibration_digest(results["edge"])
    assert not (tmp_path / STATE).exists()


def test_a_damaged_state_is_left_behind(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / STATE).write_bytes(b"no state")
    scene = quant_scenes["edge"]
    with caplog.at_level(logging.WARNING):
        calibrate(scene.bundle, MadeDataset(), needs(scene, "fp8"), tmp_path, OPTIONS)
    assert "starting over" in caplog.text


def test_dead_and_infinite_inputs_are_named(
    quant_scenes: dict[str, QuantScene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = quant_scenes["edge"]
    from motedge.quant.calibration import job

    for value, message in ((0.0, "was zero in all of calibration"), (float("inf"), "holds NaN or infinity")):

        def damaged(*arguments: object, value: float = value, **options: object) -> object:
            tower = open_tower(*arguments, **options)
            for key, parameter in tower.module.named_parameters():
                if key.endswith("layers.1.post_attention_layernorm_moe_gen.weight"):
                    parameter.data.fill_(value)
            return tower

        monkeypatch.setattr(job, "open_tower", damaged)
        with pytest.raises(ExportError, match=message) as caught:
            calibrate(scene.bundle, MadeDataset(), needs(scene, "fp8"), tmp_path / str(value), OPTIONS)
        assert "layers.1.mlp_moe_gen.up_proj" in str(caught.value)


def test_too_few_observations(quant_scenes: dict[str, QuantScene], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too small"):
        calibrate(quant_scenes["edge"].bundle, MadeDataset(2), needs(quant_scenes["edge"]), tmp_path, OPTIONS)
    with pytest.raises(UsageError, match="observations is too small"):
        CalibrationOptions(observations=0)


def test_the_store_refuses_what_is_not_sound(results: dict[str, Calibration], tmp_path: Path) -> None:
    calibration = results["edge"]
    save_calibration(tmp_path, calibration)
    assert calibration_digest(load_calibration(tmp_path)) == calibration_digest(calibration)
    name, known = next(iter(calibration.graphs[GEN].items()))
    bad = dataclasses.replace(known, amax=torch.full_like(known.amax, torch.nan))
    graphs = {**calibration.graphs, GEN: {**calibration.graphs[GEN], name: bad}}
    save_calibration(tmp_path / "bad", dataclasses.replace(calibration, graphs=graphs))
    with pytest.raises(BundleError, match="no range"):
        load_calibration(tmp_path / "bad")
    (tmp_path / NUMBERS).write_bytes(b"")
    with pytest.raises(BundleError, match="damaged"):
        load_calibration(tmp_path)
    with pytest.raises(BundleError, match="no calibration"):
        load_calibration(tmp_path / "absent")


def test_a_calibration_of_another_checkpoint(
    quant_scenes: dict[str, QuantScene], results: dict[str, Calibration], tmp_path: Path
) -> None:
    save_calibration(tmp_path, results["nano"])
    with pytest.raises(BundleError, match="another checkpoint"):
        calibrate(quant_scenes["edge"].bundle, MadeDataset(), needs(quant_scenes["edge"]), tmp_path, OPTIONS)
