"""A checkpoint with the configs, tokenizer, VAE and vision encoder of another, and a transformer of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motedge.checkpoint.keys import Shape, transformer_shapes
from motedge.checkpoint.provenance import RECORD, Provenance, write_provenance
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.repository_files import write_root_index
from motedge.checkpoint.safetensors_stream import SHARD_BYTES, data_bytes, write_component
from motedge.checkpoint.staging import staged_folder
from motedge.errors import CheckpointError
from motedge.files import CHUNK_BYTES, PathLike, copy_file, require_free

if TYPE_CHECKING:
    import torch

# Type of the published weights
_DTYPE = "BF16"
_SKIPPED = (RECORD, "model.safetensors.index.json")


def rewrite_transformer(
    base: Checkpoint,
    out: PathLike,
    tensor: Callable[[str], torch.Tensor],
    provenance: Provenance,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes a checkpoint tensor by tensor; the folder appears whole or not at all.

    Args:
        base: whose other files are taken; bf16.
        out: the folder to make.
        tensor: gives the transformer's tensor of a published name; any floating type, rounded to bf16 once.
        provenance: where the new weights came from.
        shard_bytes: the limit of one weight file's data.

    Raises:
        CheckpointError: `base` is quantized, or a tensor has another shape or is not finite.
        UsageError: `out` exists.
        HostError: too little disk; nothing is left behind.
    """
    if base.precision != "bf16":
        raise CheckpointError(
            f"{base.root} is quantized", expected="the bf16 revision", got=base.precision, fix="fetch revision main"
        )
    shapes = transformer_shapes(base.config)
    target = Path(out)
    require_free(
        target, data_bytes(shapes, _DTYPE) + sum(p.stat().st_size for p in _others(base.root)), "the checkpoint"
    )
    with staged_folder(target) as root:
        write_provenance(root, provenance)
        for path in _others(base.root):
            copy_file(path, root / path.relative_to(base.root))
        files = write_component(
            root / "transformer",
            "diffusion_pytorch_model",
            shapes,
            _DTYPE,
            lambda key, shape: _chunks(key, shape, tensor(key)),
            shard_bytes=shard_bytes,
        )
        vision = base.vision_encoder
        seen = {} if vision is None else {key: vision.entry(key).file.name for key in vision}
        write_root_index(root, files, seen, sum(store.entry(key).size for store in base.stores for key in store))
    return target


def _others(root: Path) -> list[Path]:
    """Files of a checkpoint other than the transformer's weights and what is written anew."""
    found = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root)
        weights = name.parts[0] == "transformer" and ".safetensors" in name.name
        if not weights and name.as_posix() not in _SKIPPED and not name.parts[0].startswith("."):
            found.append(path)
    return found


def _chunks(key: str, shape: Shape, value: torch.Tensor) -> Iterable[np.ndarray]:
    import torch

    if tuple(value.shape) != shape:
        raise CheckpointError(f"a weight has the wrong shape: {key}", expected=list(shape), got=list(value.shape))
    low, high = torch.aminmax(value.float()) if value.numel() else (torch.zeros(()), torch.zeros(()))
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise CheckpointError(
            f"a weight is not finite: {key}", expected="finite numbers", fix="train again, or check it"
        )
    data = value.to(torch.bfloat16).contiguous().view(torch.uint8).reshape(-1).numpy()
    for start in range(0, data.size, CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]
