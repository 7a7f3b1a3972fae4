"""The graphs of sound, beside the policy's, for checkpoints that have an audio tokenizer (Nano and Super)."""

from __future__ import annotations

from dataclasses import dataclass

from motedge.bundle import Contract
from motedge.checkpoint.reader import Checkpoint, TensorStore
from motedge.checkpoint.sound_config import SoundConfig
from motedge.errors import ExportError
from motedge.export import sound_contracts
from motedge.export.graphs import GRAPHS, GraphSpec
from motedge.export.modules.gen_sound import GenStepSound
from motedge.export.modules.sound_decoder import SoundDecoder
from motedge.export.shapes import ShapeSet
from motedge.export.sound_towers import assemble_gen_step_sound
from motedge.export.towers import assemble_whole


@dataclass(frozen=True)
class SoundGraph(GraphSpec):
    """A graph of checkpoints that make sound."""

    def contract_of(self, checkpoint: Checkpoint, shapes: ShapeSet) -> Contract:
        """The graph's contract; ExportError for a checkpoint without sound."""
        return self.contract(checkpoint, shapes)

    def store(self, checkpoint: Checkpoint) -> TensorStore:
        """The component's tensors; ExportError for a checkpoint without sound."""
        sound_of(checkpoint)
        return super().store(checkpoint)


def sound_of(checkpoint: Checkpoint) -> SoundConfig:
    """The audio tokenizer's config.

    Raises:
        ExportError: the model makes no sound, or came without the audio tokenizer.
    """
    if not checkpoint.config.sound_gen:
        raise ExportError(
            f"{checkpoint.root} is a model without sound",
            expected="sound_gen true in transformer/config.json",
            got=checkpoint.config.sound_gen,
            why="Edge and the distilled models make none",
            fix="take Cosmos3-Nano or -Super, or export without the group sound",
        )
    sound = checkpoint.sound_config
    if sound is None or checkpoint.sound_tokenizer is None:
        raise ExportError(
            f"{checkpoint.root} lacks the audio tokenizer",
            expected="sound_tokenizer/ with its config.json",
            why="it turns the model's sound latents into a waveform",
            fix="fetch the whole checkpoint, or export without the group sound",
        )
    return sound


GEN_STEP_SOUND = SoundGraph(
    "gen_step_sound",
    lambda checkpoint, shapes: sound_contracts.gen_step_sound(checkpoint.config, sound_of(checkpoint), shapes),
    "transformer",
    "gen",
    lambda checkpoint, precision, shapes: GenStepSound(checkpoint.config, precision, shapes.grid),
    assemble_gen_step_sound,
    # All but the sound's own projections
    shares=GRAPHS["gen_step"],
)
SOUND_DECODER = SoundGraph(
    "sound_decoder",
    lambda checkpoint, shapes: sound_contracts.sound_decoder(sound_of(checkpoint), shapes),
    "sound_tokenizer",
    None,
    lambda checkpoint, precision, shapes: SoundDecoder(sound_of(checkpoint), precision),
    assemble_whole,
)
# Group of motedge.export.extras -> its graphs
SOUND_EXTRAS: dict[str, tuple[GraphSpec, ...]] = {"sound": (GEN_STEP_SOUND, SOUND_DECODER)}
