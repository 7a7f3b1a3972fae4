"""A checkpoint folder in the hub layout, opened for reading.

checkpoint = Checkpoint.open("Cosmos3-Edge-Policy-DROID")
checkpoint.check()
weight = checkpoint.transformer.finite_tensor("layers.0.self_attn.add_q_proj.weight")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from motedge.checkpoint.agreement import check_latent, check_sound, check_transformer, check_vae, check_vision
from motedge.checkpoint.configs import CheckpointConfigs
from motedge.checkpoint.fingerprint import fingerprint
from motedge.checkpoint.fp8_layout import read_precision
from motedge.checkpoint.tensor_store import TensorStore, has_weights
from motedge.checkpoint.tokenizer_files import special_tokens, tokenizer_files
from motedge.checkpoint.weight_norm import WeightNormStore
from motedge.files import PathLike

__all__ = ["Checkpoint", "TensorStore"]


@dataclass(frozen=True)
class Checkpoint(CheckpointConfigs):
    """An opened checkpoint. Opening reads configs and shard headers only; weights are mapped when asked for."""

    root: Path
    transformer: TensorStore
    vae: TensorStore
    # None where the reasoner's vision encoder was not fetched; actions and video do not need it
    vision_encoder: TensorStore | None
    # None where the audio tokenizer was not fetched, or there is none (Edge)
    sound_tokenizer: TensorStore | None

    @classmethod
    def open(cls, path: PathLike) -> Checkpoint:
        """Opens a checkpoint folder.

        Raises:
            CheckpointError: not a Cosmos 3 checkpoint, or one with missing or damaged parts.
        """
        root = Path(path)
        return cls(
            **vars(CheckpointConfigs.read(root)),
            root=root,
            transformer=TensorStore(root / "transformer"),
            vae=TensorStore(root / "vae"),
            vision_encoder=TensorStore(root / "vision_encoder") if has_weights(root / "vision_encoder") else None,
            sound_tokenizer=(
                WeightNormStore(root / "sound_tokenizer") if has_weights(root / "sound_tokenizer") else None
            ),
        )

    @property
    def revision(self) -> str | None:
        """The hub commit that the files are of, or None where unknown (or synthetic)."""
        return self.provenance.revision if self.provenance else None

    @property
    def precision(self) -> str:
        """ "bf16", or "fp8" where NVIDIA quantized it; CheckpointError for any other quantization."""
        return read_precision(self.root)

    @property
    def stores(self) -> list[TensorStore]:
        """Every component's weights that are there."""
        known = (self.transformer, self.vae, self.vision_encoder, self.sound_tokenizer)
        return [store for store in known if store is not None]

    def check(self) -> None:
        """Compares names, shapes and dtypes of all weights with what the configs ask for.

        Raises:
            CheckpointError: the first disagreement, with the tensor and the fields that it follows from.
        """
        check_transformer(self.transformer, self.config, self.precision)
        check_latent(self.config, self.vae_config)
        check_vae(self.vae, self.vae_config)
        if self.vision_encoder is not None and self.vision_config is not None:
            check_vision(self.vision_encoder, self.vision_config)
        if self.sound_tokenizer is not None and self.sound_config is not None:
            check_sound(self.sound_tokenizer, self.sound_config, self.config)

    def check_values(self, keys: list[str] | None = None) -> None:
        """Looks for NaN and infinity in the transformer's tensors (all, or those named): reads them whole.

        Raises:
            CheckpointError: names the first tensor that is not finite.
        """
        for key in self.transformer.keys() if keys is None else keys:
            self.transformer.finite_tensor(key)

    def tokenizer_files(self) -> dict[str, Path]:
        """Name -> path of tokenizer.json, tokenizer_config.json, chat_template.jinja; CheckpointError if missing."""
        return tokenizer_files(self.root)

    def special_tokens(self) -> dict[str, int]:
        """Ids of "eos", "vision_start" and "pad"; CheckpointError if the tokenizer lacks one."""
        return special_tokens(self.root)

    def fingerprint(self) -> str:
        """Hex sha256 that says which checkpoint this is, without reading it whole; equal for a copy elsewhere."""
        return fingerprint(self.root, self.stores, self.revision)
