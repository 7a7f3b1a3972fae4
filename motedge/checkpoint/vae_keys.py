"""Every tensor of vae/ by name and shape, from its config (AutoencoderKLWan, Wan2.2 residual form).

Convolution weights are [out, in, time, rows, columns]; the resamplers' and the attention's are 2-D.
"""

from __future__ import annotations

from motedge.checkpoint.keys import Shape
from motedge.checkpoint.vae_config import VaeConfig


def vae_shapes(config: VaeConfig) -> dict[str, Shape]:
    """Key -> shape of the encoder, the quantisation convolutions and the decoder."""
    latent = config.z_dim
    return {
        **_encoder(config),
        **_conv("quant_conv", 2 * latent, 2 * latent, (1, 1, 1)),
        **_conv("post_quant_conv", latent, latent, (1, 1, 1)),
        **_decoder(config),
    }


def vae_part_of(key: str) -> str:
    """ "encoder" or "decoder": which half needs the tensor."""
    return "encoder" if key.startswith(("encoder.", "quant_conv.")) else "decoder"


def _encoder(config: VaeConfig) -> dict[str, Shape]:
    widths = config.encoder_widths
    shapes = _conv("encoder.conv_in", config.in_channels, widths[0], (3, 3, 3))
    for index, (width_in, width_out) in enumerate(zip(widths, widths[1:])):
        block = f"encoder.down_blocks.{index}"
        for number in range(config.num_res_blocks):
            shapes.update(_res_block(f"{block}.resnets.{number}", width_out if number else width_in, width_out))
        if index < len(config.dim_mult) - 1:
            shapes.update(_conv(f"{block}.downsampler.resample.1", width_out, width_out, (3, 3)))
            if config.temperal_downsample[index]:
                shapes.update(_conv(f"{block}.downsampler.time_conv", width_out, width_out, (3, 1, 1)))
    shapes.update(_mid_block("encoder.mid_block", widths[-1]))
    shapes["encoder.norm_out.gamma"] = (widths[-1], 1, 1, 1)
    shapes.update(_conv("encoder.conv_out", widths[-1], 2 * config.z_dim, (3, 3, 3)))
    return shapes


def _decoder(config: VaeConfig) -> dict[str, Shape]:
    widths = config.decoder_widths
    doubles_time = tuple(reversed(config.temperal_downsample))
    shapes = _conv("decoder.conv_in", config.z_dim, widths[0], (3, 3, 3))
    shapes.update(_mid_block("decoder.mid_block", widths[0]))
    for index, (width_in, width_out) in enumerate(zip(widths, widths[1:])):
        block = f"decoder.up_blocks.{index}"
        for number in range(config.num_res_blocks + 1):
            shapes.update(_res_block(f"{block}.resnets.{number}", width_out if number else width_in, width_out))
        if index < len(config.dim_mult) - 1:
            shapes.update(_conv(f"{block}.upsampler.resample.1", width_out, width_out, (3, 3)))
            if doubles_time[index]:
                shapes.update(_conv(f"{block}.upsampler.time_conv", width_out, 2 * width_out, (3, 1, 1)))
    shapes["decoder.norm_out.gamma"] = (widths[-1], 1, 1, 1)
    shapes.update(_conv("decoder.conv_out", widths[-1], config.out_channels, (3, 3, 3)))
    return shapes


def _mid_block(name: str, width: int) -> dict[str, Shape]:
    attention = f"{name}.attentions.0"
    return {
        **_res_block(f"{name}.resnets.0", width, width),
        f"{attention}.norm.gamma": (width, 1, 1),
        **_conv(f"{attention}.to_qkv", width, 3 * width, (1, 1)),
        **_conv(f"{attention}.proj", width, width, (1, 1)),
        **_res_block(f"{name}.resnets.1", width, width),
    }


def _res_block(name: str, width_in: int, width_out: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {
        f"{name}.norm1.gamma": (width_in, 1, 1, 1),
        **_conv(f"{name}.conv1", width_in, width_out, (3, 3, 3)),
        f"{name}.norm2.gamma": (width_out, 1, 1, 1),
        **_conv(f"{name}.conv2", width_out, width_out, (3, 3, 3)),
    }
    if width_in != width_out:
        shapes.update(_conv(f"{name}.conv_shortcut", width_in, width_out, (1, 1, 1)))
    return shapes


def _conv(name: str, width_in: int, width_out: int, kernel: Shape) -> dict[str, Shape]:
    return {f"{name}.weight": (width_out, width_in, *kernel), f"{name}.bias": (width_out,)}
