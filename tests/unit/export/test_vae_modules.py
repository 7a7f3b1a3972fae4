"""The video VAE as torch modules against diffusers, fp32; what the streaming forms keep; groups of extra graphs."""

from __future__ import annotations

import math

import diffusers_oracle as oracle
import numpy as np
import pytest
import torch
from tiny import MINI

from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.presets import preset
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import ExportError, UsageError
from motedge.export.extras import extra_graphs, find_graph
from motedge.export.modules.layers import Precision
from motedge.export.modules.vae_decoder import UpBlock
from motedge.export.modules.vae_video_encoder import DownBlock
from motedge.export.plan import make_plan
from motedge.export.shapes import ShapeSet
from motedge.export.vae_caches import decoder_caches, encoder_caches
from motedge.export.vae_graphs import VAE_EXTRAS
from motedge.export.variants import REFERENCE, parse_variants

TOLERANCE = 5e-6
SMALL = ShapeSet("small", (48, 64), (40, 64), 9, 9, 15.0, max_latent_frames=5, max_actions=16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("checkpoint") / "edge"
    return Checkpoint.open(make_checkpoint(root, "edge", "policy-droid", "tiny", seed=7))


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> torch.nn.Module:
    return oracle.load_vae(checkpoint.root)


def _module(checkpoint: Checkpoint, graph: str) -> torch.nn.Module:
    return find_graph(graph).module(checkpoint, SMALL, REFERENCE)


def _with_zeros(kept: list[torch.Tensor], checkpoint: Checkpoint) -> list[torch.Tensor]:
    """Caches after the first latent frame: zeros where its graph writes none."""
    left = iter(kept)
    caches = decoder_caches(checkpoint.vae_config, SMALL.grid)
    return [next(left) if cache.from_first else torch.zeros(cache.shape) for cache in caches]


def _named(caches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"cache_{index:02d}": cache for index, cache in enumerate(caches)}


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_decoder_equals_diffusers(checkpoint: Checkpoint, reference: torch.nn.Module, frames: int) -> None:
    latent_frames = 1 + (frames - 1) // 4
    latent = torch.randn(48, latent_frames, *SMALL.grid, generator=torch.Generator().manual_seed(frames))
    expected = oracle.decode(reference, latent)
    assert expected.shape == (3, frames, 32, 64)
    with torch.no_grad():
        if latent_frames > 1:
            whole = _module(checkpoint, "vae_decoder")(latent)
            np.testing.assert_allclose(whole, expected, atol=TOLERANCE, rtol=0)
        part, *kept = _module(checkpoint, "vae_decoder_first")(latent[:, :1])
        parts, caches = [part], _with_zeros(kept, checkpoint)
        following = _module(checkpoint, "vae_decoder_next")
        for index in range(1, latent_frames):
            part, *caches = following(latent[:, index : index + 1], **_named(caches))
            parts.append(part)
    np.testing.assert_allclose(torch.cat(parts, dim=1), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_encoder_equals_diffusers(checkpoint: Checkpoint, reference: torch.nn.Module, frames: int) -> None:
    pixels = torch.rand(3, frames, *SMALL.canvas, generator=torch.Generator().manual_seed(frames)) * 2 - 1
    expected = oracle.encode_video(reference, pixels)[:, :, : SMALL.grid[0], : SMALL.grid[1]]
    with torch.no_grad():
        if frames > 1:
            whole = _module(checkpoint, "vae_encoder_clip")(pixels)
            np.testing.assert_allclose(whole, expected, atol=TOLERANCE, rtol=0)
        part, *caches = _module(checkpoint, "vae_encoder_first")(pixels[:, :1])
        parts, following = [part], _module(checkpoint, "vae_encoder_next")
        for start in range(1, frames, 4):
            part, *caches = following(pixels[:, start : start + 4], **_named(caches))
            parts.append(part)
    np.testing.assert_allclose(torch.cat(parts, dim=1), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_the_contracts_list_what_the_modules_keep(checkpoint: Checkpoint, part: str) -> None:
    config = checkpoint.vae_config
    caches = decoder_caches(config, SMALL.grid) if part == "decoder" else encoder_caches(config, SMALL.canvas)
    assert len(caches) == {"decoder": 32, "encoder": 24}[part]
    for chunk in ("first", "next"):
        graph = f"vae_{part}_{chunk}"
        spec = find_graph(graph)
        contract = spec.contract_of(checkpoint, SMALL)
        module = _module(checkpoint, graph)
        sizes = contract.optimum()
        with torch.no_grad():
            outputs = module(**{i.name: torch.zeros(i.shape(sizes)) for i in contract.inputs})
        assert [tuple(o.shape) for o in outputs] == [o.shape(sizes) for o in contract.outputs]
    layers = dict(find_graph(f"vae_{part}_next").module(checkpoint, SMALL, REFERENCE).named_modules())
    assert all(cache.layer in layers for cache in caches)
    assert [c.layer for c in caches if not c.from_first] == (
        [f"decoder.up_blocks.{i}.upsampler.time_conv" for i in (0, 1)] if part == "decoder" else []
    )


def test_chunks_and_whole_videos_read_the_same_weights(checkpoint: Checkpoint) -> None:
    plan = make_plan(checkpoint, MINI, parse_variants("all"), list(VAE_EXTRAS))
    by_name = {graph.spec.name: graph for graph in plan.graphs}
    for whole, first, following in (
        ("vae_decoder", "vae_decoder_first", "vae_decoder_next"),
        ("vae_encoder_clip", "vae_encoder_first", "vae_encoder_next"),
    ):
        for variant, slots in by_name[whole].slots.items():
            assert by_name[following].slots[variant] == slots
            missing = [s.spec.name for s in slots if s not in by_name[first].slots[variant]]
            assert len(missing) == 4
            assert all("time_conv" in name for name in missing)
    assert set(plan.weight_bytes) - set(make_plan(checkpoint, MINI, parse_variants("all")).weight_bytes) == {
        f"{graph}.{dtype}.data" for graph in ("vae_decoder", "vae_encoder_clip") for dtype in ("fp32", "fp16", "bf16")
    }


def test_groups_of_graphs() -> None:
    assert extra_graphs([]) == []
    assert [s.name for s in extra_graphs(["vae-decoder-stream", "vae-decoder"])] == [
        "vae_decoder",
        "vae_decoder_first",
        "vae_decoder_next",
    ]
    with pytest.raises(UsageError, match="did you mean 'vae-decoder'"):
        extra_graphs(["vae-decodr"])
    with pytest.raises(UsageError, match="did you mean 'vae_decoder'"):
        find_graph("vae_decodr")


@pytest.mark.parametrize("block", [DownBlock, UpBlock])
def test_another_vae_is_refused(block: type) -> None:
    way = {"down": True} if block is DownBlock else {"up": True}
    with torch.device("meta"), pytest.raises(ExportError, match="is none of those known here"):
        block(8, 24, 1, Precision("primitive", torch.float32), temporal=True, **way)


@pytest.mark.parametrize(("size", "decoder_mb", "encoder_mb"), [((256, 256), 234, 77), ((480, 832), 1425, 470)])
def test_caches_at_full_size(size: tuple[int, int], decoder_mb: int, encoder_mb: int) -> None:
    """Bytes in 16 bits, against what diffusers' own caches of the published VAE hold (docs/vae.md)."""
    config = preset("edge", "full").vae
    rows, columns = size
    caches = decoder_caches(config, (rows // 16, columns // 16)), encoder_caches(config, size)
    held = [2 * sum(math.prod(cache.shape) for cache in part) for part in caches]
    assert held == pytest.approx([decoder_mb * 1e6, encoder_mb * 1e6], rel=0.003)
