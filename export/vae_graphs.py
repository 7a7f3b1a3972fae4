"""The graphs of the video VAE: decoder and encoder, each for a whole video and for one that comes in chunks."""

from __future__ import annotations

from motedge.export import vae_contracts
from motedge.export.graphs import GraphSpec
from motedge.export.modules.vae_decoder import VaeDecoder
from motedge.export.modules.vae_video_encoder import VaeVideoEncoder
from motedge.export.towers import assemble_whole

_COMPONENT = "vae"


def _decoder(name: str, form: str, shares: GraphSpec | None = None) -> GraphSpec:
    return GraphSpec(
        name,
        getattr(vae_contracts, name),
        _COMPONENT,
        None,
        lambda checkpoint, precision, shapes: VaeDecoder(checkpoint.vae_config, precision, form),
        assemble_whole,
        config="vae_config",
        shares=shares,
    )


def _encoder(name: str, form: str, shares: GraphSpec | None = None) -> GraphSpec:
    return GraphSpec(
        name,
        getattr(vae_contracts, name),
        _COMPONENT,
        None,
        lambda checkpoint, precision, shapes: VaeVideoEncoder(checkpoint.vae_config, precision, shapes.grid, form),
        assemble_whole,
        config="vae_config",
        shares=shares,
    )


VAE_DECODER = _decoder("vae_decoder", "whole")
VAE_ENCODER_CLIP = _encoder("vae_encoder_clip", "whole")
# Group of motedge.export.extras -> graphs. The first chunk's graph uses a part of the weights that the next one's reads
VAE_EXTRAS = {
    "vae-decoder": (VAE_DECODER,),
    "vae-decoder-stream": (
        _decoder("vae_decoder_first", "first", VAE_DECODER),
        _decoder("vae_decoder_next", "next", VAE_DECODER),
    ),
    "vae-encoder-clip": (VAE_ENCODER_CLIP,),
    "vae-encoder-stream": (
        _encoder("vae_encoder_first", "first", VAE_ENCODER_CLIP),
        _encoder("vae_encoder_next", "next", VAE_ENCODER_CLIP),
    ),
}
