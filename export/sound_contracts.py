"""The contracts of the sound graphs."""

from __future__ import annotations

from motedge.bundle import Contract, TensorSpec
from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.sound_config import SoundConfig
from motedge.export.contracts import gen_step
from motedge.export.shapes import FRAMES_PER_LATENT, ShapeSet
from motedge.runtime.sound.length import sound_latents


def sound_decoder(config: SoundConfig, shapes: ShapeSet) -> Contract:
    """Sound latents -> waveform."""
    lengths = latent_profile(config, shapes)
    return Contract(
        graph="sound_decoder",
        inputs=(TensorSpec("latent", ("Q", "J"), "fp32", f"sound latents, one every {config.hop} samples"),),
        outputs=(
            TensorSpec(
                "waveform",
                (config.dec_out_channels, "W"),
                "fp32",
                f"samples, {config.sampling_rate} a second; left and right where there are two channels",
                "-1 to 1",
            ),
        ),
        sizes={"Q": config.vocoder_input_dim},
        profile={"J": lengths, "W": (lengths[0] * config.hop, lengths[1] * config.hop, lengths[2] * config.hop)},
    )


def latent_profile(config: SoundConfig, shapes: ShapeSet) -> tuple[int, int, int]:
    """Smallest, usual and largest number of sound latents of a shape set's videos, at its own rate."""

    def length(frames: int) -> int:
        return sound_latents(frames, shapes.fps, sample_rate_hz=config.sampling_rate, hop=config.hop)

    most = FRAMES_PER_LATENT * (shapes.max_latent_frames - 1) + 1
    return 1, max(1, length(shapes.frames)), max(1, length(most))


def gen_step_sound(config: ModelConfig, sound: SoundConfig, shapes: ShapeSet) -> Contract:
    """One denoising forward of the generator with sound: gen_step's tensors and sound's."""
    plain, lengths = gen_step(config, shapes), latent_profile(sound, shapes)
    state = TensorSpec("sound", ("Q", "J"), "fp32", "noisy sound latents; clean ones hold their values")
    mask = TensorSpec("sound_noisy", ("J",), "fp32", "1 for a noisy sound latent, 0 for a clean one")
    velocity = TensorSpec("sound_velocity", ("Q", "J"), "fp32", "noise minus data; 0 on clean latents")
    low, opt, high = (tokens + count for tokens, count in zip(plain.profile["N"], lengths, strict=True))
    return Contract(
        graph="gen_step_sound",
        inputs=_after(_after(plain.inputs, "action", state), "action_noisy", mask),
        outputs=(*plain.outputs, velocity),
        sizes={**plain.sizes, "Q": sound.vocoder_input_dim},
        profile={**plain.profile, "N": (low, opt, high), "J": lengths},
    )


def _after(specs: tuple[TensorSpec, ...], name: str, added: TensorSpec) -> tuple[TensorSpec, ...]:
    index = [spec.name for spec in specs].index(name) + 1
    return (*specs[:index], added, *specs[index:])
