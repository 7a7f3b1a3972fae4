"""Sound latents to a waveform, over the engine of a bundle. numpy alone."""

from motedge.runtime.sound.decoder import SoundDecoder, open_sound_decoder, require_sound
from motedge.runtime.sound.length import sound_latents

__all__ = ["SoundDecoder", "open_sound_decoder", "require_sound", "sound_latents"]
