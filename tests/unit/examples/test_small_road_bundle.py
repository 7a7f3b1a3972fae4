"""The committed small checkpoint through motedge itself: exported, and asked for plans by the generator."""

from __future__ import annotations

from pathlib import Path

import examples_package  # noqa: F401
import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="the road needs motedge[drive]")
pytest.importorskip("Box2D", reason="the road needs motedge[drive]")
pytest.importorskip("pygame", reason="the road needs motedge[drive]")

from examples.train_small.road.instructions import CANONICAL
from examples.train_small.road.simulator import Simulator
from examples.train_small.train.evaluate import places
from motedge.checkpoint.reader import Checkpoint
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.shapes import load_shape_set
from motedge.export.variants import parse_variants
from motedge.runtime.generate.loader import load_generator
from motedge.runtime.generate.request import GenerateRequest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SAMPLER = {"steps": 4, "shift": 5.0}


@pytest.mark.slow
def test_words_decide_where_the_exported_model_drives(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shapes = load_shape_set(str(EXAMPLES / "train_small" / "shapes.toml"))
    options = ExportOptions(shapes, parse_variants("primitive-fp32"), "none")
    export_bundle(Checkpoint.open(EXAMPLES / "small_road"), bundle, options)
    simulator = Simulator()
    # In the middle of a road of the seeds that no training saw, driving along it
    simulator.reset(200_003, s=120.0, lateral=0.0, askew=0.0, speed=8.0)
    picture = simulator.picture()
    simulator.close()
    ends = {}
    with load_generator(bundle) as generator:
        for name, text in CANONICAL.items():
            request = GenerateRequest("policy", text, image=picture, embodiment="av", sampler=SAMPLER)
            actions = generator.generate(request).actions
            assert actions is not None
            assert actions.shape == (16, 9)
            ends[name] = places(torch.from_numpy(np.asarray(actions)))[-1].numpy()
    # The road is 13.3 m wide, and its sides' middles 2.5 m beside its own
    assert ends["right"][0] - ends["left"][0] > 2.0
    assert ends["left"][1] > ends["slow"][1] + 3.0
    assert 4.0 < ends["slow"][1] < 12.0
    assert np.abs(ends["stop"]).max() < 1.0


def test_a_road_as_an_observation_folder(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from examples.train_small import draw_road
    from motedge.runtime.policy.observation_folder import read_observation, write_observation

    seen = draw_road.observe(200_003, CANONICAL["stop"], s=50.0, lateral=1.0)
    again = read_observation(write_observation(tmp_path, seen).parent)
    assert not again.has_state and again.image is not None and again.image.shape == (96, 96, 3)
    np.testing.assert_array_equal(again.image, draw_road.observe(200_003, CANONICAL["stop"], 50.0, 1.0).image)
    assert (again.image != draw_road.observe(200_003, CANONICAL["stop"], 50.0, -1.0).image).any()
    assert again.instruction == CANONICAL["stop"] and "road 200003" in (again.source or "")
