"""Images, videos and actions from a bundle: every mode of the generator over its engines. numpy alone."""

from motedge.runtime.generate.generator import Generator
from motedge.runtime.generate.loader import load_generator
from motedge.runtime.generate.mode import ACTION_MODES, MEDIA_MODES, MODES, ModeDefaults, mode_defaults
from motedge.runtime.generate.request import Generated, GenerateRequest

__all__ = [
    "ACTION_MODES",
    "MEDIA_MODES",
    "MODES",
    "GenerateRequest",
    "Generated",
    "Generator",
    "ModeDefaults",
    "load_generator",
    "mode_defaults",
]
