"""What the streaming graphs of the video VAE keep between chunks: earlier frames at every causal layer.

The list follows from the configuration alone; tests hold it against what the modules keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from motedge.bundle import TensorSpec
from motedge.checkpoint.vae_config import VaeConfig

# A convolution over three frames sees two earlier ones; the encoder's, which strides by two in time, one
_FRAMES, _STRIDED_FRAMES = 2, 1
INPUT, OUTPUT = "cache_", "next_cache_"


@dataclass(frozen=True)
class Cache:
    """Earlier frames at the input of one layer."""

    # The layer's key in the checkpoint
    layer: str
    # [1, channels, frames, rows, columns]
    shape: tuple[int, int, int, int, int]
    # Whether the first chunk's graph writes it; else it is zero after the first chunk
    from_first: bool = True


def decoder_caches(config: VaeConfig, grid: tuple[int, int]) -> list[Cache]:
    """Caches of the decoder in the order of its layers; `grid`: latent rows and columns."""
    widths, count = config.decoder_widths, len(config.dim_mult)
    doubles_time = (*reversed(config.temperal_downsample), False)
    rows, columns = grid
    made = [_cache("decoder.conv_in", config.z_dim, grid), *_mid_block("decoder", widths[0], grid)]
    for index in range(count):
        block, size = f"decoder.up_blocks.{index}", (rows << index, columns << index)
        made += _residual_blocks(block, widths[index], widths[index + 1], config.num_res_blocks + 1, size)
        if doubles_time[index]:
            # It never sees the first frame, and finds zeros in its place
            made.append(_cache(f"{block}.upsampler.time_conv", widths[index + 1], size, from_first=False))
    size = (rows << (count - 1), columns << (count - 1))
    return [*made, _cache("decoder.conv_out", widths[-1], size)]


def encoder_caches(config: VaeConfig, canvas: tuple[int, int]) -> list[Cache]:
    """Caches of the encoder in the order of its layers; `canvas`: rows and columns in pixels."""
    widths, count = config.encoder_widths, len(config.dim_mult)
    halves_time = (*config.temperal_downsample, False)
    rows, columns = (size // config.patch_size for size in canvas)
    made = [_cache("encoder.conv_in", config.in_channels, (rows, columns))]
    for index in range(count):
        block, size = f"encoder.down_blocks.{index}", (rows >> index, columns >> index)
        made += _residual_blocks(block, widths[index], widths[index + 1], config.num_res_blocks, size)
        if halves_time[index]:
            half = (size[0] // 2, size[1] // 2)
            made.append(_cache(f"{block}.downsampler.time_conv", widths[index + 1], half, frames=_STRIDED_FRAMES))
    size = (rows >> (count - 1), columns >> (count - 1))
    return [*made, *_mid_block("encoder", widths[-1], size), _cache("encoder.conv_out", widths[-1], size)]


def cache_inputs(caches: list[Cache]) -> Iterator[TensorSpec]:
    """Inputs of the next chunk's graph."""
    for index, cache in enumerate(caches):
        start = "" if cache.from_first else "; zero after the first chunk"
        yield TensorSpec(f"{INPUT}{index:02d}", cache.shape, "graph", f"earlier frames at {cache.layer}{start}")


def cache_outputs(caches: list[Cache], *, first: bool) -> Iterator[TensorSpec]:
    """Outputs of the first or the next chunk's graph, under the numbers of the inputs that they become."""
    for index, cache in enumerate(caches):
        if cache.from_first or not first:
            yield TensorSpec(
                f"{OUTPUT}{index:02d}", cache.shape, "graph", f"last frames at {cache.layer}, for the next chunk"
            )


def _cache(
    layer: str, channels: int, size: tuple[int, int], *, frames: int = _FRAMES, from_first: bool = True
) -> Cache:
    return Cache(layer, (1, channels, frames, *size), from_first)


def _residual_blocks(block: str, inner: int, outer: int, count: int, size: tuple[int, int]) -> list[Cache]:
    made = []
    for number in range(count):
        name = f"{block}.resnets.{number}"
        made += [_cache(f"{name}.conv1", outer if number else inner, size), _cache(f"{name}.conv2", outer, size)]
    return made


def _mid_block(part: str, width: int, size: tuple[int, int]) -> list[Cache]:
    return _residual_blocks(f"{part}.mid_block", width, width, 2, size)
