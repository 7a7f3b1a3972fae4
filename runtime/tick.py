"""One whole tick from recorded arrays: image to latent, latent and state through the loop. For samples and checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from motedge.errors import BundleError, closest
from motedge.runtime.denoise import DenoiseLoop
from motedge.runtime.engine import Array, Engine, FloatArray
from motedge.runtime.finite import check_finite
from motedge.runtime.request import GenInputs, SamplerSettings

# Arrays that a recorded tick has beside its settings:
#   in.image        fp32 [1, 3, Y, X], padded canvas in [-1, 1]; becomes latent frame 0
#   in.action_clean fp32 [A, Z]       in.action_noisy fp32 [A]      in.vision_noisy fp32 [T]
#   in.cond_tokens  int64 [n]         in.uncond_tokens int64 [n]
INPUTS = ("in.image", "in.action_clean", "in.action_noisy", "in.vision_noisy", "in.cond_tokens", "in.uncond_tokens")
#   out.latent fp32 [C, 1, h, w] of the VAE; out.vision fp32 [C, T, h, w], out.action fp32 [A, Z] of the loop
OUTPUTS = ("out.latent", "out.vision", "out.action")
SETTINGS = (
    "steps",
    "shift",
    "guidance",
    "guidance_interval",
    "seed",
    "fps",
    "action_start_offset",
    "domain_id",
    "raw_dim",
)
# Of distilled models alone
OPTIONAL_SETTINGS = ("distilled_sigmas",)


def run_tick(
    loop: DenoiseLoop, vae: Engine, arrays: Mapping[str, Array], settings: Mapping[str, Any]
) -> dict[str, Array]:
    """Encodes the image and denoises.

    Args:
        loop: over und_prefill and gen_step.
        vae: engine of vae_encoder.
        arrays: the INPUTS.
        settings: the SETTINGS; see `settings_from_json`.

    Returns:
        The OUTPUTS.

    Raises:
        ContractError: arrays that don't fit the graphs.
        NonFiniteError: a graph returned NaN or infinity.
    """
    inputs, latent = tick_inputs(vae, arrays, settings)
    interval = settings["guidance_interval"]
    sampler = SamplerSettings(
        steps=int(settings["steps"]),
        shift=float(settings["shift"]),
        guidance=float(settings["guidance"]),
        guidance_interval=None if interval is None else (float(interval[0]), float(interval[1])),
        distilled_sigmas=settings.get("distilled_sigmas"),
    )
    result = loop.run(inputs, sampler)
    return {"out.latent": latent, "out.vision": result.vision, "out.action": result.action}


def tick_inputs(
    vae: Engine, arrays: Mapping[str, Array], settings: Mapping[str, Any], seed: Optional[int] = None
) -> tuple[GenInputs, FloatArray]:
    """Encodes the image; what the loop is asked for, and the latent.

    Args:
        vae, arrays, settings: as `run_tick`.
        seed: of the noise, in place of the recorded one.

    Raises:
        ContractError, NonFiniteError: as `run_tick`.
    """
    context = vae.context({})
    context.set_input("image", arrays["in.image"])
    context.run()
    latent = context.output("latent").copy()
    check_finite(latent, "graph 'vae_encoder' returned NaN or infinity")
    channels, _, rows, columns = latent.shape
    vision_clean = np.zeros((channels, arrays["in.vision_noisy"].size, rows, columns), np.float32)
    vision_clean[:, :1] = latent
    inputs = GenInputs(
        vision_clean=vision_clean,
        vision_noisy=arrays["in.vision_noisy"],
        action_clean=arrays["in.action_clean"],
        action_noisy=arrays["in.action_noisy"],
        cond_tokens=arrays["in.cond_tokens"],
        uncond_tokens=arrays["in.uncond_tokens"],
        fps=float(settings["fps"]),
        domain_id=int(settings["domain_id"]),
        raw_dim=int(settings["raw_dim"]),
        seed=int(settings["seed"]) if seed is None else seed,
        action_start_offset=int(settings["action_start_offset"]),
    )
    return inputs, latent


def settings_from_json(text: str) -> dict[str, Any]:
    """Parses the settings string of a recorded tick.

    Raises:
        BundleError: not JSON, a missing or an unknown key.
    """
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise BundleError("the settings of the tick sample are not JSON", got=str(error), fix="export again") from error
    if not isinstance(settings, dict):
        raise BundleError("the settings of the tick sample are not a JSON object", got=text, fix="export again")
    for key in settings:
        if key not in (*SETTINGS, *OPTIONAL_SETTINGS):
            raise BundleError(f"the tick sample has an unknown setting {key!r}", fix=closest(key, SETTINGS))
    missing = [key for key in SETTINGS if key not in settings]
    if missing:
        raise BundleError("the tick sample lacks settings", got=f"no {', '.join(missing)}", fix="export again")
    return settings
