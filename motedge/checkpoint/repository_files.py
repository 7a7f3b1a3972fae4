"""The small files of a hub repository, beside weights and tokenizer: model index, configs, scheduler, policy block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motedge.checkpoint.distilled import INDEX as DISTILLED_INDEX
from motedge.checkpoint.distilled import PUBLISHED_SIGMAS
from motedge.checkpoint.keys import tower_of
from motedge.checkpoint.policy_metadata import PolicyMetadata
from motedge.checkpoint.presets import Preset
from motedge.checkpoint.sound_config import SOUND_CLASS, SoundConfig
from motedge.files import write_json

# The library release whose layout this is
DIFFUSERS_VERSION = "0.42.1"
# The published DROID policies: 32 actions a request at 15 Hz
DROID_POLICY = PolicyMetadata(action_chunk_size=32, conditioning_fps=15.0, domain_name="droid_lerobot")
_PIPELINE = "Cosmos3OmniPipeline"
_MAX_POSITIONS = {"edge": 131072, "nano": 262144, "super": 262144}


def write_repository_files(root: Path, family: str, variant: str, preset: Preset) -> None:
    """Writes every JSON file that does not depend on how the weights were sharded.

    Raises:
        HostError: the disk is full or not writable.
    """
    edge = family == "edge"
    files: dict[str, dict[str, Any]] = {
        "model_index.json": _model_index(edge, preset.sound),
        "transformer/config.json": {
            "_class_name": "Cosmos3OmniTransformer",
            "_diffusers_version": DIFFUSERS_VERSION,
            **preset.transformer.to_dict(),
        },
        "vae/config.json": {**preset.vae.to_dict(), "_diffusers_version": DIFFUSERS_VERSION},
        "scheduler/scheduler_config.json": _scheduler(edge),
        "config.json": _root_config(family, preset),
        "generation_config.json": _generation(edge),
        "preprocessor_config.json": _preprocessor(edge),
    }
    if preset.sound is not None:
        files["sound_tokenizer/config.json"] = {**preset.sound.to_dict(), "_diffusers_version": DIFFUSERS_VERSION}
    if variant == "policy-droid":
        files["checkpoint.json"] = {"policy": vars(DROID_POLICY)}
    if variant == "4step":
        files[DISTILLED_INDEX] = {
            "_class_name": "Cosmos3DistilledModularPipeline",
            "_diffusers_version": DIFFUSERS_VERSION,
            "is_distilled": True,
            "distilled_sigmas": list(PUBLISHED_SIGMAS),
        }
    for name, value in files.items():
        write_json(root / name, value)


def write_root_index(root: Path, transformer: Mapping[str, str], vision: Mapping[str, str], total_bytes: int) -> None:
    """Writes the root index as published: it lists the reasoner's tensors only, so readers can't rely on it.

    Args:
        root: the repository.
        transformer: key -> file name in transformer/.
        vision: key -> file name in vision_encoder/.
        total_bytes: data of all weights.
    """
    weight_map = {key: f"transformer/{name}" for key, name in transformer.items() if tower_of(key) == "und"}
    weight_map.update({key: f"vision_encoder/{name}" for key, name in vision.items()})
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(root / "model.safetensors.index.json", index)


def _model_index(edge: bool, sound: SoundConfig | None) -> dict[str, Any]:
    return {
        "_class_name": _PIPELINE,
        "_diffusers_version": DIFFUSERS_VERSION,
        "default_use_system_prompt": not edge,
        "enable_safety_checker": True,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "sound_tokenizer": [None, None] if sound is None else ["diffusers", SOUND_CLASS],
        "text_tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "Cosmos3OmniTransformer"],
        "use_native_flow_schedule": edge,
        "vae": ["diffusers", "AutoencoderKLWan"],
    }


def _scheduler(edge: bool) -> dict[str, Any]:
    """Edge gets its sigmas from the caller; Nano and Super ship Karras sigmas, which their documentation overrides."""
    karras = {"use_karras_sigmas": True, "sigma_max": 200.0, "sigma_min": 0.147, "flow_shift": 1.0}
    plain = {"use_karras_sigmas": False, "sigma_max": None, "sigma_min": None, "flow_shift": 5.0}
    return {
        "_class_name": "UniPCMultistepScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "final_sigmas_type": "zero",
        "lower_order_final": True,
        "num_train_timesteps": 1000,
        "predict_x0": True,
        "prediction_type": "flow_prediction",
        "solver_order": 2,
        "solver_type": "bh2",
        "thresholding": False,
        "use_flow_sigmas": True,
        **(plain if edge else karras),
    }


def _root_config(family: str, preset: Preset) -> dict[str, Any]:
    """The reasoner's entry point: what the `transformers` library reads."""
    edge, model = family == "edge", preset.transformer
    text = {
        "model_type": "cosmos3_edge_text" if edge else "qwen3_vl_text",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "hidden_act": model.hidden_act,
        "rms_norm_eps": model.rms_norm_eps,
        "max_position_embeddings": _MAX_POSITIONS[family],
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": model.rope_theta,
            "mrope_section": list(model.rope_axes_dim),
        },
    }
    ids = (19, 18, 20, 21) if edge else (151655, 151656, 151652, 151653)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {
        "architectures": ["Cosmos3EdgeForConditionalGeneration" if edge else "Cosmos3ForConditionalGeneration"],
        "model_type": "cosmos3_edge" if edge else "cosmos3_omni",
        "dtype": "bfloat16",
        "text_config": text,
        "vision_config": preset.vision.to_dict(),
        **({"projector_hidden_size": preset.vision.projector_hidden_size} if edge else {}),
        **dict(zip(names, ids)),
        "tie_word_embeddings": False,
        "allow_patterns_overrides": ["*/*.safetensors"],
    }


def _generation(edge: bool) -> dict[str, Any]:
    if edge:
        return {"bos_token_id": 1, "eos_token_id": 11, "pad_token_id": 0, "do_sample": False}
    return {"bos_token_id": 151643, "eos_token_id": 151645, "pad_token_id": 151643, "do_sample": False}


def _preprocessor(edge: bool) -> dict[str, Any]:
    return {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "patch_size": 16,
        "temporal_patch_size": 1 if edge else 2,
        "merge_size": 2,
        # Pixels of one image after the resize
        "size": {"shortest_edge": 65536, "longest_edge": 16777216},
    }
