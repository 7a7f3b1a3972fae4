"""Sound latents to a waveform, and the opening of what does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import numpy as np

from motedge.bundle import Bundle
from motedge.errors import BundleError, ContractError
from motedge.runtime.backends import open_engine
from motedge.runtime.engine import Engine, EngineOptions, FloatArray
from motedge.runtime.finite import check_finite

GRAPH = "sound_decoder"
GENERATOR_GRAPH = "gen_step_sound"


class SoundDecoder:
    """Decodes over the engine of `sound_decoder`."""

    def __init__(self, engine: Engine, sample_rate_hz: int) -> None:
        """Takes over the engine.

        Args:
            engine: of `sound_decoder`.
            sample_rate_hz: of its waveforms (`manifest.model["sound_config"]["sampling_rate"]`).
        """
        self._engine = engine
        self.sample_rate_hz = sample_rate_hz
        profile = engine.contract.profile
        # Samples per latent
        self.hop = profile["W"][2] // profile["J"][2]
        self._channels = engine.contract.sizes["Q"]

    def decode(self, latent: FloatArray) -> FloatArray:
        """The whole waveform.

        Args:
            latent: fp32 [Q, J], as the generator leaves it; it has no statistics to undo.

        Returns:
            fp32 [channels, hop * J] in [-1, 1].

        Raises:
            ContractError: another shape, or a J that the graph does not take.
            NonFiniteError: the decoder returned NaN or infinity.
        """
        if latent.ndim != 2 or latent.shape[0] != self._channels or latent.shape[1] < 1:
            raise ContractError(
                "these are no latents of a sound", expected=f"[{self._channels}, J], J at least 1", got=latent.shape
            )
        count = int(latent.shape[1])
        context = self._engine.context({"J": count, "W": self.hop * count})
        context.set_input("latent", np.ascontiguousarray(latent, np.float32))
        context.run()
        waveform: FloatArray = context.output("waveform").copy()
        check_finite(waveform, f"graph {GRAPH!r} returned NaN or infinity")
        return waveform

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()


def require_sound(bundle: Bundle) -> None:
    """Raises BundleError for a bundle without the graphs of sound."""
    known = bundle.manifest.graphs
    if not {GENERATOR_GRAPH, GRAPH} <= set(known):
        raise BundleError(
            "the bundle makes no sound",
            expected=f"{GENERATOR_GRAPH} and {GRAPH} among its graphs",
            got=", ".join(known),
            why="the checkpoint makes none (Edge), or it was exported without",
            fix="export a Nano or Super checkpoint with --extras sound",
        )


def open_sound_decoder(
    bundle: Bundle,
    *,
    backend: str = "onnxruntime",
    variant: Optional[str] = None,
    options: Optional[EngineOptions] = None,
    load: Optional[Callable[[str], Engine]] = None,
) -> SoundDecoder:
    """Opens the decoder; arguments and further errors as of `motedge.runtime.backends.open_engine`, or by `load`.

    Raises:
        BundleError: the bundle has no sound.
    """
    require_sound(bundle)
    config = bundle.manifest.model.get("sound_config")
    if not isinstance(config, dict) or not isinstance(config.get("sampling_rate"), int):
        raise BundleError(
            "the manifest does not say at which rate the sound plays",
            expected="model.sound_config.sampling_rate",
            got=config,
            fix="export again",
        )
    if load is None:
        engine = open_engine(bundle, GRAPH, backend=backend, variant=variant, options=options)
    else:
        engine = load(GRAPH)
    return SoundDecoder(engine, config["sampling_rate"])
