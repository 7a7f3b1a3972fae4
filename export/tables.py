"""The tables of a bundle: what the host looks up instead of running a graph. Raw little-endian arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from motedge.checkpoint.config import ModelConfig
from motedge.checkpoint.reader import Checkpoint, TensorStore
from motedge.checkpoint.vision_config import SIGLIP2, VisionConfig
from motedge.errors import CheckpointError
from motedge.export.weights import as_bytes
from motedge.files import atomic_open, write_chunks

# Names of the safetensors format -> names of the bundle
TABLE_DTYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}


@dataclass(frozen=True)
class TableSpec:
    """One table."""

    name: str
    shape: tuple[int, ...]
    # Key in the component's weights, or None for one that is computed
    key: str | None
    meaning: str
    # The checkpoint's component that holds the weights
    component: str = "transformer"

    @property
    def file(self) -> str:
        """Path in the bundle."""
        return f"tables/{self.name}.bin"

    def store(self, checkpoint: Checkpoint) -> TensorStore:
        """The component's tensors."""
        store: TensorStore = getattr(checkpoint, self.component)
        return store


def table_specs(config: ModelConfig) -> list[TableSpec]:
    """The tables of a policy bundle."""
    domains, width, hidden = config.num_embodiment_domains, config.action_dim, config.hidden_size
    return [
        TableSpec("inv_freq", (config.head_dim // 2,), None, "rotary frequencies; recomputing them elsewhere differs"),
        TableSpec("embed_tokens", (config.vocab_size, hidden), "embed_tokens.weight", "one row a token id"),
        TableSpec(
            "action_in_weight", (domains, width, hidden), "action_proj_in.fc.weight", "y = x W + b, one W a domain"
        ),
        TableSpec("action_in_bias", (domains, hidden), "action_proj_in.bias.weight", "one b a domain"),
        TableSpec("action_out_weight", (domains, hidden, width), "action_proj_out.fc.weight", "y = x W + b"),
        TableSpec("action_out_bias", (domains, width), "action_proj_out.bias.weight", "one b a domain"),
    ]


def vision_tables(vision: VisionConfig) -> list[TableSpec]:
    """The tables that go with the vision encoder."""
    key = "model.visual.embeddings.position_embedding.weight" if vision.model_type == SIGLIP2 else "pos_embed.weight"
    shape = (vision.num_positions, vision.hidden_size)
    meaning = "learned positions of a square of patches, row by row; resized to an image on the host"
    return [TableSpec("vision_positions", shape, key, meaning, "vision_encoder")]


def inv_freq(config: ModelConfig) -> Tensor:
    """theta ** (-2 i / D) as torch computes it in fp32: other libraries differ in the last bit, which positions of
    15,000 turn into an angle error of 1e-3."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    return 1.0 / (config.rope_theta**exponent)


def table_dtype(spec: TableSpec, checkpoint: Checkpoint) -> str:
    """The dtype that a table is stored in: the checkpoint's own, fp32 for computed ones.

    Raises:
        CheckpointError: a dtype that tables don't have.
    """
    if spec.key is None:
        return "fp32"
    stored = spec.store(checkpoint).dtype(spec.key)
    if stored not in TABLE_DTYPES:
        raise CheckpointError(f"{spec.key} has an unexpected dtype", expected=", ".join(TABLE_DTYPES), got=stored)
    return TABLE_DTYPES[stored]


def write_table(path: Path, spec: TableSpec, checkpoint: Checkpoint) -> tuple[str, int]:
    """Writes one table; returns its sha256 and size.

    Raises:
        CheckpointError: the tensor holds NaN or infinity.
    """
    value = inv_freq(checkpoint.config) if spec.key is None else spec.store(checkpoint).finite_tensor(spec.key)
    data = as_bytes(value.contiguous())
    with atomic_open(path) as stream:
        write_chunks(stream, data)
    return hashlib.sha256(data).hexdigest(), len(data)
