"""The tables of a bundle: token embeddings, rotary frequencies, the embodiments' projections. Memory-mapped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motedge.bundle import Bundle
from motedge.errors import BundleError, ContractError, UsageError
from motedge.runtime.engine import Array, FloatArray, IntArray

# How each table dtype is stored, little-endian; bf16 is the upper half of an fp32
STORAGE: dict[str, np.dtype[Any]] = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2"), "bf16": np.dtype("<u2")}


@dataclass(frozen=True)
class StoredTable:
    """One table as it lies on disk, turned into fp32 row by row when read."""

    # dtype as in STORAGE
    data: Array
    # "fp32", "fp16" or "bf16"
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in STORAGE:
            raise BundleError("a table has an unknown dtype", expected=", ".join(STORAGE), got=self.dtype)
        if self.data.dtype != STORAGE[self.dtype]:
            raise BundleError(
                f"a {self.dtype} table is stored in another type", expected=STORAGE[self.dtype], got=self.data.dtype
            )

    @classmethod
    def map(cls, path: Path, dtype: str, shape: Sequence[int]) -> StoredTable:
        """Memory-maps a raw file.

        Raises:
            BundleError: an unknown dtype, or the file's size does not fit the shape.
        """
        if dtype not in STORAGE:
            raise BundleError(
                f"table {path.name} has an unknown dtype", expected=", ".join(STORAGE), got=dtype, fix="export again"
            )
        if not path.is_file():
            raise BundleError(f"table {path.name} is missing from the bundle", fix="copy it again, or export again")
        expected = math.prod(shape) * STORAGE[dtype].itemsize
        size = path.stat().st_size
        if size != expected or not size:
            raise BundleError(
                f"table {path.name} has the wrong size",
                expected=f"{expected} bytes for {list(shape)} in {dtype}",
                got=f"{size} bytes",
                fix="copy the bundle again, or export again",
            )
        return cls(np.memmap(path, dtype=STORAGE[dtype], mode="r", shape=tuple(shape)), dtype)

    def rows(self, index: Any) -> FloatArray:
        """`data[index]` as a new, contiguous fp32 array."""
        part = np.ascontiguousarray(self.data[index])
        if self.dtype == "bf16":
            return (part.astype(np.uint32) << 16).view(np.float32)
        return part.astype(np.float32)


@dataclass(frozen=True)
class EmbodimentWeights:
    """The action projections of one embodiment, fp32; output columns beyond raw_dim are zero."""

    # [Z, H]
    in_weight: FloatArray
    # [H]
    in_bias: FloatArray
    # [H, Z]
    out_weight: FloatArray
    # [Z]
    out_bias: FloatArray


class Tables:
    """Named tables; see manifest.tables. Rows are read when asked for, so an 0.5 GB embedding costs no memory."""

    def __init__(self, stored: Mapping[str, StoredTable]) -> None:
        self._stored = dict(stored)

    @classmethod
    def open(cls, bundle: Bundle) -> Tables:
        """Maps every table of a bundle; checks sizes, not contents (`bundle.check_files` does that)."""
        stored = {}
        for name, entry in bundle.manifest.tables.items():
            try:
                file, dtype, shape = entry["file"], entry["dtype"], [int(n) for n in entry["shape"]]
            except (KeyError, TypeError, ValueError) as error:
                raise BundleError(
                    f"manifest.json: table {name!r} lacks a field",
                    expected="file, dtype, shape",
                    got=repr(error),
                    fix="export again",
                ) from error
            stored[name] = StoredTable.map(bundle.path(file), dtype, shape)
        return cls(stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a table."""
        shape: tuple[int, ...] = self._table(name).data.shape
        return shape

    def inv_freq(self) -> FloatArray:
        """Rotary frequencies, fp32 [R]."""
        return self._table("inv_freq").rows(slice(None))

    def vision_positions(self) -> FloatArray:
        """The vision encoder's learned positions, fp32 [entries, E]; BundleError without the reasoner's tables."""
        return self._table("vision_positions").rows(slice(None))

    def embeddings(self, token_ids: IntArray) -> FloatArray:
        """The embeddings of a prompt, fp32 [n, H].

        Raises:
            ContractError: not a row of whole numbers, or an id outside the vocabulary.
        """
        table = self._table("embed_tokens")
        vocabulary = table.data.shape[0]
        if token_ids.ndim != 1 or not np.issubdtype(token_ids.dtype, np.integer):
            raise ContractError(
                "token ids have the wrong type", expected="int64 [n]", got=f"{token_ids.dtype} {token_ids.shape}"
            )
        wrong = token_ids[(token_ids < 0) | (token_ids >= vocabulary)]
        if wrong.size:
            raise ContractError(
                "a token id is outside the vocabulary",
                expected=f"0 to {vocabulary - 1}",
                got=int(wrong[0]),
                why="the tokenizer and the embedding table belong to different checkpoints",
                fix="use the tokenizer of the bundle",
            )
        return table.rows(token_ids)

    def embodiment_weights(self, domain_id: int, raw_dim: int) -> EmbodimentWeights:
        """The projections of one embodiment, so masked that channels >= raw_dim come out as exactly 0.

        Raises:
            UsageError: the tables have no such domain, or raw_dim does not fit an action row.
        """
        domains, width = self._table("action_in_weight").data.shape[:2]
        if not 0 <= domain_id < domains:
            raise UsageError("the model has no such embodiment domain", expected=f"0 to {domains - 1}", got=domain_id)
        if not 0 < raw_dim <= width:
            raise UsageError("raw_dim is wrong", expected=f"1 to {width} channels", got=raw_dim)
        weights = EmbodimentWeights(
            in_weight=self._table("action_in_weight").rows(domain_id),
            in_bias=self._table("action_in_bias").rows(domain_id),
            out_weight=self._table("action_out_weight").rows(domain_id),
            out_bias=self._table("action_out_bias").rows(domain_id),
        )
        weights.out_weight[:, raw_dim:] = 0
        weights.out_bias[raw_dim:] = 0
        return weights

    def _table(self, name: str) -> StoredTable:
        if name not in self._stored:
            raise BundleError(
                f"the bundle has no table {name!r}", expected=", ".join(sorted(self._stored)), fix="export again"
            )
        return self._stored[name]
