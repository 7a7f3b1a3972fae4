"""Videos to latents and back on onnxruntime, against diffusers; whole, in chunks, and with flat memory."""

from __future__ import annotations

from pathlib import Path

import diffusers_oracle as oracle
import numpy as np
import pytest
import torch
from tensorrt_rtx_build import build_engine
from tiny import MINI

from motedge.bundle import Bundle
from motedge.checkpoint.make import make_checkpoint
from motedge.checkpoint.reader import Checkpoint
from motedge.errors import BundleError, ContractError, UsageError
from motedge.export.job import ExportOptions, export_bundle
from motedge.export.vae_graphs import VAE_EXTRAS
from motedge.export.variants import parse_variants
from motedge.runtime.backends import open_engine
from motedge.runtime.finite import NonFiniteError
from motedge.runtime.vae import VideoDecoder, VideoEncoder, open_decoder, open_encoder, to_uint8

pytestmark = pytest.mark.slow
TOLERANCE = 5e-6
# Of a video whose frames are as the shape set's content, which is no multiple of the VAE's stride
CONTENT = (*MINI.content, 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("checkpoint") / "edge"
    return Checkpoint.open(make_checkpoint(root, "edge", "policy-droid", "tiny", seed=7))


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bundle") / "edge"
    export_bundle(checkpoint, root, ExportOptions(MINI, parse_variants("primitive-fp32"), "none", tuple(VAE_EXTRAS)))
    return Bundle.open(root)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> torch.nn.Module:
    """In fp64: diffusers' own fp32 lies up to 4e-6 from it, so that between two fp32 results both errors add up."""
    return oracle.load_vae(checkpoint.root).double()


@pytest.fixture(scope="module")
def decoder(bundle: Bundle) -> VideoDecoder:
    return open_decoder(bundle)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> VideoEncoder:
    return open_encoder(bundle)


@pytest.fixture(scope="module")
def half(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """In fp16, with the fused attention: one form of the decoder and one of the encoder."""
    root = tmp_path_factory.mktemp("half") / "edge"
    options = ExportOptions(MINI, parse_variants("fused-fp16"), "none", ("vae-decoder-stream", "vae-encoder-clip"))
    export_bundle(checkpoint, root, options)
    return Bundle.open(root)


def _latent(latent_frames: int) -> np.ndarray:
    random = np.random.RandomState(latent_frames)
    return random.standard_normal((48, latent_frames, *MINI.grid)).astype(np.float32)


def _video(frames: int) -> np.ndarray:
    return np.random.RandomState(frames).randint(0, 256, (frames, *CONTENT), dtype=np.uint8)


@pytest.mark.capability(mode="vae_decode", family="edge", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("latent_frames", [1, 2, 3, 5])
def test_decoding(decoder: VideoDecoder, reference: torch.nn.Module, latent_frames: int) -> None:
    """1, 5, 9 and 17 frames; a graph for whole videos takes 2 to 4 latent frames here."""
    latent = _latent(latent_frames)
    expected = oracle.decode(reference, torch.from_numpy(latent).double()).numpy()
    np.testing.assert_allclose(decoder.decode(latent), expected, atol=TOLERANCE, rtol=0)
    streamed = np.concatenate([chunk.copy() for chunk in decoder.stream(latent)], axis=1)
    np.testing.assert_allclose(streamed, expected, atol=TOLERANCE, rtol=0)
    assert to_uint8(streamed).shape == (4 * latent_frames - 3, 80, 96, 3)


@pytest.mark.capability(mode="vae_encode", family="edge", backend="onnxruntime", proof="parity")
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_encoding(encoder: VideoEncoder, reference: torch.nn.Module, frames: int) -> None:
    video = _video(frames)
    rows, columns = (outer - inner for outer, inner in zip(MINI.canvas, MINI.content, strict=True))
    padded = np.pad(video, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="reflect")
    pixels = torch.from_numpy(padded).double().permute(3, 0, 1, 2) / 127.5 - 1
    expected = oracle.encode_video(reference, pixels).numpy()[:, :, : MINI.grid[0], : MINI.grid[1]]
    np.testing.assert_allclose(encoder.encode(video), expected, atol=TOLERANCE, rtol=0)
    streamed = np.concatenate([latent.copy() for latent in encoder.stream(iter(video))], axis=1)
    np.testing.assert_allclose(streamed, expected, atol=TOLERANCE, rtol=0)


def test_the_first_frame_is_the_single_image(bundle: Bundle, encoder: VideoEncoder) -> None:
    video = _video(5)
    padded = np.pad(video[0], ((0, 12), (0, 5), (0, 0)), mode="reflect")
    context = open_engine(bundle, "vae_encoder").context({})
    context.set_input("image", np.ascontiguousarray(padded.transpose(2, 0, 1)[None] / np.float32(127.5) - 1))
    context.run()
    np.testing.assert_allclose(encoder.encode(video)[:, :1], context.output("latent"), atol=TOLERANCE, rtol=0)


def test_memory_is_flat_in_the_number_of_frames(decoder: VideoDecoder, encoder: VideoEncoder) -> None:
    """Buffers of results and caches after 5 and after 29 frames: the same ones, of the same size."""
    sizes, places = [], []
    for latent_frames in (2, 8):
        chunks = list(decoder.stream(_latent(latent_frames)))
        latents = list(encoder.stream(_video(4 * latent_frames - 3)))
        assert len(chunks) == len(latents) == latent_frames
        sizes.append((decoder.buffer_bytes, encoder.buffer_bytes))
        places.append({chunk.ctypes.data for chunk in (*chunks[1:], *latents[1:])})
    assert sizes[0] == sizes[1]
    assert len(places[1]) == 4
    assert places[0] <= places[1]


def test_two_videos_do_not_mix(decoder: VideoDecoder) -> None:
    latent = _latent(3)
    begun = decoder.stream(latent)
    next(begun)
    other = [chunk.copy() for chunk in decoder.stream(_latent(2))]
    with pytest.raises(ContractError, match="another video was started"):
        next(begun)
    again = [chunk.copy() for chunk in decoder.stream(_latent(2))]
    np.testing.assert_array_equal(np.concatenate(other, 1), np.concatenate(again, 1))


def test_bad_input(decoder: VideoDecoder, encoder: VideoEncoder) -> None:
    with pytest.raises(ContractError, match="such as 5 or 9"):
        encoder.encode(_video(6))
    with pytest.raises(ContractError, match="such as 5 or 9"):
        list(encoder.stream(iter(_video(6))))
    with pytest.raises(ContractError, match="such as 1 or 5"):
        encoder.encode([])
    with pytest.raises(ContractError, match="another size"):
        encoder.encode(_video(5)[:, :70])
    with pytest.raises(ContractError, match="no latents of a video"):
        decoder.decode(_latent(2)[0])
    with pytest.raises(ContractError, match="can't take this latent"):
        decoder.decode(_latent(2)[:, :, :4])
    broken = _latent(3)
    broken[0, 1] = np.nan
    with pytest.raises(NonFiniteError):
        decoder.decode(broken)
    with pytest.raises(NonFiniteError, match="at latent frame 1"):
        list(decoder.stream(broken))


def test_a_bundle_with_a_part_of_the_graphs(bundle: Bundle, checkpoint: Checkpoint, tmp_path: Path) -> None:
    root = tmp_path / "edge"
    plain = ExportOptions(MINI, parse_variants("primitive-fp32"), "none")
    export_bundle(checkpoint, root, plain)
    without = Bundle.open(root)
    assert set(without.manifest.graphs) == {"und_prefill", "gen_step", "vae_encoder", "solver_step"}
    for opener, group in ((open_decoder, "vae-decoder-stream"), (open_encoder, "vae-encoder-stream")):
        with pytest.raises(BundleError, match=f"--extras {group}"):
            opener(without)
    options = ExportOptions(MINI, parse_variants("primitive-fp32"), "none", ("vae-decoder",))
    assert any("vae_decoder" in name for name in export_bundle(checkpoint, root, options).written)
    whole = open_decoder(Bundle.open(root))
    both = open_decoder(bundle)
    np.testing.assert_array_equal(whole.decode(_latent(3)), both.decode(_latent(3)))
    # Shorter than the graph takes: a single image
    np.testing.assert_allclose(whole.decode(_latent(1)), both.decode(_latent(1)), atol=TOLERANCE, rtol=0)
    with pytest.raises(ContractError, match="--extras vae-decoder-stream"):
        next(whole.stream(_latent(3)))
    with pytest.raises(ContractError, match="another range of T"):
        whole.decode(_latent(5))
    # Not asked for again, the graph stays
    assert export_bundle(checkpoint, root, plain).written == []
    assert "vae_decoder" in Bundle.open(root).manifest.graphs
    with pytest.raises(UsageError, match="unknown group of graphs 'vae'"):
        export_bundle(checkpoint, root, ExportOptions(MINI, parse_variants("primitive-fp32"), "none", ("vae",)))


def test_sixteen_bits(half: Bundle, decoder: VideoDecoder, encoder: VideoEncoder) -> None:
    """Caches in fp16 too; what is lost is of the size of fp16's rounding, 2^-11, and does not grow along the video."""
    latent, video = _latent(5), _video(13)
    frames, expected = open_decoder(half).decode(latent), decoder.decode(latent)
    errors = [np.linalg.norm((a - b).ravel()) / np.linalg.norm(b.ravel()) for a, b in _pairs(frames, expected)]
    assert max(errors) < 2e-3
    assert errors[-1] < 3 * errors[0]
    latents, exact = open_encoder(half).encode(video), encoder.encode(video)
    assert np.linalg.norm(latents - exact) < 1e-3 * np.linalg.norm(exact)


def _pairs(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(ours[:, index], theirs[:, index]) for index in range(ours.shape[1])]


@pytest.mark.capability(mode="vae_decode", family="edge", backend="tensorrt-rtx", proof="built")
@pytest.mark.capability(mode="vae_encode", family="edge", backend="tensorrt-rtx", proof="built")
@pytest.mark.parametrize("graph", ["vae_decoder_first", "vae_decoder_next", "vae_encoder_clip"])
def test_engines_are_built(half: Bundle, graph: str) -> None:
    """By TensorRT-RTX, for a GPU that need not be here: convolutions, resizing and pooling in three dimensions."""
    variant = half.variant(graph, "fused-fp16")
    size, _ = build_engine(half.root / variant.file, half.contract(graph), "12.0")
    assert size > variant.facts["parameters"] * 2
