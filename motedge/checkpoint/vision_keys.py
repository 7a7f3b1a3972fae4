"""Every tensor of vision_encoder/ by name and shape, from its config: Edge's SigLIP2-style ViT, or Qwen3-VL's."""

from __future__ import annotations

from motedge.checkpoint.keys import Shape
from motedge.checkpoint.vision_config import SIGLIP2, VisionConfig


def vision_shapes(config: VisionConfig) -> dict[str, Shape]:
    """Key -> shape of the vision encoder and its projector(s)."""
    return _siglip2(config) if config.model_type == SIGLIP2 else _qwen3_vl(config)


def _siglip2(config: VisionConfig) -> dict[str, Shape]:
    width, wide = config.hidden_size, config.intermediate_size
    embeddings = "model.visual.embeddings"
    shapes = _linear(f"{embeddings}.patch_embedding", 3 * config.patch_size**2, width)
    shapes[f"{embeddings}.position_embedding.weight"] = (config.num_positions, width)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.visual.encoder.layers.{layer}"
        for norm in ("layer_norm1", "layer_norm2"):
            shapes.update(_norm(f"{prefix}.{norm}", width))
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes.update(_linear(f"{prefix}.self_attn.{name}", width, width))
        shapes.update(_linear(f"{prefix}.mlp.fc1", width, wide))
        shapes.update(_linear(f"{prefix}.mlp.fc2", wide, width))
    shapes.update(_norm("model.visual.post_layernorm", width))
    shapes.update(_norm("model.projector.norm", width))
    shapes.update(_linear("model.projector.linear_fc1", config.merged_size, config.projector_hidden_size))
    shapes.update(_linear("model.projector.linear_fc2", config.projector_hidden_size, config.out_hidden_size))
    return shapes


def _qwen3_vl(config: VisionConfig) -> dict[str, Shape]:
    width, wide, patch = config.hidden_size, config.intermediate_size, config.patch_size
    shapes: dict[str, Shape] = {
        "patch_embed.proj.weight": (width, 3, config.temporal_patch_size, patch, patch),
        "patch_embed.proj.bias": (width,),
        "pos_embed.weight": (config.num_positions, width),
    }
    for layer in range(config.num_hidden_layers):
        prefix = f"blocks.{layer}"
        for norm in ("norm1", "norm2"):
            shapes.update(_norm(f"{prefix}.{norm}", width))
        shapes.update(_linear(f"{prefix}.attn.qkv", width, 3 * width))
        shapes.update(_linear(f"{prefix}.attn.proj", width, width))
        shapes.update(_linear(f"{prefix}.mlp.linear_fc1", width, wide))
        shapes.update(_linear(f"{prefix}.mlp.linear_fc2", wide, width))
    shapes.update(_merger("merger", config, norm_width=width))
    for index in range(len(config.deepstack_indexes)):
        # The deepstack mergers normalise the grouped patches, the main one each patch by itself.
        shapes.update(_merger(f"deepstack_merger_list.{index}", config, norm_width=config.merged_size))
    return shapes


def _merger(name: str, config: VisionConfig, *, norm_width: int) -> dict[str, Shape]:
    return {
        **_norm(f"{name}.norm", norm_width),
        **_linear(f"{name}.linear_fc1", config.merged_size, config.projector_hidden_size),
        **_linear(f"{name}.linear_fc2", config.projector_hidden_size, config.out_hidden_size),
    }


def _linear(name: str, width_in: int, width_out: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
