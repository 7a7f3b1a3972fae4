"""What a checkpoint's configs say, before any weight is looked at: model family, variant, sizes, origin, policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.distilled import read_distilled_sigmas
from motedge.checkpoint.policy_metadata import PolicyMetadata, read_policy
from motedge.checkpoint.provenance import Provenance, read_provenance
from motedge.checkpoint.sound_config import SoundConfig
from motedge.checkpoint.vae_config import VaeConfig
from motedge.checkpoint.vision_config import VisionConfig
from motedge.errors import CheckpointError

TRANSFORMER_CLASS = "Cosmos3OmniTransformer"
VARIANTS = ("base", "policy-droid", "4step")


@dataclass(frozen=True)
class CheckpointConfigs:
    """The parsed configs of one checkpoint folder."""

    # "edge", "nano" or "super": which architecture the config describes, whatever its size
    family: str
    # "policy-droid" if checkpoint.json has a policy block, "4step" if it is distilled, else "base"
    variant: str
    config: ModelConfig
    vae_config: VaeConfig
    # None where the root config.json is absent (a partial download)
    vision_config: VisionConfig | None
    # None where the audio tokenizer was not fetched, or the model makes no sound (Edge)
    sound_config: SoundConfig | None
    provenance: Provenance | None
    policy: PolicyMetadata | None
    # Noise levels of a distilled checkpoint; None for any other
    distilled_sigmas: tuple[float, ...] | None

    @classmethod
    def read(cls, root: Path) -> CheckpointConfigs:
        """Reads the configs of a checkpoint folder.

        Raises:
            CheckpointError: another model's folder, or configs that are missing, damaged or of no Cosmos 3 model.
        """
        _require_cosmos3(root)
        config = ModelConfig.from_dict(read_config(root / "transformer" / "config.json"))
        policy, distilled = read_policy(root), read_distilled_sigmas(root)
        root_config = read_config(root / "config.json") if (root / "config.json").exists() else {}
        vision = None
        if "vision_config" in root_config:
            vision = VisionConfig.from_root(root_config, out_hidden_size=config.hidden_size)
        return cls(
            family=family_of(config),
            variant=VARIANTS[1] if policy else VARIANTS[2] if distilled else VARIANTS[0],
            config=config,
            vae_config=VaeConfig.from_dict(read_config(root / "vae" / "config.json")),
            vision_config=vision,
            sound_config=_sound_config(root / "sound_tokenizer" / "config.json"),
            provenance=read_provenance(root),
            policy=policy,
            distilled_sigmas=distilled,
        )


def family_of(config: ModelConfig) -> str:
    """The architecture that a config describes: Edge by its activation, Super by q being wider than the stream."""
    if config.hidden_act == "relu2":
        return "edge"
    return "nano" if config.num_attention_heads * config.head_dim == config.hidden_size else "super"


def read_config(path: Path) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        CheckpointError: the file is missing, or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"the checkpoint lacks {path}",
            fix="give the folder that holds transformer/, vae/ and text_tokenizer/, or fetch it whole",
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON", got=str(error), fix="fetch the checkpoint again") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} is not a JSON object", got=type(value).__name__, fix="fetch the checkpoint again"
        )
    return value


def _sound_config(path: Path) -> SoundConfig | None:
    return SoundConfig.from_dict(read_config(path)) if path.exists() else None


def _require_cosmos3(root: Path) -> None:
    """Raises CheckpointError for a folder of another model, naming what it is."""
    if root.is_file():
        inside = [folder for folder in (root.parent, root.parent.parent) if (folder / "model_index.json").is_file()]
        bring = "`motedge checkpoint fetch` brings a whole one"
        raise CheckpointError(
            f"{root} is a file, not a checkpoint folder",
            expected="the folder that holds transformer/, vae/ and text_tokenizer/",
            fix=f"give the folder that the file is in: {inside[0]}" if inside else bring,
        )
    if not root.is_dir():
        raise CheckpointError(
            f"no checkpoint folder: {root}", fix="`motedge checkpoint fetch` brings one, `make` writes a random one"
        )
    index = root / "model_index.json"
    named = read_config(index).get("transformer", ["diffusers", TRANSFORMER_CLASS]) if index.exists() else None
    if isinstance(named, list) and named[-1] != TRANSFORMER_CLASS:
        raise _other_model(index, named[-1])
    path = root / "transformer" / "config.json"
    got = read_config(path).get("_class_name")
    if got != TRANSFORMER_CLASS:
        raise _other_model(path, got)


def _other_model(path: Path, got: object) -> CheckpointError:
    return CheckpointError(
        f"not a Cosmos 3 checkpoint: {path}",
        expected=f"a transformer of class {TRANSFORMER_CLASS} (Edge, Nano or Super)",
        got=repr(got),
        fix="motedge compiles Cosmos 3 only",
    )
