"""Every tensor of sound_tokenizer/ by name and shape, from its config.

Convolutions are kept as direction (weight_v) and length (weight_g) of each slice along the first dimension; weights
are [out, in, taps], those of transposed convolutions [in, out, taps].
"""

from __future__ import annotations

from motedge.checkpoint.keys import Shape
from motedge.checkpoint.sound_config import SoundConfig

# Dilations of a decoder block's residual units have no keys of their own: 1, 3, 9
_UNITS = ("res_unit1", "res_unit2", "res_unit3")
_TAPS = 7


def sound_decoder_shapes(config: SoundConfig) -> dict[str, Shape]:
    """Key -> shape of the decoder, which turns latents into a waveform."""
    widths = config.decoder_widths
    shapes = _normed("decoder.conv1", (widths[0], config.vocoder_input_dim, _TAPS), widths[0])
    for index, stride in enumerate(reversed(config.dec_strides)):
        block, inner, outer = f"decoder.block.{index}", widths[index], widths[index + 1]
        shapes.update(_snake(f"{block}.snake1", inner))
        shapes.update(_normed(f"{block}.conv_t1", (inner, outer, 2 * stride), outer))
        for unit in _UNITS:
            name = f"{block}.{unit}"
            shapes.update(_snake(f"{name}.snake1", outer))
            shapes.update(_normed(f"{name}.conv1", (outer, outer, _TAPS), outer))
            shapes.update(_snake(f"{name}.snake2", outer))
            shapes.update(_normed(f"{name}.conv2", (outer, outer, 1), outer))
    shapes.update(_snake("decoder.snake1", config.dec_dim))
    shapes.update(_normed("decoder.conv2", (config.dec_out_channels, config.dec_dim, _TAPS)))
    return shapes


def sound_encoder_shapes(config: SoundConfig) -> dict[str, Shape]:
    """Key -> shape of the encoder, which a repository may leave out."""
    channels = config.input_channels * (2 if config.stereo else 1)
    widths = [config.enc_dim * multiple for multiple in config.enc_c_mults]
    shapes = _normed("encoder.layers.0", (widths[0], (config.enc_n_fft + 2) * channels, 1))
    layer = 1
    for width, following, stride in zip(widths, [*widths[1:], widths[-1]], config.enc_strides):
        for _ in range(config.enc_num_blocks):
            shapes.update(_convnext(f"encoder.layers.{layer}", width, config.enc_use_snake))
            layer += 1
        shapes.update(_normed(f"encoder.layers.{layer}", (following, width, 2 * stride), following))
        layer += 1
    shapes.update(_normed(f"encoder.layers.{layer}", (config.enc_latent_dim, widths[-1], 1)))
    return shapes


def sound_shapes(config: SoundConfig) -> dict[str, Shape]:
    """Key -> shape of both halves."""
    return {**sound_encoder_shapes(config), **sound_decoder_shapes(config)}


def _convnext(name: str, width: int, snake: bool) -> dict[str, Shape]:
    wide = 4 * width
    return {
        f"{name}.dwconv.1.weight": (width, 1, _TAPS),
        f"{name}.dwconv.1.bias": (width,),
        f"{name}.norm.weight": (width,),
        f"{name}.pwconv1.weight": (wide, width, 1),
        f"{name}.pwconv1.bias": (wide,),
        **(_snake(f"{name}.act", wide) if snake else {}),
        f"{name}.pwconv2.weight": (width, wide, 1),
        f"{name}.pwconv2.bias": (width,),
    }


def _snake(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.alpha": (1, width, 1), f"{name}.beta": (1, width, 1)}


def _normed(name: str, weight: Shape, bias: int | None = None) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight_g": (weight[0], 1, 1), f"{name}.weight_v": weight}
    return shapes if bias is None else {**shapes, f"{name}.bias": (bias,)}
