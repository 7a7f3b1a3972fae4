"""Positions and rotary tables against diffusers' own functions, and the layout of the DROID policy."""

from __future__ import annotations

import numpy as np
import pytest

from motedge.errors import BundleError
from motedge.runtime.rope import GenLayout, RotaryTable

torch = pytest.importorskip("torch")
oracle = pytest.importorskip("diffusers.pipelines.cosmos.pipeline_cosmos3_omni")
transformer = pytest.importorskip("diffusers.models.transformers.transformer_cosmos3")

AXES = (24, 20, 20)
MARGIN = 15000
THETAS = {"edge": 1e8, "nano": 5e6}
LAYOUTS = [
    GenLayout(158, 9, 33, 40, 33, 15.0, 15.0, 0),
    GenLayout(19, 9, 33, 40, 33, 15.0, 15.0, 0),
    GenLayout(64, 5, 16, 20, 16, 10.0, 10.0, 1),
    GenLayout(125, 16, 30, 52, 60, 10.0, 10.0, 1),
    GenLayout(300, 4, 7, 5, 12, 29.97, 12.5, 1),
    GenLayout(77, 2, 4, 4, 3, 24.0, 30.0, -2),
    GenLayout(77, 1, 4, 4, 5, 24.0, 24.0, 1),
]


def _inv_freq(theta: float) -> np.ndarray:
    return (1.0 / theta ** (torch.arange(0, 128, 2, dtype=torch.float32) / 128)).numpy()


def _rotary(theta: float = 1e8, **changes) -> RotaryTable:
    config = {
        "unified_3d_mrope_temporal_modality_margin": MARGIN,
        "base_fps": 24,
        "enable_fps_modulation": True,
        "latent_patch_size": 2,
        "rope_axes_dim": list(AXES),
        "unified_3d_mrope_reset_spatial_ids": True,
    }
    return RotaryTable(_inv_freq(theta), {**config, **changes})


def _oracle_positions(layout: GenLayout, modulated: bool = True):
    offset = layout.und_len + MARGIN
    rows, columns = -(-layout.rows // 2), -(-layout.columns // 2)
    vision, _ = oracle.get_3d_mrope_ids_vae_tokens(
        layout.frames, rows, columns, offset, fps=layout.fps if modulated else None
    )
    action, _ = oracle.get_3d_mrope_ids_vae_tokens(
        layout.actions,
        1,
        1,
        offset,
        fps=layout.fps_action if modulated else None,
        temporal_compression_factor=1,
        base_temporal_compression_factor=4,
        start_frame_offset=layout.action_start_offset,
    )
    return torch.cat([vision.float(), action.float()], dim=1)


def _oracle_table(positions, theta: float) -> tuple[np.ndarray, np.ndarray]:
    module = transformer.Cosmos3VLTextRotaryEmbedding(128, theta, AXES)
    cos, sin = module(positions[:, None], torch.device("cpu"), torch.float32)
    return cos[0, :, :64].numpy(), sin[0, :, :64].numpy()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("modulated", [True, False])
def test_positions_are_bit_equal(layout: GenLayout, modulated: bool) -> None:
    positions = _rotary(enable_fps_modulation=modulated).generator_positions(layout)
    assert positions.dtype == np.float32
    assert np.array_equal(positions, _oracle_positions(layout, modulated).numpy())


@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_generator_tables(layout: GenLayout, theta: float) -> None:
    cos, sin = _rotary(theta).generator(layout)
    expected_cos, expected_sin = _oracle_table(_oracle_positions(layout), theta)
    assert cos.flags.c_contiguous
    assert cos.dtype == np.float32
    # The angles agree bit for bit; what is left is the last bit of two libraries' cosines
    np.testing.assert_allclose(cos, expected_cos, atol=1.2e-7, rtol=0)
    np.testing.assert_allclose(sin, expected_sin, atol=1.2e-7, rtol=0)


@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
def test_text_table(theta: float) -> None:
    positions, _ = oracle.get_3d_mrope_ids_text_tokens(512, 0)
    cos, sin = _rotary(theta).text(512)
    expected_cos, expected_sin = _oracle_table(positions, theta)
    np.testing.assert_allclose(cos, expected_cos, atol=1.2e-7, rtol=0)
    np.testing.assert_allclose(sin, expected_sin, atol=1.2e-7, rtol=0)


def test_droid_layout() -> None:
    """3,093 tokens; with offset 0, action row 4k lies at the time of latent frame k."""
    positions = _rotary().generator_positions(LAYOUTS[0])
    assert positions.shape == (3, 3093)
    vision, action = positions[:, :3060].reshape(3, 9, 17, 20), positions[:, 3060:]
    assert np.array_equal(action[0, ::4], vision[0, :, 0, 0])
    np.testing.assert_allclose(np.diff(vision[0, :, 0, 0]), 1.6, atol=1e-3)
    np.testing.assert_allclose(np.diff(action[0]), 0.4, atol=1e-3)
    assert vision[0, 0, 0, 0] == 158 + MARGIN
    assert (action[1:] == 0).all()


def test_the_axes_may_stand_under_their_other_name() -> None:
    config = {"rope_scaling": {"mrope_section": list(AXES)}}
    assert np.array_equal(
        RotaryTable(_inv_freq(1e8), config).text(9)[0], RotaryTable(_inv_freq(1e8), {"rope_axes_dim": AXES}).text(9)[0]
    )


def test_refuses_a_table_of_another_model() -> None:
    with pytest.raises(BundleError, match="rotary table does not fit"):
        RotaryTable(np.ones(32, np.float32), {"rope_axes_dim": AXES})


def test_refuses_positions_that_no_release_has() -> None:
    with pytest.raises(BundleError, match="reset_spatial_ids"):
        _rotary(unified_3d_mrope_reset_spatial_ids=False)
