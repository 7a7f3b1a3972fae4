"""Checkpoints under other names (cosmos-framework's, Edge's reasoner alone) in the published layout.

The framework's format is torch's distributed one (DCP); safetensors are taken too.

DCP keeps its index as a pickle, which can run code: convert only what you trained, or trust as much as a program.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motedge.checkpoint.framework_keys import PREFIXES, framework_name
from motedge.checkpoint.keys import transformer_shapes
from motedge.checkpoint.other_names import RenamedStore
from motedge.checkpoint.provenance import Provenance
from motedge.checkpoint.reader import Checkpoint
from motedge.checkpoint.rewrite import rewrite_transformer
from motedge.checkpoint.safetensors_stream import SHARD_BYTES
from motedge.checkpoint.tensor_store import has_weights
from motedge.errors import CheckpointError, UsageError, closest
from motedge.files import PathLike

if TYPE_CHECKING:
    import torch

FRAMEWORK = "framework"
_INDEX = ".metadata"
_LAYER = re.compile(r"layers\.\d+\.")


def convert_checkpoint(
    source: PathLike, base: Checkpoint, out: PathLike, *, weights: str = "ema", shard_bytes: int = SHARD_BYTES
) -> Path:
    """Writes a framework checkpoint in the published layout, one tensor in memory at a time.

    Args:
        source: the DCP folder (the one with `.metadata`); or a folder of safetensors under the framework's names, or
            under those of Edge's reasoner (the generator then stays the base's).
        base: a published checkpoint of the same shapes, which gives configs, tokenizer, VAE and vision encoder.
        out: the folder to make.
        weights: "ema" (averaged, what is published) or "model".
        shard_bytes: the limit of one weight file's data.

    Raises:
        UsageError: an unknown kind of weights, or `out` exists.
        CheckpointError: no DCP folder, a tensor that is missing, of another shape, or not finite.
    """
    if weights not in PREFIXES:
        raise UsageError("unknown kind of weights", got=weights, fix=closest(weights, PREFIXES))
    folder = Path(source)
    origin = Provenance(source=FRAMEWORK, id=folder.name)
    if has_weights(folder) and not (folder / _INDEX).is_file():
        renamed = RenamedStore(folder, base, weights)
        return rewrite_transformer(base, out, renamed.tensor, origin, shard_bytes=shard_bytes)
    store = FrameworkStore(folder, weights)
    store.check(base)
    return rewrite_transformer(base, out, store.tensor, origin, shard_bytes=shard_bytes)


class FrameworkStore:
    """The transformer's tensors of a DCP folder, by their published names."""

    def __init__(self, folder: Path, weights: str) -> None:
        """Reads the index; CheckpointError without one, or where it holds no such weights."""
        from torch.distributed.checkpoint.filesystem import FileSystemReader

        if not (folder / _INDEX).is_file():
            raise CheckpointError(
                f"{folder} is not a framework checkpoint",
                expected=f"a folder of torch.distributed.checkpoint, with {_INDEX}",
                got=", ".join(sorted(p.name for p in folder.glob("*"))[:5]) if folder.is_dir() else "no such folder",
            )
        self.folder, self._reader = folder, FileSystemReader(str(folder))
        try:
            self._entries: dict[str, Any] = dict(self._reader.read_metadata().state_dict_metadata)
        except Exception as error:
            # Whatever unpickling a damaged file raises
            raise CheckpointError(f"{folder / _INDEX} is damaged", got=f"{type(error).__name__}: {error}") from error
        self._prefix = self._find_prefix(PREFIXES[weights], weights)
        self._keys: list[str] = []
        self._read: dict[str, torch.Tensor] = {}

    def check(self, base: Checkpoint) -> None:
        """Compares names and shapes with what `base`'s config asks for; CheckpointError names the first difference."""
        shapes = transformer_shapes(base.config)
        self._keys = list(shapes)
        for key, shape in shapes.items():
            name = self._name(key)
            if name not in self._entries:
                raise CheckpointError(
                    f"{self.folder} lacks {name}",
                    expected=f"the framework's name of {key} {list(shape)}",
                    fix=closest(name, self._entries).partition("known:")[0] or "give the base of the same family",
                )
            got = tuple(self._entries[name].size)
            if got != shape:
                raise CheckpointError(
                    f"a weight has the wrong shape: {name}",
                    expected=f"{list(shape)}, by {base.root}",
                    got=list(got),
                    fix="give the base that it was trained from",
                )

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor by its published name, in its stored type; to be asked for once, in the order of the layers."""
        if key not in self._read:
            self._read = self._load(key)
        return self._read.pop(key)

    def _load(self, key: str) -> dict[str, torch.Tensor]:
        """With the rest of its layer: each call of torch's reader plans anew over all tensors."""
        import torch
        from torch.distributed.checkpoint.state_dict_loader import load

        layer = _LAYER.match(key)
        keys = [k for k in self._keys if k.startswith(layer.group())] if layer else [key]
        wanted = {}
        for name in map(self._name, keys):
            entry = self._entries[name]
            wanted[name] = torch.empty(tuple(entry.size), dtype=entry.properties.dtype)
        with warnings.catch_warnings():
            # That there is no process group, which is what is meant
            warnings.simplefilter("ignore", UserWarning)
            load(wanted, storage_reader=self._reader, no_dist=True)
        return dict(zip(keys, wanted.values()))

    def _name(self, key: str) -> str:
        return self._prefix + framework_name(key)

    def _find_prefix(self, prefix: str, weights: str) -> str:
        """What stands before a name: trainers put the network below names of their own ("model.net.")."""
        last = prefix + framework_name("embed_tokens.weight")
        for name in self._entries:
            if name == last or name.endswith(f".{last}"):
                return name[: -len(last)] + prefix
        raise CheckpointError(
            f"{self.folder} holds no {weights} weights of a Cosmos 3 transformer",
            expected=last,
            got=", ".join(list(self._entries)[:3]) or "no tensors",
            fix="weights='model' takes those that are not averaged" if weights == "ema" else None,
        )
