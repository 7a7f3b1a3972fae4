"""Opening the video VAE of a bundle: whichever of its graphs the bundle has."""

from __future__ import annotations

import contextlib
from typing import Optional

from motedge.bundle import Bundle
from motedge.errors import BundleError
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import Engine, EngineOptions
from motedge.runtime.vae.decoder import VideoDecoder
from motedge.runtime.vae.encoder import VideoEncoder

DECODER_GRAPHS = ("vae_decoder", "vae_decoder_first", "vae_decoder_next")
ENCODER_GRAPHS = ("vae_encoder_clip", "vae_encoder_first", "vae_encoder_next")
_Engines = tuple[Optional[Engine], Optional[tuple[Engine, Engine]]]


def open_decoder(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    options: Optional[EngineOptions] = None,
) -> VideoDecoder:
    """Opens the decoder; arguments and errors as of `motedge.runtime.backends.open_engine`."""
    return VideoDecoder(*_open(bundle, DECODER_GRAPHS, "vae-decoder-stream", backend, variant, options))


def open_encoder(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    options: Optional[EngineOptions] = None,
) -> VideoEncoder:
    """Opens the encoder; arguments and errors as of `motedge.runtime.backends.open_engine`."""
    return VideoEncoder(*_open(bundle, ENCODER_GRAPHS, "vae-encoder-stream", backend, variant, options))


def _open(
    bundle: Bundle,
    graphs: tuple[str, str, str],
    group: str,
    backend: str,
    variant: Optional[str],
    options: Optional[EngineOptions],
) -> _Engines:
    whole, first, following = graphs
    known = bundle.manifest.graphs
    with contextlib.ExitStack() as opened:

        def load(graph: str) -> Engine:
            engine = open_engine(bundle, graph, backend=backend, variant=variant, options=options)
            opened.callback(engine.close)
            return engine

        at_once = load(whole) if whole in known else None
        chunks = (load(first), load(following)) if first in known and following in known else None
        if at_once is None and chunks is None:
            raise BundleError(
                "the bundle has no graphs for videos",
                expected=f"{whole}, or {first} and {following}",
                got=", ".join(known),
                fix=f"export again with --extras {group}",
            )
        opened.pop_all()
    return at_once, chunks
