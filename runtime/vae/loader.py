"""Opening the video VAE of a bundle: whichever of its graphs the bundle has."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Optional, Protocol

from motedge.bundle import Bundle
from motedge.errors import BundleError
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import Engine, EngineOptions
from motedge.runtime.vae.chunks import Chunks, HostChunks
from motedge.runtime.vae.decoder import VideoDecoder
from motedge.runtime.vae.encoder import VideoEncoder

DECODER_GRAPHS = ("vae_decoder", "vae_decoder_first", "vae_decoder_next")
ENCODER_GRAPHS = ("vae_encoder_clip", "vae_encoder_first", "vae_encoder_next")
_Parts = tuple[Optional[Engine], Optional[Chunks]]


class GraphSource(Protocol):
    """Loads graphs of a bundle."""

    def engine(self, graph: str) -> Engine:
        """One graph, with numpy arrays on the outside."""
        ...

    def chunks(self, first: str, following: str) -> Chunks:
        """The two graphs of a video in chunks."""
        ...


@dataclass(frozen=True)
class HostSource:
    """A `GraphSource` by `motedge.runtime.backends.open_engine`, whose arguments it has."""

    bundle: Bundle
    backend: str = "onnxruntime"
    variant: Optional[str] = None
    options: Optional[EngineOptions] = None

    def engine(self, graph: str) -> Engine:
        """See `GraphSource.engine`."""
        return open_engine(self.bundle, graph, backend=self.backend, variant=self.variant, options=self.options)

    def chunks(self, first: str, following: str) -> Chunks:
        """See `GraphSource.chunks`."""
        one = self.engine(first)
        try:
            return HostChunks(one, self.engine(following))
        except BaseException:
            one.close()
            raise


def open_decoder(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    options: Optional[EngineOptions] = None,
    source: Optional[GraphSource] = None,
) -> VideoDecoder:
    """Opens the decoder; arguments and errors as of `motedge.runtime.backends.open_engine`, or by `source`."""
    source = HostSource(bundle, backend, variant, options) if source is None else source
    return VideoDecoder(*_open(bundle, DECODER_GRAPHS, "vae-decoder-stream", source))


def open_encoder(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    options: Optional[EngineOptions] = None,
    source: Optional[GraphSource] = None,
) -> VideoEncoder:
    """Opens the encoder; arguments and errors as of `motedge.runtime.backends.open_engine`, or by `source`."""
    source = HostSource(bundle, backend, variant, options) if source is None else source
    return VideoEncoder(*_open(bundle, ENCODER_GRAPHS, "vae-encoder-stream", source))


def _open(bundle: Bundle, graphs: tuple[str, str, str], group: str, source: GraphSource) -> _Parts:
    whole, first, following = graphs
    known = bundle.manifest.graphs
    with contextlib.ExitStack() as opened:
        at_once = opened.enter_context(contextlib.closing(source.engine(whole))) if whole in known else None
        chunks = source.chunks(first, following) if first in known and following in known else None
        if at_once is None and chunks is None:
            raise BundleError(
                "the bundle has no graphs for videos",
                expected=f"{whole}, or {first} and {following}",
                got=", ".join(known),
                fix=f"export again with --extras {group}",
            )
        opened.pop_all()
    return at_once, chunks
