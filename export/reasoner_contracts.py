"""The contracts of the reasoner's graphs, and the sizes that they are made for."""

from __future__ import annotations

from motedge.bundle import Contract, TensorSpec
from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.vision_config import QWEN3_VL, VisionConfig

# (min, opt, max) of a dynamic size
Range = tuple[int, int, int]
# New tokens of one forward: 1 decodes; a longer prompt goes in pieces
NEW_TOKENS: Range = (1, 256, 2048)
# Slots of the buffer for K and V: prompt, images and reply. Edge takes 114,688 bytes a slot in bf16
SLOTS: Range = (2, 2048, 16384)
# Visual tokens of one image, 32 x 32 pixels each; the optimum is that of 640 x 480, the most that of 1920 x 1208.
# TensorRT takes no tensor of 2^31 elements, and where attention is spelled out heads x patches^2 is one
IMAGE_TOKENS: Range = (1, 300, 2304)
_COS = "cosine of the rotary angles, computed on the host in fp32 from the shipped table"
_SIN = "sine of the rotary angles"


def und(config: ModelConfig, vision: VisionConfig) -> Contract:
    """New tokens of a text -> K and V, and the logits of the token that follows."""
    layers = len(vision.deepstack_indexes)
    deepstack = TensorSpec(
        "deepstack", (layers, "S", "H"), "fp32", "visual features added after each of the first layers; 0 for text"
    )
    gen_key = TensorSpec("k_for_gen", ("L", "K", "S", "D"), "graph", "K of the new tokens for the generator, rotated")
    return Contract(
        graph="und",
        inputs=(
            TensorSpec(
                "embeddings", ("S", "H"), "fp32", "rows of the embedding table, or visual tokens in place of theirs"
            ),
            TensorSpec("cos", ("S", "R"), "fp32", _COS),
            TensorSpec("sin", ("S", "R"), "fp32", _SIN),
            TensorSpec(
                "past_kv",
                ("L", 2, "K", "P", "D"),
                "graph",
                "buffer with rows of the output kv of earlier tokens, then anything finite",
            ),
            TensorSpec("past_length", (1,), "fp32", "rows of past_kv that hold tokens, a whole number of 0 to P"),
            *([deepstack] if layers else []),
        ),
        outputs=(
            TensorSpec("logits", ("V",), "fp32", "of the token after the last new one"),
            TensorSpec(
                "kv", ("L", 2, "K", "S", "D"), "graph", "per layer K (index 0, rotated) and V (index 1) of new tokens"
            ),
            *([gen_key] if config.und_k_norm_for_gen else []),
        ),
        sizes={
            "H": config.hidden_size,
            "L": config.num_hidden_layers,
            "K": config.num_key_value_heads,
            "D": config.head_dim,
            "R": config.head_dim // 2,
            "V": config.vocab_size,
        },
        profile={"S": NEW_TOKENS, "P": SLOTS},
    )


def vision_encoder(vision: VisionConfig) -> Contract:
    """An image, or a frame of a video -> visual tokens."""
    block = vision.spatial_merge_size**2
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    qwen = vision.model_type == QWEN3_VL
    order = "colour, frame, row, column" if qwen else "row, column, colour"
    angles = (
        TensorSpec(
            "cos", ("G", block, "R"), "fp32", "cosine of the rotary angles: those of the patch's row, then its column's"
        ),
        TensorSpec("sin", ("G", block, "R"), "fp32", _SIN),
    )
    features = TensorSpec(
        "deepstack", (len(vision.deepstack_indexes), 1, "G", "H"), "fp32", "features for the first language layers"
    )
    return Contract(
        graph="vision_encoder",
        inputs=(
            TensorSpec(
                "patches",
                (1, "G", block, values),
                "fp32",
                f"pixels by {order}, normalised with mean and deviation 0.5; blocks in raster order, row by row within",
                "-1 to 1",
            ),
            TensorSpec(
                "positions", ("G", block, "E"), "fp32", "rows of the position table, resized to the image on the host"
            ),
            *(angles if qwen else ()),
        ),
        outputs=(
            TensorSpec("tokens", (1, "G", "H"), "fp32", "visual tokens, to stand for those of the placeholders"),
            *([features] if qwen else []),
        ),
        sizes={
            "E": vision.hidden_size,
            "H": vision.out_hidden_size,
            "R": vision.hidden_size // vision.num_attention_heads // 2,
        },
        profile={"G": IMAGE_TOKENS},
    )
