"""Work of the Cosmos 3 towers from their configuration, for requests of which no graph is at hand.

Graphs of a bundle are counted operator by operator (motedge.targets.graph); a test holds the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from motedge.checkpoint.config import ModelConfig
from motedge.targets.roofline.work import OperatorWork, Work

_ACTIVATION_BYTES = 2
_VAE_STRIDE = 16
# Widths of the encoder's blocks at 1/2, 1/4, 1/8 and 1/16 of the picture's sides, two residual blocks each (Wan2.2)
_VAE_WIDTHS = (160, 320, 640, 640)


@dataclass(frozen=True)
class Precision:
    """How projections are computed: types of arithmetic and bits of a stored weight."""

    # Of attention and everything else
    base: str = "bf16"
    attention_projections: str = "bf16"
    attention_bits: float = 16
    feed_forward: str = "bf16"
    feed_forward_bits: float = 16


PRECISIONS = {
    "bf16": Precision(),
    "fp16": Precision("fp16", "fp16", 16, "fp16", 16),
    "w8a16": Precision(attention_bits=8, feed_forward_bits=8),
    "w4a16": Precision(attention_bits=4.125, feed_forward_bits=4.125),
    "fp8": Precision("bf16", "fp8", 8, "fp8", 8),
    "int8": Precision("fp16", "int8", 8, "int8", 8),
    "nvfp4": Precision("bf16", "nvfp4", 4.5, "nvfp4", 4.5),
    "fp8-nvfp4-ffn": Precision("bf16", "fp8", 8, "nvfp4", 4.5),
}


def generator_step(config: ModelConfig, rows: int, und_len: int, precision: Precision = PRECISIONS["bf16"]) -> Work:
    """One denoising forward of `rows` generator tokens over a prompt of `und_len` tokens, without heads."""
    layer = [
        *_projections(config, rows, precision),
        _attention(config, rows, rows + und_len, precision.base),
        _elementwise(config, rows, precision.base),
    ]
    return Work(tuple(layer)).repeated(config.num_hidden_layers)


def prompt_prefill(config: ModelConfig, und_len: int, precision: Precision = PRECISIONS["bf16"]) -> Work:
    """The reasoner over a prompt; causal attention costs half of the full one."""
    attention = _attention(config, und_len, und_len, precision.base)
    causal = OperatorWork("attention", attention.flops / 2, 0.0, attention.activation_bytes, attention.type)
    layer = [*_projections(config, und_len, precision), causal, _elementwise(config, und_len, precision.base)]
    return Work(tuple(layer)).repeated(config.num_hidden_layers)


def decode_token(config: ModelConfig, context: int, precision: Precision = PRECISIONS["bf16"]) -> Work:
    """One token of the reasoner's text: every weight of its tower and the head once, and the cached K and V."""
    layers = prompt_prefill(config, 1, precision).operators
    head = config.vocab_size * config.hidden_size
    cache = 2.0 * config.num_key_value_heads * config.head_dim * context * _ACTIVATION_BYTES * config.num_hidden_layers
    last = OperatorWork("gemm", 2.0 * head, 2.0 * head, 0.0, precision.base)
    return Work((*layers, last, OperatorWork("attention", 0.0, 0.0, cache, precision.base)))


def encode_image(canvas: tuple[int, int], dtype: str = "bf16") -> Work:
    """The one-frame VAE encoder over a canvas of (rows, columns) pixels: convolutions, and one block of attention."""
    operators, inputs = [], 12
    for level, width in enumerate(_VAE_WIDTHS):
        pixels = (canvas[0] >> (level + 1)) * (canvas[1] >> (level + 1))
        if level:
            # Convolutions that halve the sides keep the width
            operators.append(_convolution(inputs, inputs, pixels, dtype))
        else:
            operators.append(_convolution(inputs, width, pixels, dtype))
            inputs = width
        operators.append(_convolution(inputs, width, pixels, dtype))
        operators += [_convolution(width, width, pixels, dtype)] * 3
        inputs = width
    tokens = (canvas[0] // _VAE_STRIDE) * (canvas[1] // _VAE_STRIDE)
    operators += [_convolution(inputs, inputs, tokens, dtype)] * 4
    wide = 4.0 * tokens * tokens * inputs + 8.0 * tokens * inputs * inputs
    operators.append(OperatorWork("attention", wide, 0.0, 8.0 * tokens * inputs, dtype))
    return Work(tuple(operators))


def latent_rows(frames: int, height: int, width: int, actions: int = 0) -> int:
    """Generator tokens of a clip: pixel frames 4k + 1, pixels of the content."""
    patches = -(-(height // _VAE_STRIDE) // 2) * -(-(width // _VAE_STRIDE) // 2)
    return (1 + (frames - 1) // 4) * patches + actions


def _projections(config: ModelConfig, rows: int, precision: Precision) -> list[OperatorWork]:
    hidden, wide = config.hidden_size, config.intermediate_size
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    kind, bits = precision.attention_projections, precision.attention_bits
    ffn, ffn_bits = precision.feed_forward, precision.feed_forward_bits
    found = [_gemm(rows, hidden, width, kind, bits) for width in (query, key, key)]
    found.append(_gemm(rows, query, hidden, kind, bits))
    found += [_gemm(rows, hidden, wide, ffn, ffn_bits)] * (2 if config.gated else 1)
    found.append(_gemm(rows, wide, hidden, ffn, ffn_bits))
    return found


def _gemm(rows: int, inputs: int, outputs: int, kind: str, bits: float) -> OperatorWork:
    moved = float(rows * (inputs + outputs) * _ACTIVATION_BYTES)
    return OperatorWork("gemm", 2.0 * rows * inputs * outputs, inputs * outputs * bits / 8, moved, kind)


def _attention(config: ModelConfig, queries: int, keys: int, kind: str) -> OperatorWork:
    width = config.num_attention_heads * config.head_dim
    flops = 4.0 * queries * keys * width
    cached = 2 * keys * config.num_key_value_heads * config.head_dim
    return OperatorWork("attention", flops, 0.0, float((2 * queries * width + cached) * _ACTIVATION_BYTES), kind)


def _elementwise(config: ModelConfig, rows: int, kind: str) -> OperatorWork:
    """Two norms, two residual sums, rotation of q and k: what is not folded into a matrix product."""
    heads = (config.num_attention_heads + config.num_key_value_heads) * config.head_dim
    return OperatorWork(
        "elementwise", 0.0, 0.0, float(rows * (6 * config.hidden_size + 2 * heads) * _ACTIVATION_BYTES), kind
    )


def _convolution(inputs: int, outputs: int, pixels: int, kind: str) -> OperatorWork:
    weights = 9.0 * inputs * outputs
    moved = float(pixels * (inputs + outputs) * _ACTIVATION_BYTES)
    return OperatorWork("conv", 2.0 * weights * pixels, weights * _ACTIVATION_BYTES, moved, kind)


def total(parts: list[tuple[int, Work]]) -> Work:
    """Several runs one after the other: (times, work)."""
    return Work(tuple(operator for times, work in parts for operator in work.repeated(times).operators))
