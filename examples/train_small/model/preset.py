"""How large the small model is: Edge's structure, two heads of 128, about 2.4 M parameters with the VAE.

The heads stay 128 wide and the positions, patches and action rows as published, so that it runs through exactly the
code that a full checkpoint does. Only two of the 32 domains of actions are kept: none, and `av`.
"""

from __future__ import annotations

import dataclasses

from motedge.checkpoint.presets import Preset, preset

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KEY_HEADS = 128, 256, 4, 2, 1
# Special tokens, bytes and what is learned of the project's sentences
VOCABULARY = 448
DOMAINS = 2
ENCODER_WIDTH, DECODER_WIDTH = 8, 6
# The reasoner's picture encoder is there for the layout alone: no policy runs it, and it is not trained
VIT_WIDTH, VIT_LAYERS = 24, 1


def small_preset() -> Preset:
    """The configurations, with the published VAE's latent statistics until its own are known."""
    tiny = preset("edge", "tiny")
    transformer = dataclasses.replace(
        tiny.transformer,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        vocab_size=VOCABULARY,
        num_embodiment_domains=DOMAINS,
    )
    vision = dataclasses.replace(
        tiny.vision,
        hidden_size=VIT_WIDTH,
        intermediate_size=2 * VIT_WIDTH,
        num_hidden_layers=VIT_LAYERS,
        num_attention_heads=1,
        projector_hidden_size=4 * VIT_WIDTH,
        out_hidden_size=HIDDEN,
    )
    vae = dataclasses.replace(tiny.vae, base_dim=ENCODER_WIDTH, decoder_base_dim=DECODER_WIDTH)
    return dataclasses.replace(tiny, transformer=transformer, vision=vision, vae=vae)
