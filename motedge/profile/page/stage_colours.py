"""Which colour of the page's palette a stage has, in every picture."""

from __future__ import annotations

from motedge.profile.stages import BETWEEN, step_of

_FIXED = {
    "reason": "s5",
    "ingest": "s6",
    "vae_encoder": "s3",
    "prefill": "s4",
    "noise": "s5",
    "enqueue": "s6",
    "decode": "s7",
    "denoise": "s0",
    "wait": "s0",
}
_PARTS = {"cond": "s0", "uncond": "s1", "solver": "s2"}
# Name in the legend -> class
LEGEND = {
    "ingest": "s6",
    "image encoder": "s3",
    "prompt prefill": "s4",
    "forward with the prompt": "s0",
    "forward without": "s1",
    "guidance and solver": "s2",
    "decode, tokenize": "s7",
    "noise": "s5",
    "other": "s-none",
}
DEVICE_LEGEND = {
    "host: ingest, enqueue": "s6",
    "host: prefill": "s4",
    "host: waiting": "s0",
    "GPU: image encoder": "s3",
    "GPU: denoising": "s0",
    "other": "s-none",
}


def colour(stage: str) -> str:
    """The CSS class."""
    step = step_of(stage)
    if step is not None:
        return _PARTS[step[1]]
    if stage == BETWEEN:
        return "s-none"
    return _FIXED.get(stage, "s7" if stage == "tokenize" else "s-none")
