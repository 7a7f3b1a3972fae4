"""The families and the small shape set that integration tests use."""

from __future__ import annotations

from motedge.export.shapes import ShapeSet

FAMILIES = ("edge", "nano", "super")
# An odd latent grid (5 x 6 of a 6 x 7 canvas), so that padding, cropping and their order matter
MINI = ShapeSet("mini", (96, 112), (84, 107), 9, 9, 15.0, max_latent_frames=4, max_actions=16)
# The same small picture with the frames and rows of the DROID policy, so that a policy acts on it
MINI_POLICY = ShapeSet("mini-policy", (96, 112), (84, 107), 33, 33, 15.0, max_latent_frames=9, max_actions=65)
# An odd latent grid without padding; from one image to 17 frames, with actions and without
MINI_MEDIA = ShapeSet(
    "mini-media",
    (80, 96),
    (80, 96),
    9,
    0,
    24.0,
    max_latent_frames=5,
    max_actions=17,
    max_prompt_tokens=512,
    min_latent_frames=1,
    min_actions=0,
)
# A car's camera, 832 x 480, shrunk to a quarter: padded below, 61 frames with 60 actions or without
AV_MEDIA = ShapeSet(
    "mini-av",
    (128, 208),
    (120, 208),
    9,
    0,
    10.0,
    max_latent_frames=16,
    max_actions=61,
    max_prompt_tokens=512,
    min_latent_frames=1,
    min_actions=0,
)
