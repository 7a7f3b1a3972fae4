"""One component's weights (transformer/, vae/, vision_encoder/), memory-mapped, by name.

The component's own index says which shard holds a tensor; the repository's root index is never read, because Edge's
lists no tensor of the generator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from motedge.checkpoint.keys import Shape
from motedge.checkpoint.safetensors_header import TensorEntry, read_header
from motedge.errors import CheckpointError, closest

if TYPE_CHECKING:
    import torch

# In the order of preference; a folder may hold further precisions (`*.fp16.safetensors`), which are ignored.
_STEMS = ("diffusion_pytorch_model", "model")
# The format's dtype names and torch's
_TORCH_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class TensorStore:
    """Tensors of one folder by name: shapes and dtypes from the headers, data from the memory map."""

    def __init__(self, folder: Path) -> None:
        """Reads the index and every shard's header.

        Raises:
            CheckpointError: no weights, a missing or damaged shard, or an index that contradicts the shards.
        """
        self.folder = folder
        self.headers: dict[Path, bytes] = {}
        self._entries: dict[str, TensorEntry] = {}
        weight_map = _weight_map(folder)
        for file in sorted(set(weight_map.values())) if weight_map else [_single_file(folder)]:
            entries, self.headers[file] = read_header(file)
            if weight_map is None:
                self._entries = entries
                continue
            for key in (key for key, owner in weight_map.items() if owner == file):
                if key not in entries:
                    raise CheckpointError(
                        f"the index of {folder} names a tensor that its shard lacks: {key}",
                        expected=f"{key} in {file.name}",
                        got=f"{len(entries)} other tensors",
                        fix="fetch the checkpoint again: index and shards are of different revisions",
                    )
                self._entries[key] = entries[key]

    def keys(self) -> list[str]:
        """Every tensor's name, in the order of the files."""
        return list(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, key: str) -> TensorEntry:
        """Where a tensor lies: file, dtype, shape, offset, size.

        Raises:
            CheckpointError: no such tensor; the message offers the closest name.
        """
        try:
            return self._entries[key]
        except KeyError as error:
            raise CheckpointError(
                f"{self.folder} has no tensor {key!r}", fix=closest(key, self._entries).partition("known:")[0] or None
            ) from error

    def shape(self, key: str) -> Shape:
        """A tensor's shape."""
        return self.entry(key).shape

    def dtype(self, key: str) -> str:
        """A tensor's dtype as the file format writes it: "BF16", "F32", ..."""
        return self.entry(key).dtype

    def raw(self, key: str) -> np.ndarray:
        """A tensor's bytes as a read-only memory map, uint8 [size], for streaming copies."""
        return self._map(key, "r")

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor in its stored dtype, on a memory map of its own, which goes when the tensor goes.

        A quantized weight (see motedge.checkpoint.fp8_layout) comes dequantized, in fp32.

        So walking over all weights holds one tensor's pages at a time. The map is copy-on-write: writing into the
        tensor does not reach the file.

        Raises:
            CheckpointError: no such tensor, or one of a dtype that torch has no name for.
        """
        import torch

        entry = self.entry(key)
        if entry.dtype not in _TORCH_DTYPES:
            raise CheckpointError(
                f"a weight has a dtype that can't be read: {key}",
                expected=", ".join(_TORCH_DTYPES),
                got=entry.dtype,
                fix="fetch the bf16 revision (main)",
            )
        dtype: torch.dtype = getattr(torch, _TORCH_DTYPES[entry.dtype])
        stored = torch.from_numpy(self._map(key, "c")).view(dtype).reshape(entry.shape)
        scale = key.removesuffix(".weight") + ".weight_scale"
        if entry.dtype != "F8_E4M3" or scale not in self:
            return stored
        return stored.float() * self.tensor(scale).float()

    def finite_tensor(self, key: str) -> torch.Tensor:
        """Like `tensor`, after a look at every value.

        Raises:
            CheckpointError: the tensor holds NaN or infinity.
        """
        tensor = self.tensor(key)
        bad = _count_not_finite(tensor)
        if bad:
            raise CheckpointError(
                f"a weight is not finite: {key}",
                expected="finite numbers",
                got=f"{bad} of {tensor.numel()} values are NaN or infinite",
                why="early Edge releases lack trained action weights and hold NaN there; else the file is damaged",
                fix="fetch a newer revision of the checkpoint",
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def _map(self, key: str, mode: Literal["r", "c"]) -> np.ndarray:
        entry = self.entry(key)
        return np.memmap(entry.file, dtype=np.uint8, mode=mode, offset=entry.offset, shape=(entry.size,))


def _count_not_finite(tensor: torch.Tensor) -> int:
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return 0
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    # One pass over extremes, which NaN and infinity get through, is many times faster than a mask
    low, high = torch.aminmax(wide)
    if bool(torch.isfinite(low) & torch.isfinite(high)):
        return 0
    return int(wide.numel() - torch.isfinite(wide).sum())


def has_weights(folder: Path) -> bool:
    """Whether a component's folder holds an index or a weight file at all."""
    return folder.is_dir() and any(folder.glob("*.safetensors*"))


def _weight_map(folder: Path) -> dict[str, Path] | None:
    """Key -> shard by the component's own index, or None where there is none."""
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if not index.exists():
            continue
        try:
            names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            plain = {name for name in names.values() if Path(name).name == name}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the index can't be read: {index}",
                expected="JSON with a weight_map of tensor -> file",
                got=f"{type(error).__name__}: {error}",
                fix="fetch the checkpoint again",
            ) from error
        outside = sorted(set(names.values()) - plain)
        if outside:
            raise CheckpointError(
                f"the index names a file outside its own folder: {index}",
                expected="plain file names",
                got=outside[0],
                fix="do not use a checkpoint from an untrusted source",
            )
        _require_shards(folder, sorted(plain))
        return {key: folder / name for key, name in names.items()}
    return None


def _require_shards(folder: Path, names: list[str]) -> None:
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(names)} weight files are missing in {folder}",
            expected=", ".join(names[:3]) + (", ..." if len(names) > 3 else ""),
            got=f"no {', '.join(missing[:3])}" + (", ..." if len(missing) > 3 else ""),
            fix="fetch the checkpoint again; finished files are not repeated",
        )


def _single_file(folder: Path) -> Path:
    for stem in _STEMS:
        if (folder / f"{stem}.safetensors").exists():
            return folder / f"{stem}.safetensors"
    raise CheckpointError(
        f"no weights in {folder}",
        expected=" or ".join(f"{stem}.safetensors[.index.json]" for stem in _STEMS),
        got=", ".join(sorted(p.name for p in folder.glob("*"))[:6]) if folder.is_dir() else "no such folder",
        fix="fetch the whole checkpoint",
    )
